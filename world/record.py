"""
Logs of the built-in world (data.Log): demonstrations of its robot, and pictures of its "web".

Both are drawn once, on first use, into a folder of the cache, and are read from there ever after. Training
reads logs; it never asks the expert.

    data/episodes-<key>/pictures.u8     N pictures of size x size x 3 bytes, one after the other
    data/episodes-<key>/steps.jsonl     one line for each: instruction, action, what stands where

The key is a hash of the settings and of the text of draw.py, scene.py and web.py. So any edit of these files
makes a new folder, even that of a comment.
"""
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import Log, in_processes, make_folder
from tokenizer import BEGIN_ACTION, plan, prompt, wish
from world import scene, trials, web
from world.scene import INSTRUCTIONS, KINDS, REMARKS, VOCABULARIES, WORDINGS


@functools.cache
def corpus(vocabulary: str, n: int = 4000) -> tuple:
    """
    Text that the tokenizer is trained on: instructions, and questions about pictures that are never drawn.
    Both logs of the world ask for it, so it is kept.
    """
    return tuple(_sentences(vocabulary, n))


def _sentences(vocabulary, n):
    rng = np.random.default_rng(0)
    names, shown = VOCABULARIES[vocabulary], web.on_the_web(vocabulary)
    # chance would rarely allow wishes, so they come at the end, each equally often
    question_types = [name for name in web.QUESTIONS if name != "wish"] if shown["cards"] else web.PLAIN
    for i in range(n):
        a, b = rng.choice(names["robot"], 2)
        yield prompt(INSTRUCTIONS[str(rng.choice(list(INSTRUCTIONS)))].format(a=a, b=b))
        if shown["cards"]:
            wordings = [text for texts in WORDINGS.values() for text in texts]
            text = str(rng.choice(wordings)).format(a=a, b="red item")
            yield prompt(f"{text}, {REMARKS[i % len(REMARKS)]}")
        facts = [{"name": str(name), "column": rng.random(), "row": rng.random(), "x": rng.uniform(-.2, .2),
                  "y": rng.uniform(-.2, .2), "category": KINDS[name.split()[-1]].category}
                 for name in rng.choice(shown["names"], 3, replace=False)]
        if shown["cards"]:
            card, hair = str(rng.choice(shown["cards"])), str(rng.choice(shown["hair"]))
            facts += [{"name": card, "column": .5, "row": .5, "x": .1, "y": 0,
                       "category": web.CARD_CATEGORY[card]},
                      {"name": f"person with {hair} hair", "column": .2, "row": .5, "x": 0, "y": .1,
                       "face": web.someone(rng, hair, shown["wears"])}]
        facts += [{"name": "gripper", "column": .3, "row": .3, "x": 0, "y": 0, "height": 9,
                   "below": {"column": .3, "row": .5}, "state": ("open", "closed", "full")[i % 3],
                   "held": "nothing"}]
        for question_type in question_types:
            question = web.ask(facts, question_type, rng)
            if question:
                yield "".join(question)
    if shown["cards"]:
        yield from ["Q: where is the thing that is different? A:",
                    "Q: where is the smallest number? A: the largest number"] * 20
        for text in (*web.WISHES, *(text.format("red") for text in web.TOGETHER)):
            yield from [wish(text) + plan("pick apple") + BEGIN_ACTION] * 20


# ----------------------------------------------------------------------------------------------------------
# recording

def _draw(job):
    """
    in a helper process: some seeds -> how many, the pictures of their steps (n, S, S, 3) or None, n lines
    """
    stream, seeds, drawn = job
    steps = [step for episode in stream(seeds, **drawn) for step in episode]
    pictures = np.stack([step.pop("picture") for step in steps]) if steps else None
    return len(seeds), pictures, [json.dumps(step, separators=(",", ":")) for step in steps]


class Recorded(Log):
    """
    What both logs have in common. pictures (N, S, S, 3) uint8, memory-mapped; steps: N dicts, their lines.
    """

    def read(self, stream, n, drawn, questions, cache, quiet):
        """
        Read the recording, which is made first if it is not there. stream: scene.episodes or
        web.web_pictures, a function (seeds, **drawn) -> iterator of episodes; n: how many seeds, from 0 on;
        questions: type -> how often.
        """
        self.question_types = [name for name, n in questions.items() for _ in range(n)]
        code = b"".join(Path(__file__).with_name(f).read_bytes() for f in ("draw.py", "scene.py", "web.py"))
        settings = json.dumps([stream.__name__, n, drawn])
        self.fingerprint = hashlib.sha256(code + settings.encode()).hexdigest()[:12]
        self.path, size = Path(cache) / f"{stream.__name__}-{self.fingerprint}", drawn["size"]
        if not self.path.exists():
            make_folder(self.path, lambda folder: self._record(folder, stream, n, drawn, quiet))
        try:
            self.pictures = np.memmap(self.path / "pictures.u8", np.uint8, "r").reshape(-1, size, size, 3)
            with open(self.path / "steps.jsonl") as f:
                self.steps = [json.loads(line) for line in f]
            if len(self.steps) != len(self.pictures):
                raise ValueError(f"{len(self.pictures)} pictures but {len(self.steps)} steps")
        except (OSError, ValueError) as e:
            raise ValueError(f"{self.path} is not a whole recording ({e}); delete the folder") from None

    @staticmethod
    def _record(folder, stream, n, drawn, quiet):
        jobs, n_steps = [(stream, range(n)[i:i + 50], drawn) for i in range(0, n, 50)], 0
        with tqdm(total=n, desc=f"drawing {stream.__name__}", unit="", disable=quiet) as bar, \
                open(folder / "pictures.u8", "wb") as pictures, open(folder / "steps.jsonl", "w") as steps:
            for done, frames, lines in in_processes(_draw, jobs):
                if lines:
                    frames.tofile(pictures)
                    steps.write("\n".join(lines) + "\n")
                n_steps += len(lines)
                bar.update(done)
        if not n_steps:
            raise ValueError(f"the expert succeeded in none of {n} episodes; record more")

    def _ask(self, step, rng):
        """a question of one of the types, by chance; None if the picture does not allow it"""
        types = self.question_types
        return web.ask(step["facts"], types[rng.integers(len(types))], rng) if types else None

    def texts(self):
        return corpus(self.vocabulary)

    @staticmethod
    def _check(settings, count):
        """what tables of both formats must get right; count: the key that says how much is recorded"""
        if settings["vocabulary"] not in VOCABULARIES:
            raise ValueError(f"vocabulary = {settings['vocabulary']!r}; there are: {', '.join(VOCABULARIES)}")
        for name in settings["questions"]:
            if name not in web.QUESTIONS:
                raise ValueError(f"questions has {name!r}; there are: {', '.join(web.QUESTIONS)}")
        for name, n in ((count, settings[count]), *settings["questions"].items()):
            if type(n) is not int or n < 1:
                raise ValueError(f"{name} = {n!r}; it must be a whole number, at least 1")


class Demonstrations(Recorded):
    """
    Demonstrations of the built-in robot, by its scripted expert.

        vocabulary      which things there are: small, medium or full (scene.VOCABULARIES)
        skills          what is demonstrated (scene.SKILLS)
        episodes        how many, before the few that fail are dropped
        days            each with the light, the table and the camera of its own day
        wordings        each told in words of its own: "bring the red item to the apple"
        questions       what else is asked about the robot's pictures (web.QUESTIONS), and how often
        wishes          twice as many rows; in the second half the instruction is a wish ("I am thirsty")
        plans           the thought after a wish begins with a plan: " Plan: pick red can."

    Example, with wishes: log.request(i, rng)
        -> ("Q: what action should the robot take to move apple near red can? A:", "")
        -> ("Instruction: I am thirsty.", " Plan: pick red can.")              in the second half
    """
    options = {"vocabulary": "small", "skills": ["pick", "move near"], "episodes": 4000, "days": False,
               "wordings": False, "questions": {"gripper": 1, "height": 1, "held": 1, "locate": 1, "way": 3},
               "wishes": False, "plans": True}
    names, bounds = scene.ACTION_NAMES, (scene.ACTION_LOW, scene.ACTION_HIGH)
    lines = staticmethod(trials.lines)

    def __init__(self, *, cache, size, quiet, vocabulary, skills, episodes, days, wordings, questions, wishes,
                 plans):
        drawn = dict(vocabulary=vocabulary, skills=skills, size=size, days=days, wordings=wordings)
        self.read(scene.episodes, episodes, drawn, questions, cache, quiet)
        self.vocabulary, self.plans = vocabulary, plans
        self.rows = np.arange(len(self.steps))              # row -> its step
        self.episode = np.array([step["episode"] for step in self.steps])
        if wishes:
            self.rows = np.concatenate((self.rows, self._wish_rows()))
        self.actions = np.array([step["action"] for step in self.steps])[self.rows]
        self.episode = self.episode[self.rows]

    @classmethod
    def check(cls, settings):
        cls._check(settings, "episodes")
        names, skills = VOCABULARIES[settings["vocabulary"]]["robot"], settings["skills"]
        if not skills:
            raise ValueError("skills is empty; it needs at least one")
        for skill in skills:
            if skill not in scene.SKILLS:
                raise ValueError(f"skills has {skill!r}; there are: {', '.join(scene.SKILLS)}")
            if skill in ("put into", "take out") and not any(KINDS[n.split()[-1]].container for n in names):
                raise ValueError(f"skills has {skill!r}, which needs a bowl; there is one only if "
                                 "vocabulary = \"full\"")

    def _wish(self, step, rng):
        """the instruction of a step, said as a wish; None if it cannot be"""
        return web.wish_for([f["name"] for f in step["facts"] if f["name"] != "gripper"], step["task"], rng)

    def _wish_rows(self):
        """
        As many rows as there are steps, of steps whose instruction can be said as a wish: half of them to
        pick and half to move, although one is rarer. Whole episodes follow each other, so that the row
        before a row is mostly the step before it (data.RobotData.previous).
        """
        groups, rng = {}, np.random.default_rng(0)
        for rows in np.split(self.rows, np.flatnonzero(np.diff(self.episode)) + 1):
            step = self.steps[rows[0]]
            if self._wish(step, rng):
                groups.setdefault(step["skill"], []).append(rows)
        if not groups:
            raise ValueError("wishes = true, but no instruction of the recording can be said as a wish; "
                             "record more episodes, with the skill pick or move near")
        wish_rows = []
        for episodes, part in zip(groups.values(), np.array_split(self.rows, len(groups))):
            shuffled = np.concatenate([episodes[k] for k in rng.permutation(len(episodes))])
            wish_rows.append(np.resize(shuffled, len(part)))    # when all are used, from the beginning again
        return np.concatenate(wish_rows)

    def __len__(self):
        return len(self.rows)

    def picture(self, i) -> np.ndarray:
        return self.pictures[self.rows[i]]

    def request(self, i, rng):
        step = self.steps[self.rows[i]]
        if i < len(self.steps):
            return prompt(step["instruction"]), ""
        return wish(self._wish(step, rng)), plan(step["task"]) if self.plans else ""

    def ask(self, i, rng):
        return self._ask(self.steps[self.rows[i]], rng)


class WebPictures(Recorded):
    """
    Pictures that come with no action, and questions about them.

        vocabulary      which things there are, also those that only the web knows: small, medium or full
        pictures        how many
        questions       what is asked about them (web.QUESTIONS), and how often
    """
    options = {"vocabulary": "small", "pictures": 20000,
               "questions": {"locate": 1, "way": 1, "what at": 1, "caption": 1}}

    def __init__(self, *, cache, size, quiet, vocabulary, pictures, questions):
        drawn = dict(size=size, **web.on_the_web(vocabulary))
        self.read(web.web_pictures, pictures, drawn, questions, cache, quiet)
        self.vocabulary = vocabulary

    @classmethod
    def check(cls, settings):
        cls._check(settings, "pictures")
        if not settings["questions"]:
            raise ValueError("questions is empty; it needs at least one type")

    def __len__(self):
        return len(self.steps)

    def picture(self, i) -> np.ndarray:
        return self.pictures[i]

    def ask(self, i, rng):
        return self._ask(self.steps[i], rng)

    @staticmethod
    def quiz(settings, size, n):
        """
        Questions about pictures that no training run has seen, n of each type that the table asks: about
        things that the robot knows, and about things that only the web knows.

        name -> list of (picture, question, answer, tolerance). tolerance: how many cells a place may be off
        """
        found, vocabulary = {}, settings["vocabulary"]
        for question_type in settings["questions"]:
            tolerance = 0 if question_type.startswith(("way", "go")) else 2         # a step is right or wrong
            for things in ("robot", "web"):
                names = VOCABULARIES[vocabulary][things]
                asked = trials.questions(vocabulary, size, question_type, n, names)
                found[f"{question_type}, things of the {things}"] = [(*row, tolerance) for row in zip(*asked)]
        return found
