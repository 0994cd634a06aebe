"""
The playground: what it may be asked, whom it refuses, and that the page works in a real browser.

RT2_CHECKPOINT names trained weights; without it, a model that has learnt nothing acts, and nothing is said
about its success.
"""
import functools
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import eval as evaluation
import train
from data import Robot
from model import VLA, ModelConfig
from browser import Browser
from tokenizer import ActionTokenizer, Tokenizer, prompt, wish
from world import inside, play, record, scene
from world.chips import chips, understand
from world.scene import Thing, World

ROOT = Path(__file__).parent.parent
TRAINED = os.environ.get("RT2_CHECKPOINT")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def untrained(path, vocabulary="medium", skills=("pick", "move near"), thought_len=8, wishes=False):
    """a checkpoint of the built-in world that has learnt nothing"""
    torch.manual_seed(0)
    table = {"format": "world", "vocabulary": vocabulary, "skills": list(skills), "wishes": wishes}
    config = train.Config(robot=[table], thought_len=thought_len)
    tok = Tokenizer.train(record.corpus(vocabulary, 200), 3000)
    robot = Robot(ActionTokenizer(tok, scene.ACTION_LOW, scene.ACTION_HIGH))
    sizes = ModelConfig(n_vocab=tok.n_vocab, vit_layer=1, n_layer=2, vit_embd=32, n_embd=32, max_text=64)
    train.save(path, model=VLA(sizes).state_dict(), config=asdict(config), model_config=asdict(sizes),
               tokenizer=tok.state(), robots={"world": robot.state()})
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return TRAINED or untrained(tmp_path_factory.mktemp("play") / "checkpoint.pt")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """as main() does it"""
    background = scene.draw.background
    drawn = functools.lru_cache(16)(background)
    scene.draw.background = lambda *view: drawn(*view).copy()
    yield
    scene.draw.background = background


@pytest.fixture
def session(server):
    return play.Session(server.policy, server.settings, server.lines, "seen: move near")


@pytest.fixture(scope="module")
def server(path):
    server = play.Server(path, port=0, device="cpu")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def port(server):
    return server.server_port


def ask(port, body=None, path="/", method=None, **headers):
    """a request -> status, body as text. body: a dict for POST /api"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if body is None:
            connection.request(method or "GET", path, headers=headers)
        else:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", "/api", data, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def api(port, **asked):
    status, text = ask(port, asked)
    assert status == 200
    return json.loads(text)


# -- over loopback, without a browser -----------------------------------------------------------------------

def test_an_episode_from_the_page_to_its_outcome(port):
    status, page = ask(port)
    assert status == 200 and "<title>RT-2 playground</title>" in page
    state = api(port, do="open")
    name = state["session"]
    assert state["picture"].startswith("data:image/jpeg;base64,") and state["steps"] == 0 and state["chips"]
    while not state["outcome"]:
        state = api(port, do="step", session=name)
        assert state["steps"] <= state["most"]
    seen = state["inside"]
    assert [t["name"] for t in seen["tokens"] if t["kind"] == "action"] == list(scene.ACTION_NAMES)
    assert "".join(seen["prompt"]) == state["read"]
    assert "over" in api(port, do="step", session=name)["error"]
    state = api(port, do="again", session=name, words="blank")
    assert state["steps"] == 0 and state["read"] == prompt(None) and not state["outcome"]


def test_again_begins_where_the_episode_began(port):
    state = api(port, do="open", seed=3)
    name, first = state["session"], state["picture"]
    for _ in range(3):
        state = api(port, do="step", session=name)
        if state["outcome"]:
            break
    assert api(port, do="again", session=name)["picture"] == first


def test_what_is_changed_after_the_end_stays_so(port):
    state = api(port, do="open", seed=1)
    name = state["session"]
    while not state["outcome"]:
        state = api(port, do="step", session=name)
    free = [i for i, t in enumerate(state["things"]) if t["name"] != state["held"]]
    moved = next(m for m in (api(port, do="move", session=name, thing=free[0], column=c, row=r)
                             for c in (.3, .5, .7) for r in (.4, .6, .8)) if "error" not in m)
    assert moved["outcome"] is None and moved["steps"] == 0
    assert api(port, do="again", session=name)["things"] == moved["things"]


def test_a_mistake_of_the_server_is_said_in_words(server, monkeypatch, capsys):
    name = server.api({"do": "open"})["session"]
    monkeypatch.setattr(inside, "decide", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in server.api({"do": "step", "session": name})["error"]
    monkeypatch.undo()
    assert server.api({"do": "step", "session": name})["steps"] == 1


def test_without_a_checkpoint_it_takes_the_weights_in_the_box(path, tmp_path, monkeypatch, capsys):
    """half as large as those that training saves; and without them a line says what to do"""
    def interrupted(server):
        raise KeyboardInterrupt
    monkeypatch.setattr(play.Server, "serve_forever", interrupted)
    monkeypatch.setattr(play.draw, "background", play.draw.background)         # main keeps what it drew; not so the other tests
    monkeypatch.setattr(inside, "TRAINED", tmp_path / "checkpoint.pt")
    monkeypatch.setattr(inside, "IN_THE_BOX", tmp_path / "box.pt")
    with pytest.raises(SystemExit, match="^error: no checkpoint .*checkpoint.pt; train first"):
        play.main(["--no-browser", "--port", "0"])
    state = train.load(path)
    state["model"] = {name: weight.to(torch.bfloat16) for name, weight in state["model"].items()}
    train.save(tmp_path / "box.pt", **{k: v for k, v in state.items() if k != "version"})
    play.main(["--no-browser", "--port", "0"])
    assert "box.pt" in capsys.readouterr().out
    shutil.copy(path, tmp_path / "checkpoint.pt")
    play.main(["--no-browser", "--port", "0"])
    assert "checkpoint.pt" in capsys.readouterr().out


def take(world):
    """the hand closes around a thing"""
    thing = next(t for t in world.things if t.kind is not scene.CARD and not t.kind.long)
    world.hand[:3], world.gripper, world.held = thing.centre, 1.0, None
    world.step([0] * 8)
    assert world.held is thing
    return thing


def test_a_scene_is_a_trial_of_the_table(session):
    """the same seed, the same scene, which no demonstration shows"""
    assert play.FIRST_SEED == evaluation.TRIAL_SEED
    trial = session.trial
    picture, told = trial.world.render(), trial.instruction
    assert (trial.reset(evaluation.TRIAL_SEED)[0]["image"] == picture).all() and trial.instruction == told


def test_each_attempt_has_draws_of_its_own(session):
    first = session.episode.rng.random()
    session.again()
    assert session.episode.rng.random() != first


def test_what_nobody_can_judge_is_tried_all_the_same(session):
    session.tell("wash the floor")
    take(session.world)
    assert not session.world.success()
    while not session.outcome:
        session.step()
    assert session.outcome["success"] is None and "nobody" in session.outcome["text"]


def test_an_edit_keeps_what_was_told_while_its_things_are_there(session):
    own, world = session.own, session.world
    other = next(t for t in world.things if t not in (own.task.a, own.task.b))
    session.again("blank")
    session.step()
    session.remove(world.things.index(other))
    assert session.chip is own and session.words == "blank" and world.steps == 0
    session.remove(world.things.index(own.task.b))
    assert session.chip.task.skill == "" and own.text not in session.chips and session.chip.text == own.text
    with pytest.raises(ValueError, match="nothing else"):
        session.again("swapped")


def test_what_the_hand_holds_stays_there(session):
    n = session.world.things.index(take(session.world))
    for edit in (lambda: session.move(n, .5, .5), lambda: session.remove(n)):
        with pytest.raises(ValueError, match="the hand holds it"):
            edit()


def test_a_table_is_full_at_some_time(session, monkeypatch):
    monkeypatch.setattr(play, "MOST_THINGS", len(session.world.things))
    with pytest.raises(ValueError, match="full"):
        session.add("apple", .5, .9)


def test_each_name_means_one_thing(session):
    with pytest.raises(ValueError, match="there is one on the table already"):
        session.add(next(t.name for t in session.world.things), .5, .9)


def test_what_cannot_be_said_again_changes_nothing(session):
    session.step()
    state, read = session.state(), session.read
    with pytest.raises(ValueError, match="nothing else can be asked for"):
        session.again("nonsense")
    assert session.state() == state and session.read == read and session.start
    session.again("blank")
    assert session.state()["steps"] == 0


def test_the_prompt_may_fill_its_room_and_not_more(session):
    n = next(n for n in range(1, 99) if not fits(session, "pick " + "apple " * n))
    assert n > 2 and fits(session, "pick " + "apple " * (n - 1))
    assert session.step()["inside"]["tokens"]


def fits(session, text):
    try:
        session.tell(text)
    except ValueError as e:
        assert "too long" in str(e) and session.world.task is session.chip.task        # the old one still stands
        return False
    return True


def test_what_is_in_a_bowl_moves_with_it(session):
    world = session.world
    a, bowl = next(t for t in world.things if not t.kind.container and not t.kind.long), Thing("red bowl", np.zeros(3))
    world.things[:] = [a, bowl]
    bowl.position, a.position, a.inside = np.array([-.1, -.1, 0]), np.array([-.1, -.1, .012]), bowl
    session.move(1, .5, .5)
    assert np.allclose(a.position - bowl.position, (0, 0, .012)) and a.inside is bowl
    session.move(0, .2, .8)
    assert a.inside is None
    a.inside = bowl
    session.remove(1)
    assert a.inside is None and world.things == [a]


def test_things_are_put_moved_and_taken_away(port):
    state = api(port, do="open", seed=1)
    name, put = state["session"], state["things_to_put"]["the robot knows"]
    for thing in list(range(len(state["things"])))[::-1]:
        state = api(port, do="remove", session=name, thing=thing)
    assert state["things"] == [] and state["judged"] is False
    state = api(port, do="add", session=name, name=put[0], column=.3, row=.5)
    state = api(port, do="add", session=name, name=put[1], column=.7, row=.5)
    at = state["things"][0]
    assert at["name"] == put[0] and abs(at["column"] - .3) < .02 and abs(at["row"] - .5) < .02
    assert "in the way" in api(port, do="move", session=name, thing=0, column=.7, row=.5)["error"]
    assert "too far" in api(port, do="move", session=name, thing=0, column=.5, row=.01)["error"]
    assert "error" not in api(port, do="move", session=name, thing=0, column=.5, row=.7)
    for bad in (dict(do="move", thing=99, column=.5, row=.5), dict(do="move", thing=0, column=7, row=.5),
                dict(do="add", name="__class__", column=.5, row=.5), dict(do="remove", thing="0"), dict(do="move")):
        assert api(port, session=name, **bad)["error"]
    assert api(port, do="tell", session=name, text=f"Pick up the {put[0]}!")["judged"] is True


def test_whatever_is_typed_is_answered_in_words(port):
    name = api(port, do="open")["session"]
    for text in ("x" * 10_000, "pick apple " * 900, "", " ", "?!", None, 7, ["pick"], "\0", "\ud800", "<script>alert(1)</script>", "mueve 🍎"):
        answer = api(port, do="tell", session=name, text=text)
        assert answer.get("error") or answer["steps"] == 0
    assert "too long" in api(port, do="tell", session=name, text="pick apple " * 900)["error"]
    assert api(port, do="step", session=name)["steps"] == 1
    for seed in (-1, 2 ** 30, 1.0, "1"):
        assert "seed" in api(port, do="open", seed=seed)["error"]
    for do in ("begin", "place", "__init__", "policy", "state", None, 3, "nothing"):
        assert api(port, do=do, session=name)["error"]
    assert api(port, do="step", session="another")["gone"] is True


def test_two_pages_do_not_see_each_other(port):
    one, two = api(port, do="open", seed=1), api(port, do="open", seed=2)
    assert one["session"] != two["session"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda s: api(port, do="step", session=s["session"]), (one, two)))
    assert api(port, do="again", session=one["session"])["seed"] == 1
    assert api(port, do="again", session=two["session"])["things"] == two["things"]


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "evil.example:8010"}, {"Host": "127.0.0.1.evil.example"}, {"Host": ""},
    {"Host": "localhost@evil.example"}, {"Host": "0.0.0.0"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
    {"Origin": "http://localhost:1"}, {"Origin": "https://127.0.0.1"}])
def test_other_hosts_and_origins_are_refused(port, headers):
    for body in (None, {"do": "open"}):
        status, text = ask(port, body, **headers)
        assert status == 403 and "RT-2" not in text and "session" not in text


def test_two_names_of_a_host_are_refused(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", "/")                       # the first Host
    connection.putheader("Host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status == 403
    connection.close()


def test_its_own_names_are_not_refused(port):
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(port, {"do": "open"}, Host=host, Origin=f"http://{host}")[0] == 200


def test_nothing_but_the_page_is_served(port):
    for path in ("/play.py", "/../model.py", "/world/play.html", "//etc/passwd", "/%2e%2e/model.py", "/api", "/favicon.ico", "/page"):
        assert ask(port, path=path)[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
        assert ask(port, method=method)[0] == 501
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(port, {"do": "open"}, **{"Content-Type": kind})[0] == 403
    assert ask(port, b"x" * (play.MOST_BYTES + 1))[0] == 403
    for body in (b"", b"{", b"[" * 50_000, b"[]", b"7", b"\xff", b'{"do": {}}', b'{"do": "open", "seed": 1e999}'):
        assert json.loads(ask(port, body)[1])["error"]


def test_it_listens_on_this_machine_alone(server, path):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ValueError, match="--port"):
        play.Server(path, port=server.server_port, device="cpu")


def test_a_flood_of_a_thousand_requests_leaves_it_working(port):
    name = api(port, do="open")["session"]

    def one(i):
        return ask(port) if i % 10 else ask(port, {"do": "tell", "session": name, "text": f"pick {i}"})
    with ThreadPoolExecutor(32) as pool:
        assert {status for status, _ in pool.map(one, range(1000))} == {200}
    assert api(port, do="step", session=name)["steps"] == 1


def test_the_oldest_page_is_forgotten_first(server, monkeypatch):
    monkeypatch.setattr(play, "MOST_SESSIONS", 2)
    monkeypatch.setattr(server, "sessions", {})
    a, b = (server.api({"do": "open"})["session"] for _ in range(2))
    server.api({"do": "step", "session": a})
    server.api({"do": "open"})
    assert server.api({"do": "step", "session": b}).get("gone") and "gone" not in server.api({"do": "step", "session": a})


def test_other_vocabularies_and_skills_come_from_the_checkpoint(tmp_path):
    with play.Server(untrained(tmp_path / "full.pt", "full", scene.SKILLS, thought_len=0), port=0, device="cpu") as full:
        assert {f"seen: {skill}" for skill in scene.SKILLS} <= set(full.lines)
        groups = set()
        for line in full.lines:
            session = play.Session(full.policy, full.settings, full.lines, line, seed=5)
            assert session.own.task.skill and next(iter(session.chips.values())) is session.own
            for chip in list(session.chips.values()):
                groups.add(chip.group)
                session.tell(chip.text)
                assert session.chip.task.skill == chip.task.skill, chip.text
                assert session.read == prompt(chip.text)            # a wish, too: it has not learnt to plan
                assert session.world.strict == chip.strict
                assert chip.strict == (chip.group not in ("seen", "unseen")) or chip is session.own
                if chip.group == "wish":
                    assert len(session.world.movers) == 1 + (chip.task.skill == "move near")
                    session.wishes = True
                    assert session.reads(chip)["told"] == wish(chip.text)
                    session.wishes = False
        assert groups >= {"the task", "seen", "unseen", "symbols", "people", "reasoning", "wish"}
        for thing in list(session.world.things):
            session.remove(0)
        session.add("black hair, nothing worn", .3, .6), session.add("white hair, glasses", .7, .6)
        assert session.world.things[1].face == {"hair": "white", "glasses": True, "hat": False, "beard": False}
        assert [f["name"] for f in session.state()["things"]] == ["person with black hair", "person with white hair"]


# -- instructions -------------------------------------------------------------------------------------------

def test_plain_instructions_are_understood():
    world = World("full", size=0)
    world.reset(3, "move near")
    a, b = world.task.a, world.task.b
    for text in (f"move {a.name} near {b.name}", f"Bring the {a.name} to the {b.name}.", f"put {a.name} next to {b.name}"):
        task = understand(world, text)
        assert task.skill == "move near" and (task.a, task.b) == (a, b)
    assert understand(world, f"pick up the {a.name}").skill == "pick"
    world.opening = None
    for text in ("wash the floor", f"move {a.name} near {a.name}", "pick unicorn", f"pick {a.name} near {b.name}", "open the drawer"):
        assert understand(world, text).skill == ""
    world.opening = .1
    assert understand(world, "close the drawer").skill == "close" and understand(world, f"put {a.name} into the drawer").b == "drawer"
    for text in (f"move {a.name} near the drawer", "pick the drawer"):
        assert understand(world, text).skill == ""


def test_a_noun_will_do_where_it_means_one_thing():
    world = World("small", size=0)
    world.reset(0)
    world.things[:] = [Thing(name, np.array([x, 0, 0])) for name, x in (("red can", -.1), ("green cup", 0.), ("blue can", .1))]
    assert understand(world, "pick the cup").a is world.things[1] and understand(world, "pick the can").skill == ""


def test_the_words_of_demonstrations_are_understood():
    """with "the red item", with remarks, and as the task that they mean"""
    world = World("medium", ("pick", "move near"), size=0)
    for seed in range(200):
        world.reset(seed)
        text = scene.reword(world, np.random.default_rng(seed))
        task = understand(world, text)
        assert (task.skill, task.a, task.b) == (world.task.skill, world.task.a, world.task.b), text


def test_there_are_a_few_chips_of_a_group_and_none_for_what_is_held():
    world = World("full", size=0)
    world.reset(4, "pick")
    groups = [chip.group for chip in chips(world, np.random.default_rng(0))]
    assert max(map(groups.count, groups)) == 3 and groups == sorted(groups, key=groups.index)
    held = take(world)
    for seed in range(5):
        found = chips(world, np.random.default_rng(seed))
        assert all(held not in (chip.task.a, chip.task.b) for chip in found if chip.group in ("seen", "unseen"))


def test_every_chip_that_is_plain_is_understood_as_itself():
    for seed in range(30):
        world = World("full", size=0)
        world.reset(seed)
        for chip in chips(world, np.random.default_rng(seed)):
            task = understand(world, chip.text)
            assert chip.strict == (chip.group not in ("seen", "unseen"))
            if chip.group in ("seen", "unseen"):
                assert (task.skill, task.a, task.b) == (chip.task.skill, chip.task.a, chip.task.b), chip.text


# -- inside -------------------------------------------------------------------------------------------------

def test_looking_inside_changes_nothing_and_adds_up(path):
    policy, settings = inside.world_policy(path, "cpu")
    world = World(settings["vocabulary"], settings["skills"])
    picture = world.reset(7)[0]["image"]
    plain = [policy.episode(1).act(picture, "pick apple") for _ in range(2)]
    action, seen = inside.decide(policy, policy.episode(1), picture, prompt("pick apple"))
    assert (plain[0] == plain[1]).all() and (plain[0] == action).all()
    told = [t for t in seen["tokens"] if t["kind"] == "action"]
    assert np.allclose([t["value"] for t in told], action, atol=1e-4) and len(told) == 8
    for token in seen["tokens"]:
        assert sum(r[1] for r in token["rivals"]) < 1.001 and 0 <= token["allowed"] <= 1.001
        assert token["rivals"] == sorted(token["rivals"], key=lambda r: -r[1])
    for t, look in enumerate(seen["looks"]):
        assert {len(row) for layer in look for row in layer} == {seen["n_image"] + len(seen["prompt"]) + t}
        assert all(abs(sum(row) - 1000) < 30 for layer in look for row in layer)
    if policy.config["thought_len"]:
        assert "".join(t["text"] for t in seen["tokens"] if t["kind"] == "thought") == seen["thought"]
    assert policy.model.watch is None and all(b.attn.watch is None for b in policy.model.blocks)


def test_chances_are_those_of_the_draw(path):
    """a higher temperature makes the likeliest token less likely; what the model itself would say stays"""
    policy, settings = inside.world_policy(path, "cpu")
    picture, first = World(settings["vocabulary"], settings["skills"]).reset(7)[0]["image"], []
    for policy.temperature in (.5, 5):
        first.append(inside.decide(policy, policy.episode(1), picture, prompt("pick apple"))[1]["tokens"][0])
    assert first[0]["rivals"][0][1] > first[1]["rivals"][0][1] and first[0]["allowed"] == first[1]["allowed"]
    logits, masked = torch.zeros(1, policy.tokenizer.n_vocab), torch.full((1, policy.tokenizer.n_vocab), -torch.inf)
    masked[0, :4] = 0.
    assert inside.odds(policy, logits, masked, 2, -1)["allowed"] == round(4 / policy.tokenizer.n_vocab, 4)


def test_attention_is_that_of_the_whole_sequence_read_again(path):
    """with and without the KV cache"""
    looks = []
    for cache in (True, False):
        policy, settings = inside.world_policy(path, "cpu")
        policy.cache = cache
        picture = World(settings["vocabulary"], settings["skills"]).reset(7)[0]["image"]
        looks.append(inside.decide(policy, policy.episode(1), picture, prompt("pick apple"))[1]["looks"])
    for a, b in zip(*looks):
        assert np.abs(np.array(a) - np.array(b)).max() <= 1


def test_attention_as_a_picture(path, tmp_path, capsys):
    shutil.copy(path, tmp_path / "checkpoint.pt")
    of = ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--seed", "7"]
    inside.main(["pick apple", *of])
    assert "--seed 7;" in capsys.readouterr().out and (tmp_path / "attention.png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="^error: no scene"):
        inside.main(["wash the floor", *of])


# -- in a real browser --------------------------------------------------------------------------------------

def serve_alone(path, port=0):
    """the server as a user starts it, who can press Ctrl-C (a shell's background job cannot) -> process, port"""
    command = [sys.executable, "-m", "world.play", "--checkpoint", str(path), "--port", str(port), "--no-browser", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    line = process.stdout.readline()
    return process, int(line.split(" is ")[0].rpartition(":")[2])


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_the_page_in_a_real_browser(path, tmp_path):
    shots = Path(os.environ.get("RT2_SCREENSHOTS", tmp_path))
    process, port = serve_alone(path)
    url = f"http://127.0.0.1:{port}/"
    done = "!running && !busy && state.session"
    try:
        with Browser(CHROMIUM) as browser:
            page = browser.page(url)
            page.wait(f"{done} && document.querySelector('#picture').naturalWidth == 448")
            assert page.js("state.steps") == 0
            # type an instruction, take a step, look inside it
            text = page.js("state.chips.find(c => c[1] !== state.text)?.[1] ?? state.text")
            page.type("#text", text)
            page.key("Enter", "\r")
            page.wait(f"state.text == {json.dumps(text)}")
            page.click("#step")
            page.wait(f"state.steps == 1 && {done}")
            assert page.js("document.querySelectorAll('#answer button').length") >= 8
            assert page.js("document.querySelectorAll('#rivals .bar').length") >= 2
            assert page.js("document.querySelectorAll('#heat rect').length") == page.js("inside.grid ** 2")
            page.click("#answer button:nth-child(4)")
            page.js("document.querySelector('#layer').value = 1; document.querySelector('#layer').onchange()")
            assert page.js("token") == 3
            # run to the end, slowly at first, with a pause by the keyboard
            page.js("document.activeElement.blur(); document.querySelector('#speed').value = 2")
            page.key(" ", " ")
            page.wait("running && state.steps >= 1")
            page.key(" ", " ")
            page.wait(done)
            page.js("document.querySelector('#speed').value = 4")
            wins = 0
            for _ in range(4):
                if not page.js("!!state.outcome"):
                    page.click("#run")
                page.wait(f"state.outcome && {done}")
                wins += page.js("state.outcome.success")
                page.picture(shots / "1280.png")
                page.key("n")
                page.wait(f"state.steps == 0 && {done}")
            assert not TRAINED or wins >= 2
            # drag the first thing
            page.js("scrollTo(0, 0); say = state.things[0]")
            x, y = page.middle("#over circle")
            moved = "Math.hypot(state.things[0].column - say.column, state.things[0].row - say.row) > .02"
            for dx, dy in ((60, 40), (-60, 40), (60, -40), (-60, -40), (0, 90)):
                page.drag(x, y, x + dx, y + dy)
                page.js("queue.then(() => 0)")
                if page.js(moved):
                    break
            assert page.js(moved)
            # put something, choose it, move it by the keyboard, take it away
            n = page.js("state.things.length")
            for where in ((.5, .5), (.3, .8), (.7, .8), (.2, .4), (.8, .4)):
                page.click("#put")
                page.js("scrollTo(0, 0)")
                box = page.js("(r => [r.x, r.y, r.width])(document.querySelector('#over').getBoundingClientRect())")
                at = [box[i] + where[i] * box[2] for i in (0, 1)]
                page.mouse("mousePressed", *at), page.mouse("mouseReleased", *at)
                page.js("queue.then(() => 0)")
                if page.js("state.things.length") > n:
                    break
            assert page.js("state.things.length") == n + 1
            page.click(f"[data-thing='{n}']")
            page.key("ArrowRight"), page.js("queue.then(() => 0)")
            page.key("Delete")
            page.wait(f"state.things.length == {n}")
            # the controls
            page.click("[data-words=blank]")
            page.wait("state.words == 'blank' && state.read == 'Q: what action should the robot take? A:'")
            page.click("#run")
            page.wait(f"state.outcome && {done}")
            # what does not go is said in words, and the page lives on
            page.type("#text", "pick apple " * 909)
            page.click("#go")
            page.wait("document.querySelector('#error').textContent.includes('too long')")
            page.type("#text", "<img src=x onerror=alert(1)> \U0001f34e")
            page.click("#go")
            page.wait("state.text.includes('<img') && !document.querySelector('main img[src=x]')")
            # a second page has a scene of its own
            other = browser.page(url, width=400, dark=True)
            other.wait(done)
            other.key("n"), other.wait("state.seed == 1")
            other.js("document.querySelector('#speed').value = 4"), other.click("#run")
            other.wait(f"state.outcome && {done}")
            assert page.js("state.session") != other.js("state.session") and page.js("state.text").startswith("<img")
            for width in (1280, 400):
                for dark in (False, True):
                    other.look(width, 900, dark)
                    other.picture(shots / f"{width}-{'dark' if dark else 'light'}.png")
                    assert other.js("document.documentElement.scrollWidth") <= width
            assert page.complaints() == []
            # Ctrl-C ends the server although pages are open; it is started again
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            page.click("#step"), page.click("#again")
            page.wait("document.querySelector('#error').textContent.includes('does not answer')")
            process, _ = serve_alone(path, port)
            page.click("#again")
            page.wait("document.querySelector('#error').textContent.includes('began anew')")
            page.click("#step")
            page.wait(f"state.steps == 1 && {done}")
            # Chromium itself writes down each request that finds nobody
            assert {c for c in page.complaints() if "ERR_CONNECTION_REFUSED" not in c} == set()
    finally:
        process.kill()
        process.wait()
