"""
The simulator of the paper's Table 1: Language-Table, an arm that pushes blocks on a table (PyBullet).

    pip install pybullet scipy absl-py six gymnasium opencv-python-headless
    git clone https://github.com/google-research/language-table data/language_table/repo
    python -m examples.language_table record --episodes 1000    # demonstrations of its planner
    python -m examples.language_table scenes                # pictures that ask where the blocks are
    python train.py --config examples/language_table/places.toml --trials 0
    python -m examples.language_table eval --checkpoint out/language_table_places/checkpoint.pt
    python -m examples.language_table web                   # optional: the paper's four co-training questions

The task is block to block: "push the red moon to the blue cube". It is done when the two centres are less
than 5 cm apart. An action is two numbers, x and y: how far the tip's setpoint moves, in metres. The paper
co-trains on five families of tasks with eight blocks; this example has one family, and four blocks unless
--blocks 8.
"""
import argparse
import functools
import json
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

REPO, FOLDER = Path("data/language_table/repo"), Path("data/language_table/4")
SIZE = 96                                                   # pixels a side of a recorded picture
LIMIT = 80                                                  # steps of a trial, 10 a second
NOISE = .008                                                # metres; see demonstrate()
CELLS, FAR = 64, 15                 # the table has so many cells a side, of 7 x 10 mm; see way()


def stand_ins():
    """
    The repository imports TensorFlow and TF-Agents for a base class and for debug plots. Empty modules with
    the few names that it asks for take their places while it is imported: name -> module.
    """
    import gymnasium

    class PyPolicy:
        def __init__(self, *specs):
            """nothing to remember"""

    def module(name, **inside):
        made = types.ModuleType(name)
        made.__dict__.update(inside)
        return {name: made}
    space = types.SimpleNamespace
    return {"gym": gymnasium, **module("tensorflow"), **module("tf_agents"),    # gym is gymnasium's old name
            **module("tf_agents.policies", py_policy=space(PyPolicy=PyPolicy)),
            **module("tf_agents.trajectories", policy_step=space(PolicyStep=space), time_step=space()),
            **module("language_table.environments.oracles.plot")}


try:
    absent = {name: made for name, made in stand_ins().items() if name not in sys.modules}
    sys.modules.update(absent)
    sys.path.insert(0, str(REPO))
    from absl import logging
    from language_table.environments import blocks, constants, language_table
    from language_table.environments.oracles import push_oracle_rrt_slowdown as planner
    from language_table.environments.rewards.block2block import BlockToBlockReward
except ImportError as e:
    sys.exit(f"error: this example needs the Language-Table repository and a few packages ({e}):\n"
             "  pip install pybullet scipy absl-py six gymnasium opencv-python-headless\n"
             f"  git clone https://github.com/google-research/language-table {REPO}")
for name in absent:                                         # nobody else shall take them for TensorFlow
    del sys.modules[name]
logging.set_verbosity(logging.ERROR)                        # the planner says whenever it finds no path
warnings.filterwarnings("ignore", module="gymnasium")
planner.RRT_MAX_ITERS = 256                 # of 1024: whether there is a way is found 10 times sooner


# --------------------------------------------------------------------------------------------------------
# the simulator

class Table(language_table.LanguageTable):
    """The simulator, which draws a picture only when it is asked to: one picture takes longer than a step."""

    def __init__(self, n_blocks):
        super().__init__(getattr(blocks.LanguageTableBlockVariants, f"BLOCK_{n_blocks}"), seed=0,
                         reward_factory=BlockToBlockReward, render_text_in_image=False)
        # half the simulator's own size in half the time; the first of these is the focal length in pixels
        self._camera_instrinsics = (constants.CAMERA_INTRINSICS[0] / 2, *constants.CAMERA_INTRINSICS[1:])

    def _render_camera(self, image_size, return_seg_mask=False):
        return None

    def picture(self):
        """(90, 160, 3) uint8, the whole table"""
        return super()._render_camera((90, 160))

    def get_control_frequency(self):
        return self._control_frequency

    def time_step_spec(self):
        """The planner's base class wants it."""

    action_spec = time_step_spec


def squashed(table):
    """what the camera sees, 160 x 90 pixels, as a square image"""
    return Image.fromarray(table.picture()).resize((SIZE, SIZE), Image.BILINEAR)


def cell(xy):
    """Example: the middle of the table, [0.375, 0] -> "32 32": across and away from the robot, 0 to 63"""
    low, high = constants.WORKSPACE_BOUNDS
    x, y = ((np.asarray(xy) - low) / (high - low) * CELLS).clip(0, CELLS - 1).astype(int)
    return f"{y} {x}"


def way(here, there):
    """
    How many cells `there` lies from `here`: across, and away from the robot. 15 is added, so "15 15" is the
    same place. More than 15 cells count as 15: a step moves at most 5, so farther away changes nothing.
    Example: 1 cm to one side and far away -> "16 30"
    """
    low, high = constants.WORKSPACE_BOUNDS
    x, y = FAR + ((np.asarray(there) - here) / (high - low) * CELLS).round().clip(-FAR, FAR).astype(int)
    return f"{y} {x}"


class Pusher(planner.ObstacleOrientedPushOracleBoard2dRRT):
    """
    The repository's push planner, made to go by the scene alone, because a policy that sees two pictures
    cannot imitate a memory, nor a way that was drawn at random. The tip goes behind the block, round other
    blocks by repulsion, and pushes it straight at its goal. The block is not turned first.
    """

    def __init__(self, table):
        super().__init__(table, use_ee_planner=False)

    def _get_action_info(self, *args):
        """What a move depends on: no waypoints of the planner, and a phase that comes from the scene."""
        self._plan = ()                                     # no places on the way: the goal is next
        info = super()._get_action_info(*args)
        info.theta_error = 0. * info.theta_error
        near = np.linalg.norm(info.xy_ee - info.xy_block) < .07         # metres
        behind = -info.xy_dir_block_to_ee @ info.xy_dir_block_to_target > .9    # less than 26 degrees off
        self.phase = "push_block" if near and behind else "move_to_pre_block_avoid"
        return info

    def move(self):
        """(2,) float64, metres"""
        return np.array(self._get_action_for_block_target(self._env.compute_state()), float)


class Scene:
    """
    Block to block as an environment (eval.Line). A seed gives the scene and the instruction. stops = False:
    terminate is ignored, as in the paper's simulator, where an action is x and y alone.
    """

    def __init__(self, n_blocks=4, stops=True):
        self.table, self.stops = Table(n_blocks), stops
        self.pusher = Pusher(self.table)

    def reset(self, seed):
        """A scene where the planner finds a way, as in the repository's own evaluation."""
        np.random.seed(seed % 2 ** 32)                      # the planner draws from numpy's global numbers
        self.table.seed(seed)
        while True:
            self.table.reset()
            self.pusher.reset()
            if self.pusher.get_plan(self.table.compute_state()):
                break
        self.instruction, self.steps, self.first_moved = self.table._instruction_str, 0, None
        self.pair = self.table._start_block, self.table._oracle_target_block
        self.begin = self.places()
        return {"image": self.squash()}, {}

    def step(self, action):
        """
        action: terminate; x, y in metres. The trial ends when the blocks are together, and, unless it is
        ignored, when the action says terminate.
        """
        terminate, *move = action
        stop = self.stops and terminate > .5
        self.steps += 1
        done = not stop and self.move(move)
        info = {"counts": {"moved the named block first": self.first_moved == self.pair[0]}}
        return {"image": self.squash()}, float(done), bool(done or stop), self.steps >= LIMIT, info

    def move(self, xy):
        """True when the simulator says that the task is done"""
        _, _, done, _ = self.table.step(np.asarray(xy))
        if self.first_moved is None:
            far = {b: np.linalg.norm(place - self.begin[b]) for b, place in self.places().items()}
            block = max(far, key=far.get)
            self.first_moved = block if far[block] > .01 else None
        return done

    def places(self):
        """block -> where it is on the table, (2,) metres"""
        state = self.table.compute_state()
        return {b: state[f"block_{b}_translation"] for b in self.table._blocks_on_table}

    def arm(self):
        """where the arm's tip is, (2,) metres"""
        return self.table.compute_state()["effector_translation"]

    def thought(self):
        """
        What the robot says before it acts: the way from its tip to the block, and from there to its goal.
        Example: "26 30 0 2"
        """
        places = self.places()
        block, goal = (places[name] for name in self.pair)
        return f"{way(self.arm(), block)} {way(block, goal)}"

    def squash(self):
        """(SIZE, SIZE, 3) uint8"""
        return np.asarray(squashed(self.table))

    def expert(self):
        return np.array([0, *self.pusher.move()])

    def swapped(self):
        """the same, asked of two blocks that the instruction does not name"""
        one, other = sorted(set(self.places()) - {*self.pair})[:2]
        return f"push the {one.replace('_', ' ')} to the {other.replace('_', ' ')}"

    def render(self):
        return self.table.picture()


# --------------------------------------------------------------------------------------------------------
# demonstrations

def demonstrate(scene, seed):
    """
    One demonstration -> list of (picture, instruction, thought, action, arm), or None if it takes more than
    LIMIT steps. What is carried out has noise, what is written has none, so that the log shows how to correct
    an error. Two more steps follow the success: a policy that says terminate too early fails.
    """
    rng, steps, after = np.random.default_rng([seed, 1]), [], 0
    scene.reset(seed)
    while after < 3 and len(steps) < LIMIT + after:
        move = scene.expert()[1:]
        steps.append((scene.squash(), scene.instruction, scene.thought(), move, scene.arm()))
        done = scene.move(move + rng.normal(0, NOISE, 2))
        after += done or after > 0
    return steps if after else None


def record(folder, episodes, n_blocks):
    """
    A log of format = "folder": steps.jsonl and pictures/, until it has so many episodes. An episode's number
    is the seed of its scene. A log that is there already goes on with the next seed.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    path = folder / "steps.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    last = [json.loads(line)["episode"] for line in lines if line.endswith("\n")][-1:]
    # the last episode may be half there: it is made again
    lines = [line for line in lines if line.endswith("\n") and json.loads(line)["episode"] not in last]
    path.write_text("".join(lines))
    kept, seed = len({json.loads(line)["episode"] for line in lines}), last[0] if last else 0
    scene, tried, began, bar = Scene(n_blocks), 0, time.time(), tqdm(total=episodes, initial=kept)
    with open(path, "a") as log:
        while kept < episodes:
            steps, new = demonstrate(scene, seed), []
            for t, (picture, instruction, thought, action, arm) in enumerate(steps or ()):
                image = f"pictures/{seed:06}_{t:03}.png"
                Image.fromarray(picture).save(folder / image)
                new.append(json.dumps({"episode": seed, "instruction": instruction, "image": image,
                                       "thought": thought, "action": action.round(5).tolist(),
                                       "arm": arm.round(4).tolist()}))
            log.writelines(line + "\n" for line in new)
            log.flush()
            kept, tried, seed = kept + bool(steps), tried + 1, seed + 1
            bar.update(bool(steps))
    minutes = (time.time() - began) / 60
    print(f"{folder}: {kept} episodes; of {tried} new ones in {minutes:.1f} minutes, "
          f"those that took at most {LIMIT} steps are kept")


# --------------------------------------------------------------------------------------------------------
# the paper's four co-training questions

def pair(folder, first, second):
    """two steps of one episode as one picture, the earlier one above"""
    halves = [Image.open(folder / step["image"]).resize((SIZE, SIZE // 2), Image.BILINEAR)
              for step in (first, second)]
    return Image.fromarray(np.vstack([np.asarray(half) for half in halves]))


def web(folder, seed=0):
    """
    questions.jsonl beside steps.jsonl, a folder of format = "vqa": four questions about each episode, as in
    the paper. A web picture of this project is one picture, so two steps are shown one above the other.
    """
    (folder / "pairs").mkdir(exist_ok=True)
    rng, episodes = np.random.default_rng(seed), {}
    for line in open(folder / "steps.jsonl"):
        step = json.loads(line)
        episodes.setdefault(step["episode"], []).append(step)
    with open(folder / "questions.jsonl", "w") as out:
        for number, steps in tqdm(episodes.items()):
            some, i = steps[rng.integers(len(steps))], int(rng.integers(len(steps) - 1))
            j = int(rng.integers(i + 1, min(len(steps), i + 20)))
            # the last two steps were recorded after the success
            late = bool(rng.integers(2)) or len(steps) < 5
            shown = steps[-1 if late else rng.integers(len(steps) - 4)]
            between, whole = f"pairs/{number:06}_between.png", f"pairs/{number:06}_whole.png"
            pair(folder, steps[i], steps[j]).save(folder / between)
            pair(folder, steps[0], steps[-1]).save(folder / whole)
            for image, question, answer in (
                    (some["image"], "where is the arm?", cell(some["arm"])),
                    (shown["image"], f"is it done: {shown['instruction']}?", "yes" if late else "no"),
                    (between, "how many steps are between the two pictures?", str(j - i)),
                    (whole, "what was the robot told?", steps[0]["instruction"])):
                out.write(json.dumps({"image": image, "question": question, "answer": answer}) + "\n")
    print(f"{folder / 'questions.jsonl'}: 4 questions about each of {len(episodes)} episodes")


def scenes(folder, pictures, n_blocks, turns=25):
    """
    A folder of format = "vqa": blocks put down anywhere, without an action, and questions: where each thing
    is, where each block is from the arm, and where each is from another. To place the arm takes half a
    second, so each of its places has `turns` pictures.
    """
    if folder.exists():
        raise ValueError(f"{folder} is there already; delete it, or name another --folder")
    (folder / "pictures").mkdir(parents=True)
    table = Scene(n_blocks).table
    low, high = constants.WORKSPACE_BOUNDS
    with open(folder / "questions.jsonl", "w") as out:
        for i in tqdm(range(pictures)):
            rng = np.random.default_rng([500_000, i])       # demonstrations begin at 0, trials at 1,000,000
            if i % turns == 0:
                table.seed(500_000 + i)
                table.reset()
            taken = [table.compute_state()["effector_translation"]]
            for block in table._blocks_on_table:
                xy = rng.uniform(low + .03, high - .03)
                while min(np.linalg.norm(xy - other) for other in taken) < .05:
                    xy = rng.uniform(low + .03, high - .03)
                taken.append(xy)
                number, client = table._block_to_pybullet_id[block], table._pybullet_client
                *_, z = client.getBasePositionAndOrientation(number)[0]
                client.resetBasePositionAndOrientation(number, [*xy, z], client.getQuaternionFromEuler(
                    [np.pi / 2, 0, rng.uniform(0, 2 * np.pi)]))
            image = f"pictures/{i:05}.png"
            squashed(table).save(folder / image)
            names = ["arm", *(name.replace("_", " ") for name in table._blocks_on_table)]
            asked = [(f"where is the {name}?", cell(xy)) for name, xy in zip(names, taken)]
            for a in range(1, len(names)):
                for b in 0, rng.choice([b for b in range(1, len(names)) if b != a]):
                    asked.append((f"where is the {names[a]} from the {names[b]}?", way(taken[b], taken[a])))
            for question, answer in asked:
                out.write(json.dumps({"image": image, "question": question, "answer": answer}) + "\n")
    print(f"{folder / 'questions.jsonl'}: {len(asked)} questions about each of {pictures} pictures")


# --------------------------------------------------------------------------------------------------------
# closed loop

def evaluate(checkpoint, trials, drivers, n_blocks, stops):
    """
    Prints the table of eval.py. Rows are kept in closed_loop.json beside the checkpoint, one after each
    driver, so that a stopped evaluation goes on with --drivers.
    """
    from eval import Line, Policy, measure, table
    from world.film import film
    policy, path = Policy(checkpoint), checkpoint.parent / "closed_loop.json"
    # one simulator for all trials
    line = Line(f"block to block, {n_blocks} blocks" + ("" if stops else ", terminate ignored"),
                functools.cache(lambda: Scene(n_blocks, stops)), at_once=1)
    rows = json.loads(path.read_text()) if path.exists() else []
    for driver in drivers:
        began = time.time()
        new = measure(policy, [line], trials, [driver])
        minutes = round((time.time() - began) / 60, 1)
        rows = [r for r in rows if (r["line"], r["driver"]) != (line.name, driver)]
        rows += [{**r, "minutes": minutes} for r in new]
        path.write_text(json.dumps(rows, indent=1))
    print(table({"rows": rows}))
    for r in rows:
        print(f"{r['line']}, {r['driver']}: the first block that moved was the named one in "
              f"{r['counts']['moved the named block first']} of {r['n']}; {r['outcomes']}")
    if "policy" in drivers:
        film(policy, [line], checkpoint.parent, n=4)


def main():
    from eval import DRIVERS
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("record", help="demonstrations of the planner, as a log")
    command.add_argument("--folder", type=Path, help=f"{FOLDER}, or .../8 with --blocks 8")
    command.add_argument("--episodes", type=int, default=300)
    command.add_argument("--blocks", type=int, choices=(4, 8), default=4)
    command = commands.add_parser("web", help="the paper's four co-training questions, from a log")
    command.add_argument("--folder", type=Path, default=FOLDER)
    command = commands.add_parser("scenes", help="pictures that ask where the blocks are")
    command.add_argument("--folder", type=Path, default=FOLDER.with_name("scenes"))
    command.add_argument("--pictures", type=int, default=5000)
    command.add_argument("--blocks", type=int, choices=(4, 8), default=4)
    command = commands.add_parser("eval", help="a checkpoint in closed loop, with its controls")
    command.add_argument("--checkpoint", type=Path, default=Path("out/language_table/checkpoint.pt"))
    command.add_argument("--trials", type=int, default=100, help="of each driver (100)")
    command.add_argument("--drivers", nargs="+", choices=DRIVERS, default=DRIVERS)
    command.add_argument("--ignore_terminate", action="store_true", help="as in the paper's simulator")
    command.add_argument("--blocks", type=int, choices=(4, 8), default=4)
    args = parser.parse_args()
    try:
        if args.command == "record":
            record(args.folder or FOLDER.with_name(str(args.blocks)), args.episodes, args.blocks)
        elif args.command == "scenes":
            scenes(args.folder, args.pictures, args.blocks)
        elif args.command == "web":
            web(args.folder)
        else:
            evaluate(args.checkpoint, args.trials, args.drivers, args.blocks,
                     stops=not args.ignore_terminate)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
