"""
The built-in world as a benchmark of vla-eval, for any model server that speaks its protocol. The tasks are
the rows of the table that ends every training run, and the scenes are the same, seed for seed.

    PYTHONPATH=. vla-eval run --config examples/vla_eval/world.yaml --server-url ws://127.0.0.1:8000
"""
from vla_eval.benchmarks.base import StepBenchmark, StepResult

import data
from eval import TRIAL_SEED, Line
from train import read_config


class WorldBenchmark(StepBenchmark):
    """
    preset: its first table [[robot]] says what lies on the table and which skills are asked for. An action is
    the eight numbers of the paper, terminate first; terminate = 1 ends the episode, and nothing else moves.
    """
    render_backends = frozenset({"gpu", "cpu"})

    @classmethod
    def configure_render(cls, mode):
        return {}                                           # numpy draws the pictures

    def __init__(self, preset: str = "configs/small.toml", first_seed: int = TRIAL_SEED):
        super().__init__()
        config = read_config(["--config", preset])
        settings = data.settings_of("robot", config.robot[0])
        lines = data.log_class("robot", settings["format"]).lines(settings, config.image_size)
        self.lines, self.first_seed = {name: Line(name, *rest) for name, *rest in lines}, first_seed

    def get_tasks(self):
        """The seed of an episode is first_seed + its number; the server draws with it, too."""
        return [{"name": name, "first_seed": self.first_seed} for name in self.lines]

    def reset(self, task):
        self.trial = self.lines[task["name"]].make()
        obs, _ = self.trial.reset(seed=task["first_seed"] + task["episode_idx"])
        return obs

    def step(self, action):
        obs, reward, terminated, truncated, info = self.trial.step(action["actions"])
        return StepResult(obs, reward, terminated or truncated, info)

    def make_obs(self, obs, task):
        return {"images": {"camera": obs["image"]}, "task_description": self.trial.instruction}

    def get_step_result(self, result):
        return {"success": result.reward > 0, "outcome": result.info.get("outcome", "")}
