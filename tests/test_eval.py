"""eval.py: the policy, one rule of decoding, closed loop with its controls, held-out episodes; on tiny.py"""
import json
import sys

import numpy as np
import pytest
import torch

import data
import eval as evaluation
import tiny
import train
from eval import Episode, Line, Policy
from tokenizer import BEGIN_ACTION, prompt, wish


@pytest.fixture(autouse=True)
def formats(monkeypatch):
    tiny.install(monkeypatch)


def trained(folder, *more):
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.install(monkeypatch)
        return train.train(train.read_config([*tiny.ARGS, *tiny.SOURCES, "--out_dir", str(folder), *more]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """a plain model of a few steps"""
    return trained(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """a model that says where the square is before it acts"""
    return trained(tmp_path_factory.mktemp("thinker"), "--thought_len", "7", "--robot", 'format="tiny", thought=true')


LINE = Line("go", tiny.Env)


# -- the policy

def test_policy_takes_pictures_of_any_size_and_refuses_other_things(run):
    episode = Policy(run, "cpu").episode()
    for size in ((16, 16), (100, 60)):
        action = episode.act(np.zeros((*size, 3), np.uint8), "go")
        assert action.shape == (2,) and action[0] in (0, 1) and abs(action[1]) <= 1
    with pytest.raises(ValueError, match="instruction is ' '"):
        episode.act(np.zeros((16, 16, 3), np.uint8), " ")
    for bad in (np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3)), np.zeros((16, 16, 4), np.uint8), np.zeros((0, 0, 3), np.uint8)):
        with pytest.raises(ValueError, match="convert it to RGB"):
            episode.act(bad, "go")
    with pytest.raises(ValueError, match="dtype = 'float16'; use auto, float32 or bfloat16"):
        Policy(run, dtype="float16")


def test_the_policy_sees_what_training_saw(run):
    """a picture through the policy gives the tokens that the training pass gives: one way for pictures and prompts"""
    policy = Policy(run, "cpu", temperature=0)
    picture = tiny.picture(2)
    said = policy.actions.encode(policy.episode().act(picture, "go to the square"))
    ask = policy.tokenizer.encode(prompt("go to the square"))
    tokens = torch.tensor([[*ask, *said.tolist()]])
    target = torch.tensor([[False] * len(ask) + [True] * 2])
    logits, _ = policy.model(torch.from_numpy(picture)[None], tokens, torch.ones_like(tokens), target)
    assert logits.masked_fill(~policy.slots, -torch.inf).argmax(-1).tolist() == said.tolist()


def test_an_episode_with_a_seed_draws_the_same_again_and_without_one_never(run):
    policy, picture = Policy(run, "cpu", temperature=5.0), np.zeros((16, 16, 3), np.uint8)

    def draws(episode):
        return [episode.act(picture, "go").tolist() for _ in range(4)]
    assert draws(policy.episode(seed=7)) == draws(policy.episode(seed=7)) != draws(policy.episode(seed=8))
    one, two, again = (Policy(run, "cpu", temperature=5.0) for _ in range(3))
    assert draws(one.episode()) != draws(one.episode())
    assert draws(two.episode()) == draws(again.episode())                   # a whole run can be repeated


def test_episodes_side_by_side_are_as_if_each_were_alone(run):
    """with two frames, in any company: what one sees or draws is nobody else's"""
    policy = Policy(trained(run.parent / "beside", "--frames", "2"), "cpu", temperature=5.0)
    alone = []
    for seed in range(3):
        episode = policy.episode(seed)
        alone.append([episode.act(tiny.picture((seed + t) % 4), "go").tolist() for t in range(5)])
    episodes, beside = [policy.episode(seed) for seed in range(3)], [[], [], []]
    for t in range(5):
        for which in ([0], [2, 1]):
            actions = policy.act([episodes[i] for i in which], [tiny.picture((i + t) % 4) for i in which], [prompt("go")] * len(which))
            for i, action in zip(which, actions):
                beside[i].append(action.tolist())
    assert beside == alone


def test_two_frames_are_remembered_in_an_episode_whatever_the_camera_does_with_its_memory(tmp_path):
    policy = Policy(trained(tmp_path / "two", "--frames", "2"), "cpu", temperature=0)
    shown = []
    policy.generate = lambda pictures, *args: shown.append([int(p[0, 0, 0]) for p in pictures[0]]) or \
        Policy.generate(policy, pictures, *args)
    buffer, episode = np.full((16, 16, 3), 10, np.uint8), policy.episode()
    episode.act(buffer, "go")
    buffer[:] = 200                                         # the camera writes the next picture into the same memory
    episode.act(buffer, "go")
    with pytest.raises(ValueError):
        episode.act(np.zeros((3, 3)), "go")                 # a picture that is refused leaves no trace
    with pytest.raises(ValueError):
        episode.act(buffer, "")
    with pytest.raises(ValueError, match="do not fit max_text"):
        episode.act(np.full((16, 16, 3), 99, np.uint8), "go " * 60)
    episode.act(buffer, "go")
    policy.episode().act(buffer, "go")
    assert [s for s in shown if 99 not in s] == [[10, 10], [10, 200], [200, 200], [200, 200]]


def answers(policy, *said):
    """a policy whose model gives these answers, one after the other"""
    said = iter(said)
    policy.decide = lambda pictures, prompts, rngs: ([np.array(next(said), np.float32) for _ in pictures], [""] * len(pictures))
    return policy


@pytest.mark.parametrize("counts, execute, wanted", [
    (False, 1, [[0, .1], [0, .4], [1, .5]]), (True, 1, [[0, .1], [0, .4], [0, .5], [1, .5]]),
    (False, 0, [[0, .1], [0, .2], [0, .3], [0, .4], [1, .5]]), (True, 2, [[0, .1], [0, .2], [0, .4], [0, .5], [1, .5]])])
def test_terminate_means_that_nothing_else_is_carried_out(run, counts, execute, wanted):
    """... and where a log's last action counts, it comes first. Of an answer of several actions `execute` are carried out"""
    policy = answers(Policy(run, "cpu"), [[0, .1], [0, .2], [0, .3]], [[0, .4], [1, .5], [1, .5]], [[1, .5]] * 3)
    policy.robot = policy.robot._replace(last_action_counts=counts, chunk=3)
    policy.execute = execute or 3
    episode, found = policy.episode(), []
    while not found or not found[-1][0]:
        found.append(episode.act(tiny.picture(0), "go").tolist())
    assert np.allclose(found, wanted) and not episode.to_do


# -- one rule of decoding: words, at most so many, until " Action:"; then D slots

def test_a_thought_is_words_then_action_and_nothing_else_may_be_said(thinker):
    """an untrained mind says anything, but the slots hold; cached and uncached say the same; a thought without end is cut"""
    policy = Policy(thinker, "cpu", temperature=3.0)
    pictures, prompts, found = [tiny.picture(i % 4) for i in range(6)], [prompt("go to the square")] * 3 + [wish("go")] * 3, []
    for policy.cache in (True, False):
        actions, thoughts = policy.decide(pictures, prompts, [np.random.default_rng(i) for i in range(6)])
        assert actions.shape == (6, 1, 2) and set(actions[:, 0, 0]) <= {0, 1} and (np.abs(actions[:, 0, 1]) <= 1).all()
        assert len(thoughts) == 6 and not any(BEGIN_ACTION in t for t in thoughts)
        found.append((thoughts, actions))
    assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])


def test_a_plain_policy_acts_at_once(run):
    episode = Policy(run, "cpu").episode()
    episode.act(tiny.picture(0), "go")
    assert episode.thought == ""


def test_where_the_words_end_is_found(thinker):
    policy = Policy(thinker, "cpu")
    a = policy.tokenizer.begin_action
    tokens = torch.tensor([[1, 2, a, 3, 4], [a, 5, a, 7, 8], [1, 2, 3, 7, 7]])
    assert policy.slot(tokens).tolist() == [2, 4, -1] and policy.slot(tokens[:, :0]).tolist() == [-1, -1, -1]


def test_a_trained_thinker_says_where_the_square_is_and_goes_there(tmp_path):
    path = trained(tmp_path / "thinker", "--thought_len", "7", "--robot", 'format="tiny", thought=true, episodes=60', "--pretrain_steps", "0",
                   "--steps", "250", "--robot_fraction", "1", "--batch_size", "16", "--n_embd", "32", "--vit_embd", "32", "--lr_muon", "1e-2",
                   "--lr_adam", "1e-2", "--save_every", "1000")
    policy = Policy(path, "cpu", temperature=0)
    episodes = [policy.episode() for _ in range(4)]
    policy.act(episodes, [tiny.picture(i) for i in range(4)], [prompt("go to the square")] * 4)
    assert [episode.thought for episode in episodes] == [f" It is {place}." for place in tiny.PLACES]
    rows = evaluation.measure(policy, [LINE], 20, ("policy",), quiet=True)
    assert rows[0]["success"] >= 15


# -- closed loop

def test_every_driver_is_in_the_table_and_counts_add_up(run):
    rows = evaluation.measure(Policy(run, "cpu"), [LINE._replace(at_once=7)], 20, quiet=True)
    assert [r["driver"] for r in rows] == list(evaluation.DRIVERS)
    by = {r["driver"]: r for r in rows}
    assert by["expert"]["success"] == 20 == by["expert"]["n"] and by["expert"]["outcomes"] == {"success": 20}
    assert by["random"]["success"] < 5 and sum(by["random"]["outcomes"].values()) == 20
    moved = sum(int(np.random.default_rng(1_000_000 + i).integers(4)) > 0 for i in range(20))
    assert by["swapped instruction"]["n"] == moved          # where nothing else can be asked for, there is no such trial
    assert by["expert"]["counts"] == {"moved": 20}
    text = evaluation.table({"rows": rows})
    assert "closed loop, success in 20 trials" in text and "100 % [ 84, 100]" in text


def test_an_episode_remembers_as_many_pictures_as_its_model_sees(run):
    policy = answers(Policy(run, "cpu"), *[[[0, 0]]] * 5)
    policy.config["frames"] = policy.model.config.pictures = 3
    episode, seen = policy.episode(), []
    for n in range(1, 6):
        episode.act(np.full((16, 16, 3), n, np.uint8), "go to the square")
        seen.append([int(p.max()) for step in episode.history for p in step])
    assert seen == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_several_cameras_come_as_a_list_or_by_name(run):
    policy = answers(Policy(run, "cpu"), *[[[0, 0]]] * 4)
    policy.robot, policy.model.config.pictures = policy.robot._replace(cameras=("front", "wrist")), 2
    front, wrist = (np.full((16, 16, 3), n, np.uint8) for n in (1, 2))
    for picture in ([front, wrist], {"wrist": wrist, "front": front}):
        episode = policy.episode()
        episode.act(picture, "go")
        assert [int(p.max()) for p in episode.history[0]] == [1, 2]
    for bad in (front, [front], {"front": front}, {"front": front, "left": wrist}):
        with pytest.raises(ValueError, match="front, wrist"):
            policy.episode().act(bad, "go")
    policy.robot = policy.robot._replace(cameras=("front",))        # the model of another robot with two: the picture twice
    episode.act(front, "go")
    assert [int(p.max()) for p in policy.episode().with_picture({"front": front})[0]] == [1, 1]


def test_no_instruction_is_the_blank_control(run):
    policy, said = Policy(run, "cpu"), []
    policy.act = lambda episodes, pictures, prompts: said.extend(prompts) or [np.zeros(2)]
    policy.episode().act(np.zeros((16, 16, 3), np.uint8), None)
    assert said == [evaluation.BLANK] == ["Q: what action should the robot take? A:"]


def test_every_trial_has_a_scene_of_its_own():
    seen = []

    class Env(tiny.Env):
        def reset(self, seed):
            seen.append(seed)
            return super().reset(seed)
    act = lambda going, envs, pictures: [env.expert() for env in envs]      # noqa: E731
    evaluation.rollouts([Env() for _ in range(4)], range(7, 11), act)
    assert seen == [7, 8, 9, 10]


def test_a_trial_does_not_depend_on_those_beside_it(run):
    """its draws are its seed's: 12 trials at once or five at a time, the same table"""
    policy = Policy(run, "cpu", temperature=5.0)
    one, two = (evaluation.measure(policy, [LINE._replace(at_once=n)], 12, ("policy", "random"), quiet=True) for n in (12, 5))
    assert one == two and one[0]["outcomes"]
    seeds, policy.episode = [], lambda seed: seeds.append(seed) or Episode(policy, seed)
    evaluation.measure(policy, [LINE], 3, ("policy",), quiet=True)
    assert seeds == [evaluation.TRIAL_SEED + i for i in range(3)]


def test_the_words_of_the_controls_reach_the_policy(run):
    policy, said = Policy(run, "cpu"), []
    policy.act = lambda episodes, pictures, prompts: said.append(prompts) or np.array([[1., 0.]] * len(prompts))
    for name in ("policy", "blank instruction", "swapped instruction"):
        evaluation.measure(policy, [LINE], 3, (name,), quiet=True)
    assert {p for prompts in said for p in prompts} == {prompt("go to the square"), evaluation.BLANK, prompt("stay where you are")}


def test_random_actions_are_any_bin_and_stop_with_5_percent(run):
    act = evaluation.driver("random", Policy(run, "cpu"), LINE, range(200))
    actions = np.concatenate([act(range(200), [None] * 200, [None] * 200) for _ in range(20)])
    assert .035 < actions[:, 0].mean() < .065 and len(np.unique(actions[:, 1])) == 256


def test_an_environment_that_knows_no_expert_is_measured_without(run):
    class Env:
        def __init__(self):
            self.env = tiny.Env()

        def reset(self, seed):
            return self.env.reset(seed)

        def step(self, action):
            return self.env.step(action)

        @property
        def instruction(self):
            return self.env.instruction
    rows = evaluation.measure(Policy(run, "cpu"), [Line("go", Env)], 4, quiet=True)
    assert [r["driver"] for r in rows] == ["policy", "blank instruction", "random"]


@pytest.mark.parametrize("k, n, low, high", [(180, 200, .850, .934), (0, 10, 0, .278), (10, 10, .722, 1), (0, 0, 0, 1)])
def test_wilson_interval_against_known_values(k, n, low, high):
    assert evaluation.wilson(k, n) == pytest.approx((low, high), abs=1e-3)


def test_positions_may_be_two_cells_off_and_words_must_be_exact():
    assert evaluation.agrees(" 12 22", " 12 20") and not evaluation.agrees(" 12 23", " 12 20")
    assert not evaluation.agrees(" 12 21", " 12 20", 0) and not evaluation.agrees(" apple", " orange")
    assert evaluation.agrees(" red apple", " red apple") and not evaluation.agrees(" 12", " 13")


# -- logs and reports

def test_held_out_episodes_are_measured_beside_what_needs_no_learning(run, capsys):
    results = evaluation.report(run, 4, device="cpu")
    found, = results["held_out"]
    assert found["episodes"] == 1 and found["steps"] == 3 and found["replay"]["most_bins_off"] <= .5001
    log = data.open_log("robot", {"format": "tiny"}, size=16)
    test = np.isin(log.episode, data.held_out_episodes(log, 21))
    wrong = np.abs(log.actions[test, 1] - log.actions[~test, 1].mean()).mean()
    assert found["drivers"]["mean action"]["l1"]["dx"] == pytest.approx(wrong, rel=1e-5)
    said = capsys.readouterr().out
    assert "action of the step before" in said and "actions a second" in said


def test_a_log_that_knows_environments_is_measured_in_closed_loop_with_pictures(run, monkeypatch, capsys):
    monkeypatch.setattr(tiny.Robot, "lines", staticmethod(lambda settings, size: [("go", tiny.Env)]), raising=False)
    monkeypatch.setattr(tiny.Web, "quiz", staticmethod(
        lambda settings, size, n: {"where": [(tiny.picture(i % 4), "Q: where is it? A:", f" {tiny.PLACES[i % 4]}", 2) for i in range(n)]}), raising=False)
    one, two = (evaluation.report(run, 4, device="cpu") for _ in range(2))
    assert one["rows"] == two["rows"] and one["quiz"] == two["quiz"] and one["quiz"][0]["n"] == 4
    assert json.loads((run.parent / "results.json").read_text())["rows"] == json.loads(json.dumps(one["rows"]))
    assert (run.parent / "rollouts.gif").stat().st_size < 1e6 and (run.parent / "rollouts.png").exists()
    assert "questions about unseen web pictures" in capsys.readouterr().out


def test_a_simulator_that_cannot_be_drawn_costs_the_film_and_nothing_else(run, monkeypatch, capsys):
    def dark(self):
        raise RuntimeError("no screen")
    monkeypatch.setattr(tiny.Robot, "lines", staticmethod(lambda settings, size: [("go", tiny.Env)]), raising=False)
    monkeypatch.setattr(tiny.Env, "render", dark)
    rows = evaluation.report(run, 2, device="cpu")["rows"]
    assert json.loads((run.parent / "results.json").read_text())["rows"] == json.loads(json.dumps(rows))
    assert "no rollouts.gif (RuntimeError: no screen)" in capsys.readouterr().out


def test_two_simulated_robots_have_rows_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiny.Robot, "lines", staticmethod(lambda settings, size: [("go", tiny.Env)]), raising=False)
    path = trained(tmp_path, "--robot", 'format="tiny"', 'format="tiny", name="other"')
    rows = evaluation.report(path, 2, pictures=False, device="cpu")["rows"]
    assert {row["line"] for row in rows if row["driver"] == "policy"} == {"tiny, go", "other, go"}
    assert "\nother, go" in capsys.readouterr().out


@pytest.mark.parametrize("args, message", [(["--checkpoint", "nowhere.pt"], "error: no checkpoint nowhere.pt"),
                                           (["--trials", "0"], "error: trials = 0; at least one")])
def test_the_script_ends_with_one_line_not_a_traceback(monkeypatch, args, message):
    monkeypatch.setattr(sys, "argv", ["eval.py", *args])
    with pytest.raises(SystemExit, match=message):
        evaluation.main()


def test_ctrl_c_ends_the_table_in_one_line(monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(evaluation, "report", stopped)
    monkeypatch.setattr(sys, "argv", ["eval.py"])
    with pytest.raises(SystemExit, match="^stopped$"):
        evaluation.main()
