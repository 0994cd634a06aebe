"""
A simulator that is not this project's: Meta-World, a Sawyer arm in MuJoCo. Two scenes, four tasks: "open" and "close" begin with the
same picture, so that the words must decide.

    pip install metaworld packaging                       # Linux without a display: apt-get install libegl1 libgl1
    python -m examples.metaworld record           # demonstrations of Meta-World's scripted experts: 80 s, 110 MB
        data/metaworld: 400 of 400 episodes succeeded and are kept
    python train.py --config examples/metaworld/metaworld.toml      # this project's training, on that folder alone: 9 minutes
    python -m examples.metaworld eval             # closed loop, in scenes that no demonstration shows
        success in 50 trials a cell (seeds from 1000000), Wilson 95 % interval
                                            policy         swapped words                random                expert
        open the faucet            90 % [ 79,  96]        0 % [  0,   7]        0 % [  0,   7]      100 % [ 93, 100]
        close the faucet           96 % [ 87,  99]        0 % [  0,   7]        0 % [  0,   7]      100 % [ 93, 100]
        open the window            98 % [ 90, 100]        0 % [  0,   7]        0 % [  0,   7]      100 % [ 93, 100]
        close the window           82 % [ 69,  90]        0 % [  0,   7]        2 % [  0,  10]      100 % [ 93, 100]

Swapped words: the same trials, told "close" for "open" and the reverse; success is still that of the row. The two rows of a pair begin
alike, so a policy that is deaf to the verb has the same numbers in both columns. This says nothing of the nouns, which the picture
shows, nor of new words. Scenes and camera are this file's own: these are not numbers of a Meta-World benchmark.
"""
import argparse
import json
import os
import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from tqdm import tqdm

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")                          # draws without a display, on a CPU as well
try:
    import mujoco
    from metaworld import policies
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task
except ImportError as e:
    sys.exit(f"error: this example needs Meta-World ({e}): pip install metaworld packaging")
warnings.filterwarnings("ignore", "Constant")                          # its experts ask for more than 1, and are clipped

TASKS = ("open the faucet", "close the faucet", "open the window", "close the window")
PLACES = {"faucet": ((-.1, .75, 0), (.1, .85, 0)), "window": ((-.1, .75, .16), (.1, .9, .16))}     # x, y, z in metres: from, to
LIMIT, TRIAL_SEED = 50, 1_000_000


class Scene:
    """A task of Meta-World, its camera and its expert. A step is four of the simulator's: at most 4 cm an axis."""
    draws = True

    def __init__(self, instruction):
        self.verb, _, self.thing = instruction.split()
        self.name = f"{self.thing}-{self.verb}-v3"
        self.env = ALL_V3_ENVIRONMENTS[self.name]()
        self.script = getattr(policies, f"Sawyer{self.thing.title()}{self.verb.title()}V3Policy")()
        quality, self.options, self.camera = self.env.model.vis.quality, mujoco.MjvOption(), mujoco.MjvCamera()
        quality.shadowsize = quality.offsamples = 0                    # 9 ms a picture on a CPU; with shadows and all, 160
        self.options.sitegroup[:] = 0                                  # no marker shows the goal
        self.camera.lookat[:] = .02, .66, .2                           # Meta-World's own cameras see it upside down
        self.camera.distance, self.camera.azimuth, self.camera.elevation = .95, 150, -35
        self.renderer = mujoco.Renderer(self.env.model, 96, 96)

    def reset(self, seed):
        """a seed is the same scene for "open" and "close"; Meta-World begins them apart, which gives the answer away"""
        self.film = []
        place = np.random.default_rng(seed).uniform(*PLACES[self.thing])
        self.env.set_task(Task(self.name, pickle.dumps(dict(env_cls=type(self.env), rand_vec=place, partially_observable=False))))
        self.env.reset()
        if self.thing == "window":
            self.env.data.joint("window_slide").qpos = .1              # half open
        self.obs = self.env.step(np.array([0, 0, 0, -1.]))[0]          # a still step: only now is everything where reset put it

    def picture(self):
        """(96, 96, 3) uint8; None for drivers that do not look"""
        if self.draws:
            self.renderer.update_scene(self.env.data, self.camera, self.options)
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self.renderer.scene.flags[flag] = 0
            self.film.append(self.renderer.render())
            return self.film[-1]

    def step(self, action):
        """action: dx, dy, dz, gripper in -1..1; True when the simulator says that the task is done"""
        for _ in range(4):
            self.obs, _, _, _, info = self.env.step(np.clip(action, -1, 1))
        return bool(info["success"])

    def expert(self):
        """what the script would do, in five sizes an axis: the fewer bins are in use, the sooner they are learned (README)"""
        return np.round(self.script.get_action(self.obs).clip(-1, 1) * 2) / 2 + 0.


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
                while after < 3 and len(steps) < LIMIT:                # two more steps once it is done
                    steps.append((scene.picture(), scene.expert()))
                    noise = 1 if seed % 2 and len(steps) < 6 else .3                        # every second one begins in disorder
                    done = scene.step(steps[-1][1] + [*rng.normal(0, noise, 3), 0])         # done with noise, written without
                    after += done or after > 0
                for t, (picture, action) in enumerate(steps if after else []):
                    image = f"pictures/{kept:06}_{t:03}.png"
                    Image.fromarray(picture).save(folder / image)
                    log.write(json.dumps(dict(episode=kept, instruction=instruction, action=action.tolist(), image=image)) + "\n")
                kept += after > 0
            scene.renderer.close()
    print(f"{folder}: {kept} of {episodes * len(TASKS)} episodes succeeded and are kept")


# ---------------------------------------------------------------------------------------------------------------------
# THE LINES TO COPY for a simulator of your own: policy = eval.Policy(checkpoint); scene is yours

def trial(scene, policy, instruction, seed):
    scene.reset(seed)
    policy.reset()
    for _ in range(LIMIT):
        picture = scene.picture()                                      # (height, width, 3) uint8, of any size
        stop, *action = policy.act(picture, instruction)               # terminate, then the numbers of your log, in its units
        if stop > .5:
            return False
        if scene.step(action):
            return True
    return False

# ---------------------------------------------------------------------------------------------------------------------


def evaluate(policy, trials, folder):
    """prints the table; metaworld.gif is the first trial of each task, in the order of the table, as the policy sees it"""
    from eval import percent, wilson
    columns, films, rng = ("policy", "swapped words", "random", "expert"), [], np.random.default_rng(TRIAL_SEED)
    print(f"success in {trials} trials a cell (seeds from {TRIAL_SEED}), Wilson 95 % interval")
    print(f"{'':20}" + "".join(f"{column:>22}" for column in columns))
    for instruction in TASKS:
        scene, line = Scene(instruction), f"{instruction:20}"
        swapped = f"{'close' if scene.verb == 'open' else 'open'} the {scene.thing}"
        for column in columns:
            scene.draws, k = column in ("policy", "swapped words"), 0
            driver = policy if scene.draws else SimpleNamespace(reset=lambda: None, act=lambda picture, words: [
                0, *(scene.expert() if column == "expert" else rng.uniform(-1, 1, 4))])
            for i in range(trials):
                k += trial(scene, driver, swapped if column == "swapped words" else instruction, TRIAL_SEED + i)
                if column == "policy" and i == 0:
                    scene.picture()
                    films.append(scene.film)
            line += f"{percent(k, trials, wilson(k, trials)):>22}"
        scene.renderer.close()
        print(line, flush=True)
    sheets = [Image.fromarray(np.concatenate([film[min(t, len(film) - 1)] for film in films], 1)).resize((192 * len(films), 192))
              .quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for t in range(max(map(len, films)) + 4)]
    sheets[0].save(folder / "metaworld.gif", save_all=True, append_images=sheets[1:], duration=200, loop=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("record", help="demonstrations of the scripted experts, as a log")
    command.add_argument("--folder", type=Path, default=Path("data/metaworld"))
    command.add_argument("--episodes", type=int, default=100, help="of each task (100)")
    command = commands.add_parser("eval", help="a checkpoint in closed loop, beside random actions and the experts")
    command.add_argument("--checkpoint", type=Path, default=Path("out/metaworld/checkpoint.pt"))
    command.add_argument("--trials", type=int, default=50, help="of each task and driver (50)")
    args = parser.parse_args()
    try:
        if args.command == "record":
            return record(args.folder, args.episodes)
        from eval import Policy
        evaluate(Policy(args.checkpoint), args.trials, args.checkpoint.parent)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
