"""
A policy of this project as a model server of vla-eval, for any of its benchmarks.

    python -m examples.vla_eval.server --args.checkpoint out/checkpoint.pt --address 127.0.0.1:8000

A benchmark sends pictures and an instruction, and gets an action back. Several may be connected at once: the
policy keeps an Episode for each.
"""
import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import run_server

from eval import Policy
from tokenizer import prompt


class PolicyServer(PredictModelServer):
    """
    cameras: the benchmark's names of the pictures, in the order of the model's cameras; [] means all of them,
    in the order in which they come. stop = True: the benchmark knows terminate, and gets all D numbers of an
    action. stop = False: it gets the D - 1 numbers after terminate. Once the policy has said stop, they are
    zeros, but the last one, the gripper, stays as it was. So an arm whose numbers are displacements rests.
    """

    def __init__(self, checkpoint: str = "out/checkpoint.pt", cameras: list[str] = [], stop: bool = True,
                 robot: str | None = None, temperature: float = .5, execute: int = 0, device: str = "auto",
                 max_batch_size: int = 1):
        super().__init__(max_batch_size=max_batch_size)
        self.policy = Policy(checkpoint, device, temperature=temperature, robot=robot, execute=execute)
        self.cameras, self.stop = cameras, stop

    async def on_episode_start(self, config, ctx):
        """ctx is of this episode only. The draws are those of its number, so that a run can be repeated."""
        await super().on_episode_start(config, ctx)
        ctx.episode = self.policy.episode(config["task"].get("first_seed", 0) + config["task"]["episode_idx"])
        ctx.stopped, ctx.move = False, np.zeros(len(self.policy.actions.names) - 1, np.float32)

    def predict_batch(self, observations, contexts):
        """One step of B sessions. vla-eval also calls it with one."""
        pictures = [[o["images"][name] for name in self.cameras or o["images"]] for o in observations]
        actions = self.policy.act([ctx.episode for ctx in contexts], pictures,
                                  [prompt(o["task_description"]) for o in observations])
        return [{"actions": action if self.stop else self.without_stop(action, ctx)}
                for action, ctx in zip(actions, contexts)]

    def without_stop(self, action, ctx):
        """action (D,) -> (D - 1,)"""
        ctx.stopped |= action[0] == 1
        ctx.move = np.append(0 * ctx.move[:-1], ctx.move[-1]) if ctx.stopped else action[1:]
        return ctx.move


if __name__ == "__main__":
    run_server(PolicyServer)
