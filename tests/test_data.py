"""data.py: packing, the mix, tables of a preset; on logs of a few lines (tiny.py)"""
import io
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import tiny
from data import ACTION, ASKED, SAID
from tokenizer import BEGIN_ACTION
from tokenizer import ActionTokenizer, Tokenizer, prompt


@pytest.fixture(autouse=True)
def formats(monkeypatch):
    tiny.install(monkeypatch)


def robot_log(**options):
    return data.open_log("robot", {"format": "tiny", **options}, size=16)


def web_log(**options):
    return data.open_log("web", {"format": "tiny", **options}, size=16)


def action_tokenizer(log, **settings):
    return ActionTokenizer(Tokenizer.train([*log.texts(), *web_log().texts()]), *log.bounds, names=log.names, **settings)


@pytest.fixture(scope="module")
def actions():
    log = tiny.Robot(cache=None, size=16, quiet=True, episodes=30, thought=True, numbers=1)
    web = tiny.Web(cache=None, size=16, quiet=True, pictures=4)
    return ActionTokenizer(Tokenizer.train([*log.texts(), *web.texts()]), *log.bounds, names=log.names)


def make_mix(actions, robot={}, webs=({},), **settings):
    settings = {"batch_size": 8, "robot_fraction": 0.5, "text_len": 40, "seed": 3, **settings}
    robots = [(data.RobotData(robot_log(), data.Robot(actions), 40, 16, **robot), {"weight": 1.0})]
    return data.Mix(robots, [(data.WebData(web_log(), actions.tokenizer, 40, 16), {"weight": 1.0, **w}) for w in webs],
                    **settings)


# -- packing

def test_pack_example_of_the_docstring():
    questions = [[(ASKED, [5, 6]), (ACTION, [7]), (SAID, [2])], [(ASKED, [8]), (SAID, [9])]]
    assert data.pack(questions, 7) == ([5, 6, 7, 2, 8, 9, 0], [1, 1, 1, 1, 2, 2, -1],
                                       [ASKED, ASKED, ACTION, SAID, ASKED, SAID, ASKED])
    with pytest.raises(ValueError, match="raise text_len"):
        data.pack(questions, 5)


def test_worked_examples_of_the_module_are_what_the_code_makes():
    """the tokens of the robot sample, with and without a thought, are those that the docstring shows"""
    text = prompt("pick apple")
    tok = Tokenizer.train([text, "Instruction: I am thirsty. Plan: pick red can."] * 2)
    robot = ActionTokenizer(tok, [0, *[-.08] * 3, *[-.8] * 3, 0], [1, *[.08] * 3, *[.8] * 3, 1])
    bins = " ".join(map(str, robot.bins([0, .04, .04, -.08, 0, 0, 0, 1])))
    words = " ".join(tok.decode([i]).strip() for i in tok.encode(text))
    assert f"{words} | {bins} <eos>" in data.__doc__
    assert f"Instruction: I am thirsty. | Plan: pick red can.{BEGIN_ACTION} | {bins} <eos>" in data.__doc__


@pytest.mark.parametrize("thought", [False, True])
def test_a_robot_sample_is_prompt_thought_action_and_each_token_says_what_it_is(actions, thought):
    log = robot_log(thought=thought)
    robot, tok = data.RobotData(log, data.Robot(actions), 40, 16, thought_len=8 * thought), actions.tokenizer
    for n in range(0, 60, 7):
        _, questions = robot.sample(np.random.default_rng(n), n)
        tokens, segment, label = map(np.array, data.pack(questions, 40))
        first = segment == 1
        asked, said, acted = (tokens[first & (label == what)].tolist() for what in (ASKED, SAID, ACTION))
        assert tok.decode(asked) == prompt("go to the square")
        assert said[-1] == tok.eos and tok.decode(said[:-1]) == (log.request(robot.index[n], None)[1] + BEGIN_ACTION) * thought
        assert acted == actions.encode(log.actions[robot.index[n]]).tolist()
        assert (label[segment < 0] == ASKED).all()


def test_a_thought_that_does_not_fit_is_refused_before_the_first_step(actions):
    with pytest.raises(ValueError, match="raise thought_len = 2"):
        data.RobotData(robot_log(thought=True), data.Robot(actions), 40, 16, thought_len=2)
    with pytest.raises(ValueError, match="raise text_len = 12"):
        data.RobotData(robot_log(), data.Robot(actions), 12, 16)
    # this thought is short, but the policy has room for one of 30 tokens
    data.RobotData(robot_log(thought=True), data.Robot(actions), 40, 16, thought_len=8)
    with pytest.raises(ValueError, match=r"at most 30\) and action take .* tokens; raise text_len = 40"):
        data.RobotData(robot_log(thought=True), data.Robot(actions), 40, 16, thought_len=30)


def test_questions_are_different_and_fill_the_text(actions):
    _, questions = data.WebData(web_log(), actions.tokenizer, 40, 16).sample(np.random.default_rng(0))
    assert len(questions) == 2 and questions[0] != questions[1]
    assert all(q[1][1][-1] == actions.tokenizer.eos for q in questions)


def test_overwritten_words_are_named():
    """a vocabulary that has no 256 spare tokens, as GPT-2's, gives the bins words that an instruction may need"""
    log = robot_log()
    actions = ActionTokenizer(Tokenizer.train(log.texts()), *log.bounds, "overwrite", log.names)
    actions.ids[7] = actions.tokenizer.encode(" square")[0]
    with pytest.warns(UserWarning, match="words whose tokens now mean bins, such as 'Q: what action"):
        data.RobotData(log, data.Robot(actions), 40, 16)


# -- pictures

def test_two_frames_are_the_step_before_and_this_one_and_a_web_picture_twice(actions):
    log = robot_log()
    log.picture = lambda i: np.full((16, 16, 3), i, np.uint8)
    robot = data.RobotData(log, data.Robot(actions), 40, 16, frames=3, hold_out=0)
    for i, steps in ((0, (0, 0, 0)), (4, (3, 3, 4)), (5, (3, 4, 5))):
        pictures, _ = robot.sample(np.random.default_rng(0), i)
        assert pictures.shape == (3, 16, 16, 3) and tuple(pictures[:, 0, 0, 0]) == steps
    pictures, _ = data.WebData(web_log(), actions.tokenizer, 40, 16, frames=2).sample(np.random.default_rng(0))
    assert pictures.shape == (2, 16, 16, 3) and (pictures[0] == pictures[1]).all()


def test_augmentation_is_the_same_for_all_frames_and_never_for_held_out_episodes(actions):
    pictures = data.jitter([tiny.picture(1)] * 2, 16, np.random.default_rng(0))
    assert np.array_equal(*pictures) and not np.array_equal(pictures[0], tiny.picture(1))
    config = type("C", (), dict(text_len=40, image_size=16, frames=1, thought_len=0, batch_size=4, robot_fraction=1.0, n_pretrain=0, seed=0,
                                micro_batches=1))
    settings = data.settings_of("robot", {"format": "tiny", "augment": True})
    mix, held_out = data.make_mix(config, {"robot": {"r": (robot_log(), settings)}, "web": {}}, {"r": data.Robot(actions)}, actions.tokenizer)
    assert mix.robots[0][0].augment and not held_out.robots[0][0].augment


def test_pictures_of_any_size_fit_and_other_things_are_refused():
    assert data.fit(np.zeros((30, 50, 3), np.uint8), 16).shape == (16, 16, 3)
    for bad in (np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3)), np.zeros((16, 16, 4), np.uint8), np.zeros((0, 16, 3), np.uint8)):
        with pytest.raises(ValueError, match="convert it to RGB bytes"):
            data.fit(bad, 16)


# -- which steps are trained on

def test_held_out_episodes_are_not_trained_on(actions):
    log = robot_log(episodes=42)
    train, test = (data.RobotData(log, data.Robot(actions), 40, 16, held_out=h) for h in (False, True))
    held_out = {log.episode[i] for i in test.index}
    assert held_out == set(data.held_out_episodes(log, 21)) and len(held_out) == 2
    assert not {log.episode[i] for i in train.index} & held_out and len(train.index) + len(test.index) == len(log)


@pytest.mark.parametrize("n_tasks, hold_out", [(3, 21), (5, 5), (4, 10)])
def test_every_task_is_both_trained_on_and_measured_although_they_were_recorded_in_turn(n_tasks, hold_out):
    log = robot_log(episodes=20 * n_tasks)
    log.request = lambda i, rng: (f"task {log.episode[i] % n_tasks}", "")
    held_out = data.held_out_episodes(log, hold_out)
    assert len(held_out) == max(1, round(20 * n_tasks / hold_out)) == len(set(held_out))
    assert held_out.tolist() == data.held_out_episodes(log, hold_out).tolist()
    by_task = np.bincount(held_out % n_tasks, minlength=n_tasks)
    assert by_task.max() - by_task.min() <= 1 and len(set(np.diff(held_out))) > 1      # and by no fixed beat


def test_a_task_shown_once_is_trained_on_and_so_is_a_log_of_one_episode(actions):
    log = robot_log(episodes=10)
    log.request = lambda i, rng: ("shown once" if log.episode[i] == 3 else "common", "")
    for hold_out in (2, 3, 5):
        assert 3 not in data.held_out_episodes(log, hold_out)
    assert len(data.RobotData(robot_log(episodes=1), data.Robot(actions), 40, 16).index) == 3
    assert len(data.RobotData(robot_log(episodes=2), data.Robot(actions), 40, 16, hold_out=0).index) == 6
    with pytest.raises(ValueError, match="record more"):
        data.RobotData(robot_log(episodes=1), data.Robot(actions), 40, 16, held_out=True)


def test_a_cropped_picture_is_asked_no_questions_about_places(actions):
    for augment in (False, True):
        robot = data.RobotData(robot_log(), data.Robot(actions), 60, 16, augment=augment)
        assert (len(robot.sample(np.random.default_rng(0))[1]) > 1) != augment


# -- the mix

def test_a_batch_is_fixed_by_its_step_alone(actions):
    mix = make_mix(actions)
    mix[0, 0], mix[7, 0]
    one, two, other = mix[5, 0], mix[5, 0], mix[6, 0]
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["tokens"], other["tokens"])


def test_seed_step_and_micro_batch_all_change_the_samples(actions):
    """each of the three takes part: a mix that forgot one would repeat samples"""
    mix = make_mix(actions, n_micro=2, batch_size=32)
    same = lambda a, b: torch.equal(a["tokens"], b["tokens"]) and torch.equal(a["images"], b["images"])             # noqa: E731
    assert not same(mix[4, 0], mix[4, 1]) and not same(mix[4, 0], mix[5, 0])
    assert not same(mix[4, 0], make_mix(actions, n_micro=2, batch_size=32, seed=4)[4, 0])


def test_the_mix_has_the_stated_share_of_robot_samples_in_every_micro_batch(actions):
    mix = make_mix(actions, n_pretrain=2)
    assert [int((mix[step, 0]["source"] == 0).sum()) for step in (0, 1, 2, 9)] == [0, 0, 4, 4]
    mix = make_mix(actions, n_micro=4)
    assert [int((mix[3, k]["source"] == 0).sum()) for k in range(4)] == [1] * 4


def test_sources_are_drawn_by_their_weight():
    rng = np.random.default_rng(0)
    drawn = [data.Mix.draw([(None, {"weight": 3.0}), (None, {"weight": 1.0})], rng) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(.25, abs=.04)


def test_every_question_begins_with_its_prompt_and_ends_with_eos(actions):
    batch, tok = make_mix(actions)[3, 0], actions.tokenizer
    for tokens, segment, label in zip(batch["tokens"], batch["segment"], batch["label"]):
        for n in range(1, int(segment.max()) + 1):
            asked, said = tokens[(segment == n) & (label == ASKED)].tolist(), tokens[(segment == n) & (label != ASKED)].tolist()
            assert tok.decode(asked).startswith("Q:") and tok.decode(asked).endswith(" A:") and said[-1] == tok.eos


# -- tables of a preset

def test_a_table_is_completed_with_defaults():
    assert data.settings_of("web", {"format": "tiny"}) == {"format": "tiny", "name": "tiny", "weight": 1.0, "pictures": 20}


@pytest.mark.parametrize("half, table, message", [
    ("robot", {}, "a table [[robot]] needs a format, one of: world, folder, rlds, lerobot"),
    ("robot", {"format": "tar"}, "format = 'tar' under [[robot]]; use one of: world, folder"),
    ("web", {"format": "rlds"}, "format = 'rlds' under [[web]]; use one of: world, vqa"),
    ("robot", {"format": "tiny", "episods": 3}, "[[robot]] of format 'tiny' has no key 'episods'; there are: name, weight, hold_out"),
    ("robot", {"format": "tiny", "episodes": "3"}, "episodes = '3' must be of type int"),
    ("robot", {"format": "tiny", "thought": 1}, "thought = 1 must be of type bool"),
    ("robot", {"format": "tiny", "weight": 0}, "weight = 0.0; it must be above 0"),
    ("robot", {"format": "tiny", "weight": float("nan")}, "weight = nan; it must be above 0"),
    ("robot", {"format": "tiny", "hold_out": 1}, "hold_out = 1; it must be 0 (none), or 2 and more"),
    ("web", {"format": "vqa"}, "[[web]] of format 'vqa' needs path = ... of type str"),
    ("web", {"format": "world", "questions": {"locate": 1.5}}, "locate = 1.5; it must be a whole number, at least 1"),
    ("robot", {"format": "world", "skills": 3}, "skills = 3 must be of type list of texts")])
def test_a_wrong_table_is_an_error_that_names_it(half, table, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        data.settings_of(half, table)


def test_two_sources_need_two_names():
    config = type("C", (), dict(robot=[{"format": "tiny"}] * 2, web=[], robot_fraction=1.0, n_pretrain=0, data_dir="", image_size=16))
    with pytest.raises(ValueError, match="are called 'tiny'"):
        data.open_logs(config, quiet=True)


def test_a_half_that_is_not_used_stays_unopened_and_one_that_is_missing_is_named():
    config = dict(robot=[{"format": "tiny"}], web=[{"format": "tiny"}], robot_fraction=1.0, n_pretrain=0, data_dir="", image_size=16)
    logs = data.open_logs(type("C", (), config), quiet=True)
    assert list(logs["robot"]) == ["tiny"] and logs["web"] == {}
    with pytest.raises(ValueError, match=re.escape("needs a table [[web]]")):
        data.open_logs(type("C", (), {**config, "web": [], "robot_fraction": .5}), quiet=True)


def test_another_robot_does_not_inherit_bounds_by_its_name(actions):
    log, settings = robot_log(), data.settings_of("robot", {"format": "tiny"})
    known = {"tiny": data.Robot(actions)}

    def make(log, **change):
        table = {"tiny": (log, {**settings, **change})}
        return data.make_robots(type("C", (), dict(scheme="integer")), {"robot": table}, actions.tokenizer, known)["tiny"]
    assert make(log) is known["tiny"]
    for change in (dict(n_bins=21), dict(chunk=2)):
        with pytest.raises(ValueError, match=f"robot 'tiny': {next(iter(change))} = .*, and .* in the checkpoint; give the log"):
            make(log, **change)
    with pytest.raises(ValueError, match="robot 'tiny': names = "):
        make(robot_log(numbers=2))
    for name, value in (("cameras", ("a", "b")), ("last_action_counts", True)):
        other = robot_log()
        setattr(other, name, value)
        with pytest.raises(ValueError, match=f"robot 'tiny': {name} = "):
            make(other)
    known["tiny"] = data.Robot(data.ActionTokenizer(actions.tokenizer, *log.bounds, names=log.names, categories={"dx": [-1, 0, 1]}))
    with pytest.raises(ValueError, match="robot 'tiny': .* outside the checkpoint's bounds"):
        make(log)                                           # its dx has other values between those
    known["tiny"], log.actions = data.Robot(actions), log.actions * 5
    with pytest.raises(ValueError, match="robot 'tiny': .* outside the checkpoint's bounds; .* give the log another name"):
        make(log)


# -- answers of several actions, pictures of several cameras

def test_an_answer_of_several_actions_goes_on_to_the_end_of_its_episode(actions):
    log = robot_log()
    one, three = (data.RobotData(log, data.Robot(actions, chunk), 40, 16, hold_out=0) for chunk in (1, 3))
    for i in range(9):
        end = i // 3 * 3 + 2
        assert three.answers[i].tolist() == [token for j in range(i, i + 3) for token in one.answers[min(j, end)].tolist()]
    _, (action, *_) = three.sample(np.random.default_rng(0), 1)
    assert [(what, len(ids)) for what, ids in action][2] == (data.ACTION, 6)
    with pytest.raises(ValueError, match="and action take .* tokens; raise text_len = 20"):
        data.RobotData(log, data.Robot(actions, 3), 20, 16)


def test_a_sample_has_the_pictures_of_all_cameras_of_each_step(actions):
    log = robot_log()
    log.picture = lambda i: [np.full((16, 16, 3), i, np.uint8), np.full((30, 40, 3), 100 + i, np.uint8)]
    two = data.RobotData(log, data.Robot(actions), 40, 16, frames=2, cameras=2, hold_out=0)
    pictures, _ = two.sample(np.random.default_rng(0), 4)
    assert pictures.shape == (4, 16, 16, 3) and pictures[:, 0, 0, 0].tolist() == [3, 103, 4, 104]
    two.augment = True
    assert two.sample(np.random.default_rng(0), 4)[0].shape == (4, 16, 16, 3)
    log.picture = lambda i: np.full((16, 16, 3), i, np.uint8)           # another robot, which has one: it is shown twice
    assert two.sample(np.random.default_rng(0), 4)[0].shape == (4, 16, 16, 3)
    web, _ = data.WebData(web_log(), actions.tokenizer, 40, 16, frames=2, cameras=2).sample(np.random.default_rng(0))
    assert web.shape == (4, 16, 16, 3) and (web == web[0]).all()
    assert data.views([1, 2], 4) == [1, 2, 2, 2] and data.views(1, 1) == [1]


# -- helpers of logs

def double(x):
    return 2 * x


def die(x):
    os._exit(1)


def test_jobs_come_back_in_order():
    assert list(data.in_processes(double, range(20))) == list(range(0, 40, 2)) and list(data.in_processes(double, [3])) == [6]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else False, reason="one core: no helpers")
def test_the_death_of_a_helper_process_is_noticed(monkeypatch, fork):
    monkeypatch.setattr(data.multiprocessing, "get_context", lambda kind: fork)     # they need not import torch to die
    with pytest.raises(ValueError, match="a helper process was killed"):
        list(data.in_processes(die, range(4)))
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="no helpers, or no /proc")
def test_helpers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text("import os, sys, time\nfrom pathlib import Path\nimport data\n"
                      "def job(x):\n    Path(sys.argv[1], str(os.getpid())).touch(), time.sleep(60)\n"
                      "if __name__ == '__main__':\n    list(data.in_processes(job, range(4)))\n")
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen([sys.executable, script, tmp_path / "pids"], env={**os.environ, "PYTHONPATH": str(Path(data.__file__).parent)})
    until = time.monotonic() + 60
    while len(pids := os.listdir(tmp_path / "pids")) < 2 and time.monotonic() < until:
        time.sleep(.1)
    parent.kill()
    parent.wait()
    while alive := [p for p in pids if Path("/proc", p, "cmdline").exists() and Path("/proc", p, "cmdline").read_bytes()]:
        assert time.monotonic() < until, alive
        time.sleep(.1)
    assert len(pids) == 2


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    def half(folder):
        (folder / "a").write_text("x")
        raise OSError("disk full")
    with pytest.raises(OSError):
        data.make_folder(tmp_path / "log", half)
    assert list(tmp_path.iterdir()) == []
    data.make_folder(tmp_path / "log", lambda folder: (folder / "a").write_text("x"))
    assert (tmp_path / "log/a").read_text() == "x" and len(list(tmp_path.iterdir())) == 1
