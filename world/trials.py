"""
Trials of the built-in world: environments for eval.py, and questions about pictures that training never saw.

    trial = Trial("small", ["pick"], 64, plain(["pick"]))
    obs, info = trial.reset(seed=1_000_000)          # the seed fixes the scene, its look and the task
    obs, reward, terminated, truncated, info = trial.step(trial.expert())

At the end of a failed trial, info has {"outcome": "wrong thing", "counts": {"right first": False}, ...}.
"""
from dataclasses import replace
from functools import partial

import numpy as np

from world import draw, web
from world.scene import KINDS, World, day

WEB_SEED = 2_000_000                    # pictures that no training run has seen


# ----------------------------------------------------------------------------------------------------------
# what a seed fixes: functions seed -> style, camera, keywords of World.reset

LOOKS = ("as in training", "another table", "patterned table", "another room", "another camera")


def look(name, rng, days):
    """
    style, camera: how the lab looks in a trial (table 4 of the paper). "as in training" is a day like those
    of the demonstrations; every other name changes something that they never change.
    """
    if name not in LOOKS:
        raise ValueError(f"unknown look {name!r}")
    style, camera = day(rng.integers(2 ** 31)) if days else (draw.Style(), draw.Camera())
    changes = {}
    if name != "as in training":
        changes["table"] = tuple(rng.uniform(.35, .95, 3))
    if name in ("another room", "another camera"):
        changes |= {"floor": tuple(rng.uniform(.2, .9, 3)), "light": float(rng.uniform(.65, 1.2))}
    if name in ("patterned table", "another camera"):
        changes |= {"texture": str(rng.choice(["wood", "stripes", "checks", "speckles", "cloth"])),
                    "clutter": int(rng.integers(2 ** 31))}
    if name == "another room":                              # the camera moved a little
        camera = draw.Camera(tilt=65 + rng.choice([-4, 4]), width=.5)
    elif name == "another camera":                          # the camera stands elsewhere
        camera = draw.Camera(tilt=65 + rng.choice([-9, 9]), width=rng.uniform(.52, .58))
    return replace(style, **changes), camera


def plain(skills, targets="robot", look_name="as in training", days=False):
    """Trials with plain instructions, of the skills in turn. targets: as World.reset takes it"""
    def how(seed):
        style, camera = look(look_name, np.random.default_rng([seed, 4]), days)
        return style, camera, {"skill": skills[seed % len(skills)], "targets": targets}
    return how


# ----------------------------------------------------------------------------------------------------------

class Trial:
    """
    An environment around a World. how: a function seed -> (style, camera, keywords of World.reset), so that
    a seed fixes all of a trial. size: pixels a side of what the policy sees; world: the World of the trial.
    """

    def __init__(self, vocabulary, skills, size, how):
        self.vocabulary, self.skills, self.size, self.how = vocabulary, skills, size, how

    def reset(self, seed):
        style, camera, scene = self.how(seed)
        self.world = World(self.vocabulary, self.skills, self.size, style, camera)
        return self.world.reset(seed, **scene)

    @property
    def instruction(self):
        return self.world.instruction

    def step(self, action):
        """
        As World.step. At the end info also has "counts", what the rows of a table add up, and for a failed
        trial its "outcome", the type of failure.
        """
        obs, reward, terminated, truncated, info = self.world.step(action)
        if terminated or truncated:
            taken = self.world.taken
            info["counts"] = {"right first": bool(taken) and taken[0] in self.world.movers}
            if not reward:
                info["outcome"] = failure(self.world, terminated)
        return obs, reward, terminated, truncated, info

    def expert(self):
        return self.world.expert()

    def swapped(self):
        """
        an instruction that the scene allows, too, but that asks for something else; None if there is no
        such thing

        Example: "pick apple" -> "pick red can"
        """
        task = self.world.task
        if task.skill in ("open", "close"):
            return World.describe("close" if task.skill == "open" else "open")
        for other in self.world.things:
            kind, allowed = other.kind, other.noun in KINDS
            if task.skill in ("knock", "upright"):
                allowed = kind.tall and other.upright == (task.skill == "knock")
            elif task.skill == "put into":
                allowed = allowed and not kind.container and not kind.long
            elif task.skill == "take out":
                allowed = other.inside is task.b
            if allowed and other not in (task.a, task.b):
                return World.describe(task.skill, other, task.b)
        return None

    def render(self):
        """a picture for people, (224, 224, 3) uint8"""
        return self.world.render(224)


def failure(world, terminated):
    """
    Why a trial failed, in two or three words. terminated: the policy said stop. What went wrong with a drawer
    is not told apart.
    """
    task, taken = world.task, world.taken[-1] if world.taken else None
    if not terminated:
        return "never stopped"
    if taken is not None and task.a is not None and taken not in world.movers:
        return "wrong thing"
    if task.skill in ("move near", "put into", "take out") and taken is not None and world.held is None:
        return "wrong place"
    if taken is not None and (task.skill == "pick") == (world.held is None):
        return "wrong skill"                                # put down what was to be held, or the reverse
    return "target missed" if taken is None else "stopped too early"


def lines(settings, size):
    """
    The rows of the table that ends every training run: each skill, and to pick what only the web names.
    settings: of a table [[robot]] of format "world"

    Example: ("seen: pick", a function that makes a Trial, "seen")
    """
    vocabulary, skills, days = settings["vocabulary"], settings["skills"], settings["days"]

    def make(*arguments):
        return partial(Trial, vocabulary, skills, size, plain(*arguments, days=days))
    found = [(f"seen: {skill}", make([skill]), "seen") for skill in skills]
    if "pick" in skills:
        found.append(("only the web names it: pick", make(["pick"], "web"), "unseen"))
    return found


# ----------------------------------------------------------------------------------------------------------

def questions(vocabulary, size, question_type, n, names, about=None, fits=lambda answer: True, tries=20):
    """
    Three lists: n pictures of the web that training has not seen, whose things have these names (cards and
    people may lie among them); a question of one type about each; and its answer. They are shorter if
    n * tries pictures do not allow n questions, and empty if the first hundred allow none.

    about: ask only about things of this category, or about people ("hair"); fits(answer): keep only those
    """
    rng = np.random.default_rng(WEB_SEED)
    shown = {**web.on_the_web(vocabulary), "names": names}
    pictures, asked, answers = [], [], []
    for i in range(tries * n):
        picture, facts = web.draw_picture(np.random.default_rng([WEB_SEED, i]), size, **shown)
        if about:
            facts = [f for f in facts if ("hair" if "face" in f else f.get("category")) == about]
        found = web.ask(facts, question_type, rng)
        if found and fits(found[1]):
            pictures.append(picture), asked.append(found[0]), answers.append(found[1])
        if len(pictures) == n or i > 100 and not pictures:  # after 100 in vain there will be none
            break
    return pictures, asked, answers
