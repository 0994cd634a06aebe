"""examples/vla_eval: what comes out through vla-eval's WebSocket is what comes out of this project's own loop"""
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("vla_eval")
import vla_eval.api  # noqa: E402

import data  # noqa: E402
import eval as evaluation  # noqa: E402
import tiny  # noqa: E402
import train  # noqa: E402
from examples.vla_eval import server  # noqa: E402
from examples.vla_eval.server import PolicyServer  # noqa: E402
from tokenizer import prompt  # noqa: E402

N = 20


@pytest.fixture(autouse=True)
def formats(monkeypatch):
    tiny.install(monkeypatch)
    monkeypatch.setattr(tiny.Robot, "lines", staticmethod(lambda settings, size: [("go", tiny.Env)]), raising=False)


def through_vla_eval(model_server, preset, **more):
    """task -> (success, steps) of each episode"""
    entry = {"benchmark": "examples.vla_eval.world:WorldBenchmark", "episodes_per_task": N, "params": {"preset": str(preset)}, **more}
    result, = vla_eval.api.evaluate(model_server, {"benchmarks": [entry]}, no_save=True)
    assert not result["num_errors"]
    return {task["task"]: [(e["metrics"]["success"], e["steps"]) for e in task["episodes"]] for task in result["tasks"]}


def own_loop(policy, preset):
    """the same with eval.rollouts, one episode after the other"""
    config, found = train.read_config(["--config", str(preset)]), {}
    settings = data.settings_of("robot", config.robot[0])
    for line in data.log_class("robot", settings["format"]).lines(settings, config.image_size):
        line, found[line[0]] = evaluation.Line(*line), []
        for seed in range(evaluation.TRIAL_SEED, evaluation.TRIAL_SEED + N):
            result, = evaluation.rollouts([line.make()], [seed], evaluation.driver("policy", policy, line, [seed]))
            found[line.name].append((result["success"], result["steps"]))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """a model that finds the square now and then, and its preset"""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "preset.toml").write_text('image_size = 16\n[[robot]]\nformat = "tiny"\n')
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.install(monkeypatch)
        path = train.train(train.read_config([*tiny.ARGS, *tiny.SOURCES, "--out_dir", str(folder), "--pretrain_steps", "0", "--steps", "60",
                                              "--robot_fraction", "1", "--lr_muon", "1e-2", "--lr_adam", "1e-2"]))
    return path, folder / "preset.toml"


def test_a_policy_has_the_same_success_and_the_same_steps_in_every_episode(trained):
    path, preset = trained
    got = through_vla_eval(PolicyServer(str(path), device="cpu"), preset)
    assert got == own_loop(evaluation.Policy(path, "cpu"), preset)
    assert 0 < sum(success for success, _ in got["go"]) < N and len({steps for _, steps in got["go"]}) > 1      # it is not all one thing


class Expert:
    """In place of Policy: what the expert of the built-in world would do. In some episodes it stops too early."""
    act = staticmethod(lambda episodes, pictures, prompts: np.array([next(moves[asked]) for moves, asked in zip(episodes, prompts)]))
    actions = SimpleNamespace(names=range(8))

    def __init__(self, *_, **__):
        config = train.read_config([])
        settings = data.settings_of("robot", config.robot[0])
        self.lines = [evaluation.Line(*line) for line in data.log_class("robot", settings["format"]).lines(settings, config.image_size)]

    def episode(self, seed):
        """instruction -> the actions of its task in the scene of this seed"""
        def moves(trial, last):
            for t in range(last):
                yield (action := trial.expert())
                trial.step(action)
            yield np.eye(8)[0]
        found, last = {}, int(np.random.default_rng(seed).integers(2, 10))
        for line in self.lines:
            trial = line.make()
            trial.reset(seed=seed)
            found[prompt(trial.instruction)] = moves(trial, last)
        return found


def test_the_scenes_of_the_built_in_world_are_the_same(monkeypatch):
    monkeypatch.setattr(server, "Policy", Expert)
    got = through_vla_eval(PolicyServer(), "configs/small.toml")
    assert got == own_loop(Expert(), "configs/small.toml") and len(got) == 3
    assert all(0 < sum(success for success, _ in episodes) < N for episodes in got.values())


class Recorder:
    """in place of Policy: says given actions, and keeps what it was shown"""
    actions = SimpleNamespace(names=("terminate", "dx", "gripper"))

    def __init__(self, *_, **__):
        self.seen, self.said = [], [[0, .5, .7], [1, .4, .2], [0, .3, .1]]

    def episode(self, seed):
        return [seed]

    def act(self, episodes, pictures, prompts):
        self.seen.append((episodes, pictures, prompts))
        return np.array([self.said[0]] * len(episodes), np.float32)


def session(model_server, **task):
    import anyio
    from vla_eval.model_servers.base import SessionContext
    ctx = SessionContext("session", "episode")
    anyio.run(model_server.on_episode_start, {"task": task}, ctx)
    return ctx


def test_cameras_are_given_by_name_and_each_session_has_an_episode(monkeypatch):
    monkeypatch.setattr(server, "Policy", Recorder)
    model_server = PolicyServer(cameras=["wrist", "front"])
    one, two = session(model_server, episode_idx=3), session(model_server, episode_idx=4, first_seed=100)
    obs = {"images": {"front": "F", "side": "S", "wrist": "W"}, "task_description": "go"}
    model_server.predict_batch([obs, obs], [one, two])
    assert model_server.policy.seen == [([[3], [104]], [["W", "F"]] * 2, [prompt("go")] * 2)]


def test_where_there_is_no_terminate_a_stopped_arm_rests_with_its_gripper_as_it_was(monkeypatch):
    monkeypatch.setattr(server, "Policy", Recorder)
    model_server = PolicyServer(stop=False)
    ctx, got = session(model_server, episode_idx=0), []
    while model_server.policy.said:
        answer, = model_server.predict_batch([{"images": {"front": 0}, "task_description": "go"}], [ctx])
        got.append(answer["actions"].tolist())
        model_server.policy.said.pop(0)
    assert np.allclose(got, [[.5, .7], [0, .7], [0, .7]])
