"""
A world that this project did not write: BabyAI, rooms of coloured keys, balls and boxes. Its sentences are
the instructions, and its bot is the expert.

    pip install minigrid
    python -m examples.babyai record                    # demonstrations of the bot; pictures with questions
    python train.py --config examples/babyai/web.toml   # web and robot together; robot.toml: the robot alone
    python -m examples.babyai eval                      # closed loop, in rooms that no demonstration shows

The picture is what the agent sees: 7 x 7 tiles of 8 pixels, itself in the middle of the last row, looking up.
An action is one number that chooses: left, right, forward, or pick up.
"""
import argparse
import contextlib
import functools
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

try:
    from minigrid.envs.babyai import GoToLocal, GoToObj, PickupDist
    from minigrid.envs.babyai.core.verifier import ObjDesc
    from minigrid.minigrid_env import MiniGridEnv
    from minigrid.utils.baby_ai_bot import BabyAIBot
except ImportError as e:
    sys.exit(f"error: this example needs BabyAI ({e}): pip install minigrid")

LEVELS = {"GoToLocal": GoToLocal, "PickupDist": PickupDist, "GoToObj": GoToObj}
SHOWN = ("GoToLocal", "PickupDist")             # the levels of the log; GoToObj is never demonstrated
FORWARD, PICK_UP = 2, 3                         # of BabyAI's seven moves, the log has the first four
WEB_SEED = 500_000      # first room of the web; demonstrations begin at 0, trials at 1,000,000
WITHIN = (8, 16, 32)                            # steps; a level's own limit is 64, PickupDist's is 49


class Level:
    """
    A level of BabyAI as an environment (eval.Line). obs["image"]: (56, 56, 3) uint8, the 7 x 7 tiles that the
    agent sees. An action is [terminate, move].
    """

    def __init__(self, name):
        self.env = LEVELS[name]()

    def reset(self, seed):
        with contextlib.redirect_stdout(io.StringIO()):     # it prints each room that it rejects
            self.env.reset(seed=seed)
        self.instruction, self.bot, self.last = self.env.mission, None, None
        return {"image": self.picture()}, {}

    def step(self, action):
        """The level ends the trial when its task is done. terminate = 1 ends it, too, and moves nothing."""
        stop, move = action
        reward, done, late = 0, False, False
        if stop < .5:
            self.last = round(float(move))
            _, reward, done, late, _ = self.env.step(self.last)
        success, used = reward > 0, self.env.step_count
        info = {"success": success, "counts": {f"within {n} steps": success and used <= n for n in WITHIN},
                "outcome": "stopped early" if stop >= .5 else
                           "carries another thing" if self.env.carrying else "out of time"}
        return {"image": self.picture()}, reward, done or stop >= .5, late, info

    def picture(self):
        return self.env.get_pov_render(tile_size=8)

    def render(self):
        """the whole room, for people; the agent sees the brighter part"""
        return self.env.get_full_render(highlight=True, tile_size=24)

    def expert(self):
        """
        What the bot would do. It plans ahead, so it has to hear of each step (self.last). It says "done"
        where it faces the thing already; there forward changes nothing, and the level sees that it is done.
        """
        self.bot = self.bot or BabyAIBot(self.env)
        move = int(self.bot.replan(self.last))
        return np.array([0, FORWARD if move == self.env.actions.done else move])

    def swapped(self):
        """
        The same sentence about another thing of the room; None if there is no other. No thing that it
        describes is one that the mission means. The choice depends on the agent's place alone, so a seed
        always gives the same one. Example: "pick up a red object" -> "pick up the grey object"
        """
        asked, env = self.env.instrs.desc, self.env
        others = {(thing.type if asked.type else None, thing.color if asked.color else None)
                  for thing in env.grid.grid if thing and thing.type != "wall"} - {(asked.type, asked.color)}
        if not others:
            return None
        other = sorted(others, key=str)[env.agent_pos[0] % len(others)]
        return f"{self.instruction.split(' the ')[0].split(' a ')[0]} {ObjDesc(*other).surface(env)}"


# --------------------------------------------------------------------------------------------------------
# what it learns from

def record(folder, episodes, pictures):
    """folder/robot, a log of format "folder", and folder/web, pictures and questions of format "vqa\""""
    if folder.exists():
        raise ValueError(f"{folder} is there already; delete it, or name another --folder")
    record_robot(folder / "robot", episodes)
    record_web(folder / "web", pictures)


def record_robot(folder, episodes):
    """
    Demonstrations of the bot, so many of each level. The last action finishes the task. Where something is
    in the way, the bot also puts things down, which the robot of this log cannot; such episodes are left out.
    """
    (folder / "pictures").mkdir(parents=True)
    kept = 0
    with open(folder / "steps.jsonl", "w") as log:
        for level, name in enumerate(SHOWN):
            scene, n, seed = Level(name), 0, level * 100_000
            while n < episodes:
                obs, _ = scene.reset(seed)
                seed, steps, done = seed + 1, [], False
                while not done and len(steps) < 64:
                    action = scene.expert()
                    steps.append((obs["image"], int(action[1])))
                    obs, reward, done, _, _ = scene.step(action)
                if not done or any(move > PICK_UP for _, move in steps):
                    continue
                for t, (picture, move) in enumerate(steps):
                    image = f"pictures/{kept:05}_{t:02}.png"
                    Image.fromarray(picture).save(folder / image)
                    log.write(json.dumps({"episode": kept, "instruction": scene.instruction, "action": [move],
                                          "image": image}) + "\n")
                n, kept = n + 1, kept + 1
            print(f"{name}: {n} episodes of {seed - level * 100_000} are kept")


def record_web(folder, pictures):
    """Pictures of the same rooms from any place in them, with questions and without an action"""
    (folder / "pictures").mkdir(parents=True)
    scenes = [Level(name) for name in SHOWN]
    with open(folder / "questions.jsonl", "w") as file:
        for i in tqdm(range(pictures), desc="web"):
            scene, rng = scenes[i % len(scenes)], np.random.default_rng([WEB_SEED, i])
            scene.reset(WEB_SEED + i)
            MiniGridEnv.place_agent(scene.env)
            image = f"pictures/{i:05}.png"
            Image.fromarray(scene.picture()).save(folder / image)
            for question, answer in questions(scene.env, rng):
                file.write(json.dumps({"image": image, "question": question, "answer": answer}) + "\n")


def questions(env, rng):
    """
    Questions about what the agent sees, and their answers. A place is column and row, 0..6, from the left and
    from the top. Of several things the nearest one counts.

    Example: ("where is the green ball?", "3 4"), ("where is a red object?", "nowhere"), ("what is at 3 4?",
    "ball"), ("what color is at 3 4?", "green")
    """
    grid, seen = env.gen_obs_grid()
    cells = [(x, y) for x in range(7) for y in range(7) if (x, y) != (3, 6)]    # 3 6 is the agent
    here = {cell: grid.get(*cell) for cell in cells if seen[cell]}
    nearest = sorted((cell for cell, thing in here.items() if thing and thing.type != "wall"),
                     key=lambda cell: abs(cell[0] - 3) + 6 - cell[1])
    things = {cell: (here[cell].color, here[cell].type) for cell in nearest}

    def where(color, kind):
        fits = [cell for cell, thing in things.items() if color in ("", thing[0]) and kind in ("", thing[1])]
        words = f"{'a' if len(fits) > 1 else 'the'} {color} {kind or 'object'}".replace("  ", " ")
        return f"where is {words}?", "{} {}".format(*fits[0]) if fits else "nowhere"

    def what(cell):
        thing = here.get(cell)
        seen_there = "darkness" if cell not in here else thing.type if thing else "floor"
        return "what is at {} {}?".format(*cell), seen_there

    def which_color(cell):
        return "what color is at {} {}?".format(*cell), things[cell][0]
    others = [cells[i] for i in rng.permutation(len(cells))[:2]]
    colors, kinds = ("red", "green", "blue", "purple", "yellow", "grey"), ("key", "ball", "box")
    asked = [*things.values(), *((color, "") for color, _ in things.values()),
             *(("", kind) for _, kind in things.values()),
             *((str(rng.choice(colors)), str(rng.choice(kinds))) for _ in range(2)),
             (str(rng.choice(colors)), ""), ("", str(rng.choice(kinds)))]
    # a colour is asked three times: asked once, it was learnt on one machine and not on another (README.md)
    colors_asked = [which_color(cell) for cell in things for _ in range(3)]
    return [*dict.fromkeys(where(*thing) for thing in asked), *colors_asked,
            *dict.fromkeys(map(what, [*things, *others]))]


# --------------------------------------------------------------------------------------------------------
# how good it is

def evaluate(checkpoint, trials, results):
    """Prints the table of eval.py, draws rollouts.gif, and adds the rows to the file results, if given."""
    from eval import Line, Policy, measure, table
    from world.film import film
    policy = Policy(checkpoint)
    lines = [Line(name, functools.partial(Level, name)) for name in LEVELS]
    rows = measure(policy, lines, trials)
    print(table({"rows": rows}))
    film(policy, lines, checkpoint.parent, n=2 * len(lines))
    if results:
        found = json.loads(results.read_text()) if results.exists() else {}
        recipe = "robot alone" if policy.config["robot_fraction"] == 1 else "web and robot"
        found.setdefault(recipe, {})[str(policy.config["seed"])] = rows
        results.write_text(json.dumps(found, sort_keys=True) + "\n")


def summary(found):
    """
    The tables of README.md, of a file that evaluate() wrote: by seed; with the controls, and by the number of
    steps, the seeds of a recipe together. Random actions and the bot are the same for every seed: they count
    once.
    """
    from eval import DRIVERS, percent

    def share(recipe, line, driver, seeds=None, within=None):
        """success of some trials, with its interval"""
        seeds = seeds or sorted(found[recipe])[:1 if driver in ("random", "expert") else None]
        rows = [row for seed in seeds for row in found[recipe].get(seed, ())
                if (row["line"], row["driver"]) == (line, driver)]
        k = sum(row["counts"].get(f"within {within} steps", 0) if within else row["success"] for row in rows)
        n = sum(row["n"] for row in rows)
        return " ".join(percent(k, n).split()).replace("[ ", "[")

    def lay(*rows):
        lines = (rows[0], ["---"] * len(rows[0]), *rows[1:])
        return "\n".join(f"| {' | '.join(row)} |" for row in lines)
    recipes, seeds = sorted(found, reverse=True), sorted({seed for some in found.values() for seed in some})
    each = [(line, recipe) for line in LEVELS for recipe in recipes]
    drivers = [(recipe, recipe, "policy") for recipe in recipes] + \
        [(driver, recipes[0], driver) for driver in ("random", "expert")]
    return "\n\n".join((
        lay(["level", "recipe", *(f"seed {seed}" for seed in seeds)],
            *([line, recipe, *(share(recipe, line, "policy", [seed]) for seed in seeds)]
              for line, recipe in each)),
        lay(["level", "recipe", *DRIVERS],
            *([line, recipe, *(share(recipe, line, driver) for driver in DRIVERS)] for line, recipe in each)),
        lay(["level", "driver", *(f"{n} steps" for n in WITHIN), "its own limit"],
            *([line, who, *(share(recipe, line, driver, within=n) for n in (*WITHIN, None))]
              for line in LEVELS for who, recipe, driver in drivers))))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("record", help="demonstrations of the bot, and pictures with questions")
    command.add_argument("--folder", type=Path, default=Path("data/babyai"))
    command.add_argument("--episodes", type=int, default=500, help="of each of two levels (500)")
    command.add_argument("--pictures", type=int, default=6000, help="with questions (6000)")
    command = commands.add_parser("eval", help="a checkpoint in closed loop, with its controls")
    command.add_argument("--checkpoint", type=Path, default=Path("out/babyai/checkpoint.pt"))
    command.add_argument("--trials", type=int, default=100, help="of each level and driver (100)")
    command.add_argument("--results", type=Path, help="a JSON file to add the rows to")
    command = commands.add_parser("table", help="the tables of README.md")
    command.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    args = parser.parse_args()
    try:
        if args.command == "record":
            record(args.folder, args.episodes, args.pictures)
        elif args.command == "table":
            print(summary(json.loads(args.results.read_text())))
        else:
            evaluate(args.checkpoint, args.trials, args.results)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
