"""chain of thought, from sample to arm, and the study: resumed, added up, and shown as it was measured"""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import data
import eval as evaluation
from study import __main__ as study
import train
from world import web
from world import scene as world
from tokenizer import plan, prompt, wish

ROOT = Path(__file__).parent.parent
TINY = """vocabulary = "medium"
days = true
image_size = 32
robot_episodes = 60
web_pictures = 60
web_questions = ["locate", "way", "where sum", "translation"]
vit_layer = 1
vit_embd = 32
n_layer = 1
n_embd = 32
order = 0.06
easy_steps = 2
points = true
shift = 4
shift_from = 2
pretrain_steps = 3
steps = 4
robot_fraction = 0.5
batch_size = 8
warmup = 2
log_every = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny.toml").write_text(TINY + f'data_dir = "{folder / "data"}"\ndevice = "cpu"\n')
    return folder


@pytest.fixture(scope="module")
def thinker(folder):
    """a model that was trained on wishes with plans: the path of its checkpoint"""
    return train.train(train.read_config(["--config", str(folder / "tiny.toml"), "--out_dir", str(folder / "plan"), "--thoughts", "0.9"]))


def test_a_wish_is_one_sample_plan_first_then_the_action_of_the_log(folder, thinker):
    policy = evaluation.Policy(thinker, "cpu")
    log = data.WorldLog(folder / "data", world.episodes, 60, dict(vocabulary="medium", skills=["pick", "move near"], size=32, days=True), quiet=True)
    for plans in (True, False):
        robot, seen = data.RobotData(log, policy.actions, thoughts=1.0, plans=plans), set()
        for seed in range(40):
            (ask, answer), *_ = robot.sample(np.random.default_rng(seed))[1]
            said, does = policy.tokenizer.decode(ask), policy.tokenizer.decode(answer[:-9])
            assert said.startswith("Instruction: ") and said.endswith(".") and answer[-1] == policy.tokenizer.eos
            assert len(policy.actions.decode(np.array([answer[-9:-1]]))[0]) == 8
            meant = {step["instruction"] for step in log.steps}
            assert does == plan() if not plans else does.removeprefix(" Plan: ").removesuffix(". Action:") in meant
            seen.add(said)
        assert len(seen) > 5
    none = data.RobotData(log, policy.actions)
    assert all(policy.tokenizer.decode(none.sample(np.random.default_rng(s))[1][0][0]).startswith("Q:") for s in range(20))


def test_a_plan_is_words_then_action_and_nothing_else_may_be_said(thinker):
    """an untrained mind says anything, but the slots hold; cached and uncached say the same; a plan that never ends is cut"""
    policy = evaluation.Policy(thinker, "cpu", temperature=3.0)
    pictures, wishes = [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(5)], [wish("I am thirsty"), wish("bring me a toy")] * 2 + [wish("x")]
    found = []
    for policy.cache in (True, False):
        policy.reset()
        words, actions = policy.plan_batch(pictures, wishes)
        assert actions.shape == (5, 8) and set(actions[:, 0]) <= {0, 1} and (np.abs(actions[:, 1:4]) <= .08).all()
        assert all("Action:" not in w for w in words)
        found.append((words, actions))
    assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])
    assert policy.act_batch(pictures[:1], [wish("I am thirsty")]).shape == (1, 8)
    assert policy.act_batch(pictures[:1], [prompt("pick apple")]).shape == (1, 8)


def test_an_action_begins_with_the_places_of_what_is_taken_and_where_it_goes(folder, thinker):
    """the same at every step, whatever the hand holds; and the policy says places there and nothing else"""
    policy, tok = evaluation.Policy(thinker, "cpu", temperature=3.0), evaluation.Policy(thinker, "cpu").tokenizer
    log, moves = data.WorldLog(folder / "data", world.episodes, 60, dict(vocabulary="medium", skills=["pick", "move near"], size=32, days=True), quiet=True), 0
    robot = data.RobotData(log, policy.actions, points=True)
    for n, i in enumerate(robot.index):
        answer, step = robot.sample(np.random.default_rng(0), n)[1][0][1], log.steps[i]
        facts = {f["name"]: f for f in step["facts"]}
        a, _, b = step["task"].partition(" ")[2].partition(" near ")
        assert tok.decode(answer[:4]) == web.place(facts[a]) + web.place(facts[b or a]) and len(answer) == 4 + 9
        moves += bool(b)
    assert 50 < moves < len(robot.index) - 50
    pictures = [np.full((32, 32, 3), 60 * i, np.uint8) for i in range(4)]
    actions = policy.act_batch(pictures, [prompt("pick apple")] * 4)
    assert actions.shape == (4, 8) and [len(said.split()) for said in policy.pointed] == [4] * 4
    assert all(0 <= int(word) < web.GRID for said in policy.pointed for word in said.split())
    with pytest.raises(ValueError, match="set points = false"):
        data.RobotData(type("Log", (), dict(episode=log.episode, path="other", actions=log.actions, texts=log.texts, picture=log.picture))(), policy.actions,
                       points=True)


def test_where_the_words_end_is_found():
    after, opening = evaluation.Policy._after, torch.tensor([7, 8])
    said = torch.tensor([[1, 7, 8, 3, 4], [7, 7, 8, 7, 8], [1, 2, 3, 7, 7]])
    assert after(said, opening).tolist() == [2, 2, -1] and after(said[:, :1], opening).tolist() == [-1, -1, -1]
    assert after(said[:, :3], opening).tolist() == [0, 0, -1]


def test_action_accuracy_counts_the_action_and_not_the_plan(folder, thinker):
    """a model that is always right: 8 tokens a robot row, plan or not"""
    policy = evaluation.Policy(thinker, "cpu")
    c = train.Config(**policy.config)
    robots, webs = data.open_sources(c, 0, quiet=True)
    mix, _ = data.make_data(c, robots, webs, {"world": policy.actions}, policy.tokenizer, 0, quiet=True)
    batch = mix[5, 0]
    logits = torch.nn.functional.one_hot(batch["tokens"][batch["target"]], policy.tokenizer.n_vocab).float() * 50
    m = train.measure(logits, torch.zeros(len(logits)), batch, {"world": policy.actions})
    assert m["accuracy"] == 1 and set(m["l1"].values()) == {0.0} and "view" in m and "web" in m


def test_neighbouring_numbers_begin_alike_and_other_words_do_not(folder):
    torch.manual_seed(0)
    model = evaluation.VLA(evaluation.ModelConfig(n_vocab=600, n_embd=96))
    other = model.wte.weight[300:].clone()
    model.order(range(256), .06)
    close = lambda i, j: torch.cosine_similarity(model.wte.weight[i], model.wte.weight[j], dim=0).item()
    assert close(20, 21) > .7 > .5 > close(20, 60) and close(20, 21) > close(20, 24) and torch.equal(model.wte.weight[300:], other)


def test_a_printed_plan_is_right_where_it_means_the_same_things(thinker, monkeypatch):
    """two things put together may be named in either order; another skill or thing is wrong, in the robot's picture as on the web"""
    line = next(s for s in study.suites.suites(dict(vocabulary="medium", skills=["pick", "move near"])) if s.name == "a colour together")
    worlds = evaluation.make_worlds(evaluation.Policy(thinker, "cpu").config, 4, line, 10_000)
    a, b = zip(*((w.task.a.name, w.task.b.name) for w in worlds))
    plans = [f"move {a[0]} near {b[0]}", f"move {b[1]} near {a[1]}", f"pick {a[2]}", ""]
    monkeypatch.setattr(evaluation.Policy, "plan_batch", lambda self, images, wishes: (plans, None))
    monkeypatch.setattr(evaluation.Policy, "answer", lambda self, images, questions, n_new=8: [f" {a[0]}"] * len(images))
    found = study.printed_plans(thinker, [line], 10_000, 4)[line.name]
    assert found["plan"] == [2, 4] and found["name"] == [a.count(a[0]), 4] and found["web"] == [0, 4]
    assert found["said"][1] == [worlds[1].task.instruction, plans[1], f"move {a[1]} near {b[1]}"]
    monkeypatch.setattr(evaluation.Policy, "answer", lambda self, images, questions, n_new=8: [" Plan: move red can near red cup."] * len(images))
    monkeypatch.setattr(study.web, "ask", lambda facts, kind, rng: ("Instruction: the red things belong together.", " Plan: move red cup near red can."))
    assert study.wishes_on_the_web(evaluation.Policy(thinker, "cpu"), "a colour together", 3) == [3, 3]


def test_a_wish_needs_a_log_that_knows_thoughts(folder):
    with pytest.raises(ValueError, match="thoughts = 1.5; it is a share"):
        train.read_config(["--config", str(folder / "tiny.toml"), "--thoughts", "1.5"])


# -- the study

def test_robot_samples_are_the_same_in_all_arms_and_every_setting_is_known(folder):
    c = train.read_config(["--config", "configs/study.toml"])
    found = study.runs(c, [0, 1, 2])
    for name, (settings, _) in found.items():
        run = train.read_config(["--config", "configs/study.toml", *study.arguments(settings)])
        samples = run.steps * run.robot_fraction
        whole = c.steps * c.robot_fraction
        if "/plan/" not in name and "/no plan/" not in name:
            share = .25 if "quarter" in name else .5 if "half" in name else 1
            assert samples == pytest.approx(whole * share, abs=2), name
    assert len([n for n in found if n.startswith("large/cofine/")]) == 3


def test_the_study_goes_on_where_it_was_stopped(folder, monkeypatch):
    """stopped in the middle of the second run's measuring: trained runs are not trained again, and the numbers are those of a straight study"""
    config, path = str(folder / "tiny.toml"), folder / "results.json"
    args = (config, folder / "out", path, [0], 1, ("large/cofine/", "large/scratch/"))
    measure, trained, done, every = evaluation.measure, [], [], study.suites.suites
    few = ("seen", "objects, hard", "sums", "a wish")         # a line of each kind, for speed
    monkeypatch.setattr(study.suites, "suites", lambda c: [s for s in every(c) if s.name in few])

    def once(*a, **k):
        done.append(1)
        if len(done) == 2:
            raise KeyboardInterrupt
        return measure(*a, **k)
    run = study.train_run
    monkeypatch.setattr(study, "train_run", lambda *a: trained.append(a[2]) or run(*a))
    monkeypatch.setattr(evaluation, "measure", once)
    with pytest.raises(KeyboardInterrupt):
        study.study(*args)
    monkeypatch.setattr(evaluation, "measure", measure)
    results = study.study(*args)
    assert trained == ["large/cofine/0", "large/scratch/0"] and set(results["runs"]) == set(trained)
    assert json.loads(path.read_text()) == json.loads(json.dumps(results))
    again = study.study(config, folder / "again", folder / "again.json", [0], 1, ("large/scratch/",))
    assert again["runs"]["large/scratch/0"]["rows"] == results["runs"]["large/scratch/0"]["rows"]
    with pytest.raises(ValueError, match="measured with other settings"):
        study.study(config, folder / "out", path, [0], 2, ())
    with pytest.raises(ValueError, match="no run begins with 'cofine'; with these seeds there are large/cofine/1, "):
        study.study(config, folder / "out", path, [1], 1, ("cofine",))
    half = {"0": {"untrained": results["controls"]["0"]["untrained"]}}          # stopped before random and expert
    assert study.tables({**results, "controls": half})["emergent"] != study.tables(results)["emergent"]
    shown = study.tables(json.loads(path.read_text()))
    assert "not yet run" in shown["arms"] and study.arms_figure(results).startswith("<svg") and study.samples_figure(results) == ""
    part = {**results["runs"]["large/cofine/0"], "training": {"robot_samples": 9}}
    assert ">9</text>" in study.samples_figure({"runs": {**results["runs"], "large/cofine-half/0": part}})


def test_averages_are_those_of_the_paper_and_seeds_add_up():
    row = lambda group, suite, k, n=10: dict(table="emergent", group=group, suite=suite, policy="policy", success=k, n=n, causes={"success": k}, **{"right first": 0})
    rows = study.pool([row("a", "x", 10), row("a", "x", 6), row("a", "y", 0), row("b", "z", 5)])
    assert [(r["suite"], r["success"], r["n"]) for r in rows] == [("x", 16, 20), ("y", 0, 10), ("z", 5, 10)] and rows[0]["causes"] == {"success": 16}
    mean, (low, high) = study.average(rows, "emergent")
    assert mean == pytest.approx(((.8 + 0) / 2 + .5) / 2) and low < mean < high
    assert study.cell(.9, (.85, .934)) == "90 [85, 93]"


def test_the_readmes_tables_are_those_of_the_results_file():
    text, results = (ROOT / "README.md").read_text(), ROOT / "study/results.json"
    shown = study.tables(json.loads(results.read_text()))
    for name in shown:
        assert shown[name] in text, f"README's table {name} is not that of study/results.json; paste it from: python -m study --tables"
