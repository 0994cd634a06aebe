"""
A simulator that this project did not write: Meta-World, a Sawyer arm in MuJoCo. There are two scenes and four
tasks. "Open" and "close" begin with the same picture, so the words must decide.

    pip install metaworld packaging             # Linux without a display: apt-get install libegl1 libgl1
    python -m examples.metaworld record         # demonstrations of its scripted experts: 80 s, 110 MB
    python train.py --config examples/metaworld/metaworld.toml
    python -m examples.metaworld eval           # closed loop, in scenes that no demonstration shows

Class Scene shows what a simulator needs for the table: reset, step and instruction. It also has expert,
swapped and render, which are optional. The scenes and the camera are this file's own, so its numbers are not
those of a Meta-World benchmark.
"""
import argparse
import functools
import json
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")               # draws without a display, on a CPU as well
try:
    import mujoco
    from metaworld import policies
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task
except ImportError as e:
    sys.exit(f"error: this example needs Meta-World ({e}): pip install metaworld packaging")
warnings.filterwarnings("ignore", "Constant")               # its experts ask for more than 1, and are clipped

TASKS = ("open the faucet", "close the faucet", "open the window", "close the window")
PLACES = {"faucet": ((-.1, .75, 0), (.1, .85, 0)),          # x, y, z in metres: from, to
          "window": ((-.1, .75, .16), (.1, .9, .16))}
LIMIT = 50                                                  # steps of a trial


class Scene:
    """
    A task of Meta-World as an environment (eval.Line). One step is four of the simulator's: at most 4 cm an
    axis.
    """

    def __init__(self, instruction):
        self.instruction = instruction
        self.verb, _, self.thing = instruction.split()
        self.name = f"{self.thing}-{self.verb}-v3"
        self.env = ALL_V3_ENVIRONMENTS[self.name]()
        self.script = getattr(policies, f"Sawyer{self.thing.title()}{self.verb.title()}V3Policy")()
        quality, self.options = self.env.model.vis.quality, mujoco.MjvOption()
        quality.shadowsize = quality.offsamples = 0         # 9 ms a picture on a CPU; with shadows 160
        self.options.sitegroup[:] = 0                       # no marker shows the goal
        self.camera = mujoco.MjvCamera()                    # Meta-World's own cameras are upside down
        self.camera.lookat[:] = .02, .66, .2
        self.camera.distance, self.camera.azimuth, self.camera.elevation = .95, 150, -35
        self.renderer = mujoco.Renderer(self.env.model, 96, 96)

    def reset(self, seed):
        """
        A seed gives the same scene to "open" and "close". Meta-World begins them with different
        pictures, which would give the answer away.
        """
        place = np.random.default_rng(seed).uniform(*PLACES[self.thing])
        about = dict(env_cls=type(self.env), rand_vec=place, partially_observable=False)
        self.env.set_task(Task(self.name, pickle.dumps(about)))
        self.env.reset()
        if self.thing == "window":
            self.env.data.joint("window_slide").qpos = .1   # half open
        # after one still step everything is where reset put it
        self.state = self.env.step(np.array([0, 0, 0, -1.]))[0]
        self.steps = 0
        return {"image": self.render()}, {}

    def step(self, action):
        """
        action: terminate; dx, dy, dz, gripper in -1..1. The trial ends when the task is done, or when the
        action says terminate.
        """
        stop, *moves = action
        self.steps += 1
        done = not stop and self.move(moves)
        return {"image": self.render()}, float(done), bool(done or stop), self.steps >= LIMIT, {}

    def move(self, moves):
        """True when the simulator says that the task is done"""
        for _ in range(4):
            self.state, _, _, _, info = self.env.step(np.clip(moves, -1, 1))
        return bool(info["success"])

    def expert(self):
        """What the script would do, in five sizes an axis: few bins are learned sooner."""
        return np.array([0, *np.round(self.script.get_action(self.state).clip(-1, 1) * 2) / 2 + 0.])

    def swapped(self):
        """the other task of this scene"""
        return f"{'close' if self.verb == 'open' else 'open'} the {self.thing}"

    def render(self):
        self.renderer.update_scene(self.env.data, self.camera, self.options)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.renderer.scene.flags[flag] = 0
        return self.renderer.render()


def record(folder, episodes):
    """a log of format = "folder": steps.jsonl and pictures/. Only successes are kept."""
    if folder.exists():
        raise ValueError(f"{folder} is there already; delete it, or name another --folder")
    (folder / "pictures").mkdir(parents=True)
    kept = 0
    with open(folder / "steps.jsonl", "w") as log:
        for instruction in TASKS:
            scene = Scene(instruction)
            for seed in tqdm(range(episodes), desc=instruction):
                rng, steps, after = np.random.default_rng([seed, 1]), [], 0
                scene.reset(seed)
                while after < 3 and len(steps) < LIMIT:     # two more steps once it is done
                    action = scene.expert()[1:]
                    steps.append((scene.render(), action))
                    # the arm moves with noise, the log has none; every second episode begins with large noise
                    noise = 1 if seed % 2 and len(steps) < 6 else .3
                    done = scene.move(action + [*rng.normal(0, noise, 3), 0])
                    after += done or after > 0
                for t, (picture, action) in enumerate(steps if after else []):
                    image = f"pictures/{kept:06}_{t:03}.png"
                    Image.fromarray(picture).save(folder / image)
                    log.write(json.dumps({"episode": kept, "instruction": instruction,
                                          "action": action.tolist(), "image": image}) + "\n")
                kept += after > 0
            scene.renderer.close()
    print(f"{folder}: {kept} of {episodes * len(TASKS)} episodes succeeded and are kept")


def evaluate(checkpoint, trials, execute):
    """
    Prints the table of eval.py. Beside the checkpoint it writes closed_loop.json (closed_loop_2.json with
    --execute 2), rollouts.gif and rollouts.png.
    """
    from eval import Line, Policy, latency, measure, table
    from world.film import film
    # one simulator a task, for all of its trials
    policy, scene = Policy(checkpoint, execute=execute), functools.cache(Scene)
    lines = [Line(task, functools.partial(scene, task), at_once=1) for task in TASKS]
    found = {"rows": measure(policy, lines, trials), "latency": latency(policy)}
    print(table(found))
    name = f"closed_loop_{execute}.json" if execute else "closed_loop.json"
    (checkpoint.parent / name).write_text(json.dumps(found, indent=1))
    film(policy, lines, checkpoint.parent, n=len(TASKS))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("record", help="demonstrations of the scripted experts, as a log")
    command.add_argument("--folder", type=Path, default=Path("data/metaworld"))
    command.add_argument("--episodes", type=int, default=100, help="of each task (100)")
    command = commands.add_parser("eval", help="a checkpoint in closed loop, with its controls")
    command.add_argument("--checkpoint", type=Path, default=Path("out/metaworld/checkpoint.pt"))
    command.add_argument("--trials", type=int, default=50, help="of each task and driver (50)")
    command.add_argument("--execute", type=int, default=0,
                         help="actions of an answer that are carried out before it looks again (all)")
    args = parser.parse_args()
    try:
        if args.command == "record":
            record(args.folder, args.episodes)
        else:
            evaluate(args.checkpoint, args.trials, args.execute)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
