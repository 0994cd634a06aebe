"""
Where samples come from, and how a sample becomes numbers.

Every sample, robot or web, is one picture and a few questions with answers. Packed, it is four aligned lists: the picture,
the tokens behind it, the number of the question that each token belongs to, and whether it is a target of the loss.

A robot sample (scheme "integer"; the action says: go on, 4 cm away, 4 cm to the left, 8 cm down, no turn, gripper open):

    picture   64 x 64 x 3, which become 16 picture tokens in the model
    tokens    Q: what action should the robot take to pick apple ? A: | 0 192 192 0 128 128 128 255 <eos> | Q: where is ...
    segment   1  1    1      1      1   1     1    1  1    1     1 1  | 1 1   1   1 1   1   1   1   1     | 2  2     2
    target    .  .    .      .      .   .     .    .  .    .     . .  | x x   x   x x   x   x   x   x     | .  .     .

A web sample (no robot; several questions share the picture, and see it and themselves only):

    tokens    Q: where is the duck ? A: | 12 20 <eos> | Q: what is at 25 9 ? A: | apple <eos>
    segment   1  1     1  1   1    1 1  | 1  1  1     | 2  2    2  2  2  2 2 2  | 2     2
    target    .  .     .  .   .    . .  | x  x  x     | .  .    .  .  .  . . .  | x     x

The world's demonstrations and the web's pictures are made once, as logs on disk: data/<kind>-<hash of settings and code>/.
The training code reads logs; it never asks the expert.
"""
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import draw
import web
from tokenizer import ActionTokenizer, Tokenizer, prompt
from world import ACTION_HIGH, ACTION_LOW, INSTRUCTIONS, KINDS, VOCABULARIES, World

ROBOT_QUESTIONS = ("gripper", "height", "held", "locate", "way", "way", "way")


# ---------------------------------------------------------------------------------------------------------------------
# logs: pictures.u8 (N, S, S, 3), and a JSON line for every picture

def episodes(seeds, vocabulary, skills, size, noise=.006):
    """
    The stream of demonstrations: yields for every seed a list of steps {"picture", "action", "facts", "instruction", ...}.
    Only successes are kept, as in the paper. Every second one starts in disorder, four of ten have nothing on the table
    but what the task needs, and what is executed is noisy.
    """
    world = World(vocabulary, skills, size, noise=noise)
    for seed in seeds:
        obs, info = world.reset(seed, wild=seed % 2 == 1, alone=seed % 10 < 4)
        steps, terminated, truncated, reward = [], False, False, 0
        while not (terminated or truncated):
            action, facts = world.expert(), world.facts()
            picture = obs["image"]
            obs, reward, terminated, truncated, info = world.step(action)
            steps.append({"picture": picture, "episode": seed, "instruction": obs["instruction"], "skill": info["skill"],
                          "action": [round(float(a), 7) for a in action], "facts": facts})
        if reward:
            yield steps


def web_pictures(seeds, names, size, cards, faces):
    """the stream of web pictures: one-step "episodes" {"picture", "facts"}"""
    for seed in seeds:
        picture, facts = web.draw_picture(np.random.default_rng([seed, 1]), size, names, cards, faces)
        yield [{"picture": picture, "facts": facts}]


def leave_ctrl_c_to_the_parent(_=None):
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunk(job):
    stream, seeds, settings = job
    steps = [step for episode in stream(seeds, **settings) for step in episode]
    pictures = np.stack([step.pop("picture") for step in steps]) if steps else None
    return len(seeds), pictures, [json.dumps(step, separators=(",", ":")) for step in steps]


class Log:
    """
    A log on disk, made on first use. pictures (N, S, S, 3) uint8, memory-mapped; steps: N dicts.
    stream: a function (seeds, **settings) -> iterator of episodes; n: how many seeds, from 0 on.
    """

    def __init__(self, folder, stream, n, settings, quiet=False):
        here = Path(__file__).parent
        code = b"".join((here / f).read_bytes() for f in ("draw.py", "world.py", "web.py", "data.py"))
        key = hashlib.sha256(code + json.dumps([stream.__name__, n, settings]).encode()).hexdigest()[:12]
        self.path = Path(folder) / f"{stream.__name__}-{key}"
        if not self.path.exists():
            self._make(stream, n, settings, quiet)
        size = settings["size"]
        self.pictures = np.memmap(self.path / "pictures.u8", np.uint8, "r").reshape(-1, size, size, 3)
        with open(self.path / "steps.jsonl") as f:
            self.steps = [json.loads(line) for line in f]
        if len(self.steps) != len(self.pictures):
            raise ValueError(f"{self.path}: {len(self.pictures)} pictures but {len(self.steps)} steps; delete the folder")

    def _make(self, stream, n, settings, quiet):
        jobs = [(stream, range(n)[i:i + 50], settings) for i in range(0, n, 50)]
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.mkdir(parents=True)
        workers = min(len(jobs), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        try:
            with multiprocessing.get_context("spawn").Pool(workers, leave_ctrl_c_to_the_parent) as pool, \
                    tqdm(total=n, desc=f"drawing {stream.__name__}", unit="", disable=quiet) as bar, \
                    open(temporary / "pictures.u8", "wb") as pictures, open(temporary / "steps.jsonl", "w") as steps:
                for done, frames, lines in pool.imap(_chunk, jobs):
                    if lines:
                        frames.tofile(pictures)
                        steps.write("\n".join(lines) + "\n")
                    bar.update(done)
            if not self.path.exists():                      # another run may have made the same one meanwhile
                os.replace(temporary, self.path)            # a log is there whole or not at all
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def __len__(self):
        return len(self.pictures)


# ---------------------------------------------------------------------------------------------------------------------
# samples: a picture and its questions, as token ids

class RobotData:
    """
    Demonstrations as questions: first what to do (the action), then a few questions about the same picture.
    sample(rng) -> picture, list of (prompt ids, answer ids). Every 21st episode is not trained on: held_out=True has those.
    """

    def __init__(self, log: Log, actions: ActionTokenizer, questions=ROBOT_QUESTIONS, text_len=64, held_out=False):
        self.log, self.questions, self.text_len = log, questions, text_len
        self.index = [i for i, step in enumerate(log.steps) if (step["episode"] % 21 == 20) == held_out]
        self.tokenizer = actions.tokenizer
        if not self.index:
            raise ValueError(f"no episode of {log.path} is {'held out' if held_out else 'left to train on'}; raise robot_episodes")
        ids = actions.encode(np.array([step["action"] for step in log.steps]))
        self.actions = [[*row, self.tokenizer.eos] for row in ids.tolist()]
        self.prompts = [self.tokenizer.encode(prompt(step["instruction"])) for step in log.steps]

    def sample(self, rng):
        i = self.index[rng.integers(len(self.index))]
        first = [(self.prompts[i], self.actions[i])]
        facts = self.log.steps[i]["facts"]
        return self.log.pictures[i], _fill(first, facts, self.questions, self.text_len, self.tokenizer, rng)


class WebData:
    """Web pictures with questions. sample(rng) -> picture, list of (prompt ids, answer ids)."""

    def __init__(self, log: Log, tokenizer: Tokenizer, questions=tuple(web.QUESTIONS), text_len=64):
        self.log, self.questions, self.text_len, self.tokenizer = log, questions, text_len, tokenizer

    def sample(self, rng):
        i = int(rng.integers(len(self.log)))
        facts = self.log.steps[i]["facts"]
        return self.log.pictures[i], _fill([], facts, self.questions, self.text_len, self.tokenizer, rng)


def _fill(questions, facts, kinds, text_len, tokenizer, rng):
    """add different questions of random kinds about the picture until the text is full"""
    asked, length = set(), sum(len(p) + len(a) for p, a in questions)
    for _ in range(20):
        question = web.ask(facts, kinds[rng.integers(len(kinds))], rng)
        if question is None or question in asked:
            continue
        p, a = tokenizer.encode(question[0]), [*tokenizer.encode(question[1]), tokenizer.eos]
        if length + len(p) + len(a) > text_len:
            break
        asked.add(question)
        questions.append((p, a))
        length += len(p) + len(a)
    return questions


def pack(questions, text_len):
    """
    A list of (prompt ids, answer ids) -> tokens, segment, target: lists of text_len, padded with 0, -1 and False.
    Example: pack([([5, 6], [7]), ([8], [9])], 6) -> [5, 6, 7, 8, 9, 0], [1, 1, 1, 2, 2, -1], [F, F, T, F, T, F]
    """
    tokens, segment, target = [], [], []
    for n, (p, a) in enumerate(questions, start=1):
        tokens += [*p, *a]
        segment += [n] * (len(p) + len(a))
        target += [False] * len(p) + [True] * len(a)
    empty = text_len - len(tokens)
    if empty < 0:
        raise ValueError(f"a sample of {len(tokens)} tokens does not fit text_len = {text_len}; raise text_len")
    return tokens + [0] * empty, segment + [-1] * empty, target + [False] * empty


class Mix(torch.utils.data.Dataset):
    """
    The co-training mix: item number `step` is the whole batch of that step, fixed by (seed, step, rank) alone, so that a
    resumed run goes on with the very samples that an uninterrupted one would see. robot_fraction: the share of robot
    samples in every batch (paper: about 0.5 for PaLI-X, 0.66 for PaLM-E), once the first `pretrain` steps are over.
    """

    def __init__(self, robot, web, batch_size, robot_fraction, text_len, pretrain=0, seed=0, rank=0):
        self.robot, self.web, self.batch_size, self.text_len = robot, web, batch_size, text_len
        self.robot_fraction, self.pretrain, self.seed, self.rank = robot_fraction, pretrain, seed, rank

    def __len__(self):
        return 2 ** 62

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step, self.rank])
        n_robot = round(self.batch_size * self.robot_fraction) if step >= self.pretrain else 0
        samples = [(self.robot if i < n_robot else self.web).sample(rng) for i in range(self.batch_size)]
        tokens, segment, target = zip(*(pack(questions, self.text_len) for _, questions in samples))
        return {"images": torch.from_numpy(np.stack([picture for picture, _ in samples])),
                "tokens": torch.tensor(tokens), "segment": torch.tensor(segment), "target": torch.tensor(target),
                "robot": torch.arange(self.batch_size) < n_robot}


# ---------------------------------------------------------------------------------------------------------------------
# the vocabulary

def corpus(vocabulary: str, n: int = 4000):
    """text that the tokenizer is trained on: instructions, and questions about pictures that are never drawn"""
    rng = np.random.default_rng(0)
    names = VOCABULARIES[vocabulary]
    everything = [*names["robot"], *names["web"]]
    for _ in range(n):
        a, b = rng.choice(names["robot"], 2)
        yield prompt(INSTRUCTIONS[str(rng.choice(list(INSTRUCTIONS)))].format(a=a, b=b))
        facts = [{"name": str(name), "column": rng.random(), "row": rng.random(), "x": rng.uniform(-.2, .2),
                  "y": rng.uniform(-.2, .2), "category": KINDS[name.split()[-1]].category}
                 for name in rng.choice(everything, 3, replace=False)]
        if vocabulary == "full":
            facts += [{"name": str(rng.choice(list(draw.CARDS))), "column": .5, "row": .5, "x": .1, "y": 0, "card": True},
                      {"name": f"person with {rng.choice(web.FACES['hair'])} hair", "column": .2, "row": .5, "x": 0, "y": .1,
                       "face": {w: bool(rng.random() < .5) for w in web.FACES["wears"]}}]
        facts += [{"name": "gripper", "column": .3, "row": .3, "x": 0, "y": 0, "height": 9, "held": "nothing"}]
        for kind in web.QUESTIONS:
            question = web.ask(facts, kind, rng)
            if question:
                yield "".join(question)


def make_tokenizer(vocabulary: str, scheme: str = "integer", n_vocab: int = 4096) -> ActionTokenizer:
    """the project's own vocabulary, with the world's bounds for the eight numbers"""
    return ActionTokenizer(Tokenizer.train(corpus(vocabulary), n_vocab), ACTION_LOW, ACTION_HIGH, scheme)
