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

The text is packed; the picture comes from a log. The world's demonstrations and the web's pictures are recorded once, on first
use, in data/<kind>-<hash of settings and code>/ (the training code reads logs; it never asks the expert). Logs and pictures of
other people are read where they lie (formats/). A log, whoever made it, answers picture(i), instruction(i), actions[i], ask(i, ...).
"""
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from formats.log import Log, in_processes, make_folder, open_log
from tokenizer import ActionTokenizer, Tokenizer, plan, prompt, wish
from world import web
from world.scene import ACTION_HIGH, ACTION_LOW, ACTION_NAMES, INSTRUCTIONS, KINDS, VOCABULARIES, WORDINGS, episodes

# what any source may say of itself; what else it may say, its reader knows (formats/)
SOURCE = {"robot": {"weight": float, "hold_out": int, "augment": bool, "n_bins": int}, "web": {"weight": float}}
EASY = ("locate", "way", "what at", "caption")
ROBOT_QUESTIONS = ("gripper", "height", "held", "locate", "way", "way", "way")


# ---------------------------------------------------------------------------------------------------------------------
# logs of the built-in world and web: pictures.u8 (N, S, S, 3), and a JSON line for every picture

def _chunk(job):
    stream, seeds, settings = job
    steps = [step for episode in stream(seeds, **settings) for step in episode]
    pictures = np.stack([step.pop("picture") for step in steps]) if steps else None
    return len(seeds), pictures, [json.dumps(step, separators=(",", ":")) for step in steps]


class WorldLog:
    """
    A log of the world or of its web, recorded on first use. pictures (N, S, S, 3) uint8, memory-mapped; steps: N dicts.
    stream: world.episodes or web.web_pictures, a function (seeds, **settings) -> iterator of episodes; n: how many seeds, from 0 on.
    """
    names, previous = ACTION_NAMES, Log.previous

    def __init__(self, folder, stream, n, settings, quiet=False):
        here = Path(__file__).parent / "world"
        code = b"".join((here / f).read_bytes() for f in ("draw.py", "scene.py", "web.py"))
        key = hashlib.sha256(code + json.dumps([stream.__name__, n, settings]).encode()).hexdigest()[:12]
        self.path = Path(folder) / f"{stream.__name__}-{key}"
        if not self.path.exists():
            make_folder(self.path, lambda empty: self._record(empty, stream, n, settings, quiet))
        size = settings["size"]
        self.pictures = np.memmap(self.path / "pictures.u8", np.uint8, "r").reshape(-1, size, size, 3)
        with open(self.path / "steps.jsonl") as f:
            self.steps = [json.loads(line) for line in f]
        if len(self.steps) != len(self.pictures):
            raise ValueError(f"{self.path}: {len(self.pictures)} pictures but {len(self.steps)} steps; delete the folder")
        if self.steps and "action" in self.steps[0]:
            self.actions = np.array([step["action"] for step in self.steps])
            self.episode = np.array([step["episode"] for step in self.steps])
            self.texts = list(dict.fromkeys(step["instruction"] for step in self.steps))

    @staticmethod
    def _record(folder, stream, n, settings, quiet):
        jobs = [(stream, range(n)[i:i + 50], settings) for i in range(0, n, 50)]
        with tqdm(total=n, desc=f"drawing {stream.__name__}", unit="", disable=quiet) as bar, \
                open(folder / "pictures.u8", "wb") as pictures, open(folder / "steps.jsonl", "w") as steps:
            for done, frames, lines in in_processes(_chunk, jobs):
                if lines:
                    frames.tofile(pictures)
                    steps.write("\n".join(lines) + "\n")
                bar.update(done)

    def __len__(self):
        return len(self.pictures)

    def instruction(self, i) -> str:
        return self.steps[i]["instruction"]

    def picture(self, i) -> np.ndarray:
        return self.pictures[i]

    def ask(self, i, rng, kinds):
        """a question about picture i of one of the kinds, by chance; None if the picture does not allow it"""
        return web.ask(self.steps[i]["facts"], kinds[rng.integers(len(kinds))], rng)

    def thought(self, i, rng):
        """the instruction of step i, said so that it takes a thought (web.thought), or None"""
        return web.thought([f["name"] for f in self.steps[i]["facts"] if f["name"] != "gripper"], self.steps[i]["task"], rng)

    def goals(self, i):
        """what shall be taken at step i and where it shall go (World.goals), as the web says places. Example: " 12 20 3 4" """
        return "".join(map(web.place, self.steps[i]["goals"]))

    @staticmethod
    def bounds():
        return ACTION_LOW, ACTION_HIGH


# ---------------------------------------------------------------------------------------------------------------------
# samples: a picture and its questions, as token ids

def fit(picture, size, box=None):
    """a picture (H, W, 3) uint8 of any size -> (size, size, 3); box: the part of it to take, (left, top, right, bottom) in pixels"""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"a picture must be (height, width, 3) uint8, got {picture.shape} {picture.dtype}; convert it to RGB bytes")
    if picture.shape[:2] == (size, size) and box is None:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR, box))


def jitter(pictures, size, rng):
    """the same random part (at least 0.9 of each side), brightness and contrast (0.8 to 1.2) of all pictures of a sample"""
    H, W, _ = pictures[0].shape
    side, left, top = rng.uniform(.9, 1), rng.random(), rng.random()
    box = (left * (1 - side) * W, top * (1 - side) * H, (left * (1 - side) + side) * W, (top * (1 - side) + side) * H)
    light, contrast = rng.uniform(.8, 1.2, 2)
    pictures = [fit(picture, size, box).astype(np.float32) for picture in pictures]
    return [((p - p.mean()) * contrast + p.mean() * light).clip(0, 255).astype(np.uint8) for p in pictures]


class RobotData:
    """
    Demonstrations as questions: first what to do (the action), then a few questions about the same picture where the log allows any.
    sample(rng) -> pictures, list of (prompt ids, answer ids); pictures (S, S, 3), or (F, S, S, 3) for frames = F: the picture of the
    step and those before it, the last one last. Every hold_out-th episode is not trained on: held_out=True has those.
    thoughts: the share of samples whose instruction takes a thought, as often to pick as to move; with a plan they read

        Instruction: I am thirsty. | Plan: pick red can. Action: 0 192 192 0 128 128 128 255 <eos>

    points: an action begins with two places in the picture, of what is to be taken and where it is to go, in the words of the web

        Q: what action should the robot take to move apple near red can? A: | 12 20 3 4 0 192 192 0 128 128 128 255 <eos>
    """

    def __init__(self, log, actions: ActionTokenizer, questions=ROBOT_QUESTIONS, text_len=64, size=None, frames=1, hold_out=21,
                 held_out=False, augment=False, thoughts=0.0, plans=True, points=False):
        self.log, self.questions, self.text_len, self.frames, self.augment = log, questions, text_len, frames, augment
        self.size, self.tokenizer, self.actions = size or log.picture(0).shape[0], actions.tokenizer, actions
        self.index = np.flatnonzero((np.asarray(log.episode) % hold_out == hold_out - 1) == held_out)
        if not len(self.index):
            raise ValueError(f"no episode of {log.path} is {'held out' if held_out else 'left to train on'}: every {hold_out}th "
                             "is held out; record more episodes, or set another hold_out in its table")
        chunks = np.array_split(self.index, 1 + len(self.index) // 100_000)
        self.answers = np.concatenate([actions.encode(log.actions[i], quiet=True).astype(np.int32) for i in chunks])     # (n, D)
        self.prompts = {text: self.tokenizer.encode(prompt(text)) for text in log.texts}
        if actions.scheme == "overwrite":
            lost = [text for text, ids in self.prompts.items() if set(ids) & set(actions.ids.tolist())]
            if lost:
                warnings.warn(f"{log.path}: {len(lost)} instructions have words whose tokens now mean bins, such as {lost[0]!r}")
        longest = max(self.prompts, key=lambda text: len(self.prompts[text]))
        needed = len(self.prompts[longest]) + 4 * points + len(actions.names) + 1
        if needed > text_len:
            raise ValueError(f"{log.path}: {longest!r} and its action take {needed} tokens; raise text_len = {text_len}")
        self.thoughts, self.plans, self.points, groups = thoughts, plans, points, {}
        if points and not hasattr(log, "goals"):
            raise ValueError(f"{log.path}: only the built-in world knows the places of what is meant; set points = false")
        if thoughts and not hasattr(log, "thought"):
            raise ValueError(f"{log.path}: only the built-in world knows thoughts behind instructions; set thoughts = 0")
        for n, i in enumerate(self.index if thoughts else ()):
            if log.thought(i, np.random.default_rng(0)):
                groups.setdefault(log.steps[i]["skill"], []).append(n)
        self.thoughtful = list(groups.values())             # steps to pick, steps to move
        if thoughts and not groups:
            raise ValueError(f"{log.path}: no instruction can be said so that it takes a thought; set thoughts = 0")

    def pictures(self, i):
        """the pictures that the model sees at step i, as they are in the log: a list of F"""
        steps = [i]
        for _ in range(self.frames - 1):
            steps.insert(0, self.log.previous(steps[0]))
        return [self.log.picture(j) for j in steps]

    def sample(self, rng, n=None):
        """n: which of its own steps to take; without it a random one"""
        said = None
        if self.thoughts and rng.random() < self.thoughts:
            group = self.thoughtful[rng.integers(len(self.thoughtful))]
            n = group[rng.integers(len(group))]
            said = self.log.thought(self.index[n], rng)
        n = rng.integers(len(self.index)) if n is None else n
        i, answer = self.index[n], [*self.answers[n].tolist(), self.tokenizer.eos]
        if self.points:
            answer = [*self.tokenizer.encode(self.log.goals(i)), *answer]
        first = [(self.prompts[self.log.instruction(i)], answer)]
        if said:
            words = plan(self.log.steps[i]["task"] if self.plans else "")
            first = [(self.tokenizer.encode(wish(said)), [*self.tokenizer.encode(words), *answer])]
        seen = self.pictures(i)
        seen = jitter(seen, self.size, rng) if self.augment else [fit(picture, self.size) for picture in seen]
        return stack(seen), _fill(first, lambda: self.log.ask(i, rng, self.questions), self.text_len, self.tokenizer)


class WebData:
    """Pictures without a robot, with questions. sample(rng) -> pictures, list of (prompt ids, answer ids), as RobotData has them."""

    def __init__(self, log, tokenizer: Tokenizer, questions=tuple(web.QUESTIONS), text_len=64, size=None, frames=1):
        self.log, self.questions, self.text_len, self.tokenizer = log, questions, text_len, tokenizer
        self.size, self.frames = size or log.picture(0).shape[0], frames

    def sample(self, rng):
        for _ in range(100):
            i = int(rng.integers(len(self.log)))
            questions = _fill([], lambda: self.log.ask(i, rng, self.questions), self.text_len, self.tokenizer)
            if questions:
                # a web picture stands still: it was the same a moment ago
                return stack([fit(self.log.picture(i), self.size)] * self.frames), questions
        raise ValueError(f"{self.log.path}: no question of 100 pictures fits text_len = {self.text_len}; raise it")


def stack(pictures):
    return np.stack(pictures) if len(pictures) > 1 else pictures[0]


def _fill(questions, ask, text_len, tokenizer):
    """add different questions, as ask() finds them, until the text is full"""
    asked, length = set(), sum(len(p) + len(a) for p, a in questions)
    for _ in range(20):
        question = ask()
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
    The co-training mix. Item (step, part) is one of the n_parts parts of the batch of that step, fixed by (seed, step, part)
    alone, so that a resumed run goes on with the very samples that an uninterrupted one would see, on however many ranks.

    robots, webs: lists of (data, weight); easy: the same, of what the first easy_steps see instead of webs.
    robot_fraction: the share of robot samples in every batch (paper: about 0.5 for PaLI-X, 0.66 for PaLM-E), once the first `pretrain`
    steps are over. Within each half, sources are drawn by their weights.
    An item is a dict: images (n, [F,] S, S, 3) uint8, tokens, segment (n, T) int64, target (n, T) bool, source (n,): which of the
    robots a row comes from, -1 = web, and shift (n,): how many positions farther on its words stand, by chance, at most
    `shift` and not before step shift_from.
    """

    def __init__(self, robots, webs, batch_size, robot_fraction, text_len, pretrain=0, seed=0, n_parts=1, easy=(), easy_steps=0, shift=0, shift_from=0):
        self.robots, self.webs, self.batch_size, self.text_len = robots, webs, batch_size, text_len
        self.easy, self.easy_steps, self.shift, self.shift_from = easy, easy_steps, shift, shift_from
        self.robot_fraction, self.pretrain, self.seed, self.n_parts = robot_fraction, pretrain, seed, n_parts

    def __getitem__(self, item):
        step, part = item
        rng = np.random.default_rng([self.seed, step, part])
        n_robot = round(self.batch_size * self.robot_fraction) if step >= self.pretrain else 0
        samples, source, shift = [], [], []
        for row in range(part, self.batch_size, self.n_parts):          # robot and web in every part
            sources = self.robots if row < n_robot else self.easy if step < self.easy_steps else self.webs
            k = self.draw(sources, rng)
            samples.append(sources[k][0].sample(rng))
            source.append(k if row < n_robot else -1)
            longest = max(len(p) + len(a) for p, a in samples[-1][1])
            shift.append(rng.integers(min(self.shift, self.text_len - longest) + 1) if self.shift and step >= self.shift_from else 0)
        tokens, segment, target = zip(*(pack(questions, self.text_len) for _, questions in samples))
        return {"images": torch.from_numpy(np.stack([pictures for pictures, _ in samples])),
                "tokens": torch.tensor(tokens), "segment": torch.tensor(segment), "target": torch.tensor(target),
                "source": torch.tensor(source), "shift": torch.tensor(shift)}

    @staticmethod
    def draw(sources, rng):
        if len(sources) == 1:
            return 0
        weights = np.cumsum([weight for _, weight in sources])
        return int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))


# ---------------------------------------------------------------------------------------------------------------------
# the vocabulary

def corpus(vocabulary: str, n: int = 4000):
    """text that the tokenizer is trained on: instructions, and questions about pictures that are never drawn"""
    rng = np.random.default_rng(0)
    names, shown = VOCABULARIES[vocabulary], on_the_web(vocabulary)
    for _ in range(n):
        a, b = rng.choice(names["robot"], 2)
        yield prompt(INSTRUCTIONS[str(rng.choice(list(INSTRUCTIONS)))].format(a=a, b=b))
        if shown["cards"]:
            wordings = [text for texts in WORDINGS.values() for text in texts]
            yield prompt(str(rng.choice(wordings)).format(a=a, b="red item"))
        facts = [{"name": str(name), "column": rng.random(), "row": rng.random(), "x": rng.uniform(-.2, .2),
                  "y": rng.uniform(-.2, .2), "category": KINDS[name.split()[-1]].category}
                 for name in rng.choice(shown["names"], 3, replace=False)]
        if shown["cards"]:
            card, hair = str(rng.choice(shown["cards"])), str(rng.choice(shown["hair"]))
            facts += [{"name": card, "column": .5, "row": .5, "x": .1, "y": 0, "category": web.CARD_CATEGORY[card]},
                      {"name": f"person with {hair} hair", "column": .2, "row": .5, "x": 0, "y": .1,
                       "face": web.someone(rng, hair, shown["wears"])}]
        facts += [{"name": "gripper", "column": .3, "row": .3, "x": 0, "y": 0, "height": 9, "held": "nothing"}]
        for kind in [k for k in web.QUESTIONS if k != "wish"] if shown["cards"] else web.PLAIN:      # wishes: below, each as often
            question = web.ask(facts, kind, rng)
            if question:
                yield "".join(question)
    if shown["cards"]:                                      # words of questions that chance would rarely allow, and of wishes
        yield from ["Q: where is the thing that is different? A:", "Q: where is the smallest number? A: the largest number"] * 20
        for said in (*web.THOUGHTS, *(text.format("red") for text in web.TOGETHER)):
            yield from [wish(said) + plan("pick apple")] * 20


# ---------------------------------------------------------------------------------------------------------------------
# from a configuration (train.Config) to samples

def on_the_web(vocabulary: str, easy=False) -> dict:
    """what web pictures show, as web.draw_picture takes it; easy: what the robot knows, and nothing else"""
    names = {**VOCABULARIES[vocabulary], **({"pairs": (), "web": (), "cards": (), "hair": (), "mats": ()} if easy else {})}
    return dict(names=[*names["robot"], *names["pairs"], *names["web"]], cards=[*names["cards"], *names["mats"]], hair=list(names["hair"]),
                wears=list(names["wears"]))


def open_source(c, half: str, table: dict, quiet=False):
    """the log that one table [[robot]] or [[web]] of the configuration names, recorded or indexed on first use"""
    if table["format"] == "world":
        for key in table.keys() - {"format", "name", *SOURCE[half]}:
            raise ValueError(f"[[{half}]] of format \"world\" has no key {key!r}; its settings are the preset's own (--help)")
        if half == "robot":
            settings = dict(vocabulary=c.vocabulary, skills=c.skills, size=c.image_size, days=c.days, wordings=c.wordings)
            return WorldLog(c.data_dir, episodes, c.robot_episodes, settings, quiet)
        return WorldLog(c.data_dir, web.web_pictures, c.web_pictures, dict(size=c.image_size, **on_the_web(c.vocabulary)), quiet)
    keys = {k: v for k, v in table.items() if k not in ("format", "path", "name", *SOURCE[half])}
    return open_log(half, table["format"], table["path"], c.data_dir, quiet, **keys)


def open_sources(c, pretrain: int, quiet=False):
    """all of them, as two dicts name -> (log, its table); a half that the run does not use stays unopened: its dict is empty"""
    found = {"robot": {}, "web": {}}
    for half, needed in (("robot", c.robot_fraction > 0), ("web", c.robot_fraction < 1 or pretrain)):
        for table in getattr(c, half) if needed else ():
            name = source_name(table)
            if name in found[half]:
                raise ValueError(f"two sources of [[{half}]] are called {name!r}; give each a name of its own (name = ...)")
            found[half][name] = open_source(c, half, table, quiet), table
            if not quiet and table["format"] != "world":
                print(f"{name}: {found[half][name][0].summary()}")
        if needed and not found[half]:
            raise ValueError(f"robot_fraction = {c.robot_fraction} and pretrain_steps = {pretrain} need a source under [[{half}]]")
    return found["robot"], found["web"]


def source_name(table) -> str:
    return table.get("name", table["format"])


def make_tokenizer(c, robots, webs) -> Tokenizer:
    """GPT-2's vocabulary from its files, or one trained on the texts of all sources"""
    if c.tokenizer_from:
        return Tokenizer.gpt2(c.tokenizer_from)

    def texts():
        if any(table["format"] == "world" for table in (*c.robot, *c.web)):
            yield from corpus(c.vocabulary)
        for log, table in robots.values():
            yield from map(prompt, log.texts if table["format"] != "world" else ())
        for log, table in webs.values():
            rng = np.random.default_rng(0)
            for i in rng.permutation(len(log))[:20_000] if table["format"] != "world" else ():
                yield "".join(log.ask(int(i), rng, None))
    return Tokenizer.train(texts(), c.n_vocab)


def make_actions(c, robots, tokenizer: Tokenizer, state=None) -> dict:
    """name -> ActionTokenizer of every robot: the checkpoint's, or one with the bounds of its log (the world's are always known)"""
    known = {name: ActionTokenizer.from_state(saved, tokenizer) for name, saved in (state["robots"] if state else {}).items()}
    actions = {}
    for table in c.robot:
        name = source_name(table)
        log = robots[name][0] if name in robots else WorldLog if table["format"] == "world" else None
        if name in known and log and known[name].names != tuple(log.names):
            raise ValueError(f"robot {name!r}: the checkpoint has the numbers {known[name].names}, the log {tuple(log.names)}; "
                             "give the log another name")
        if name in known:
            actions[name] = known[name]
            if known[name].n_bins != table.get("n_bins", known[name].n_bins):
                raise ValueError(f"robot {name!r}: the checkpoint has n_bins = {known[name].n_bins}; leave it, or give another name")
            a = np.asarray(log.actions)[:100_000] if name in robots else known[name].low[None]
            outside = ((a < known[name].low) | (a > known[name].high)).mean()
            if outside > .05:
                raise ValueError(f"robot {name!r}: {outside:.0%} of the log's numbers are outside the checkpoint's bounds; "
                                 "it is another robot: give it another name (name = ...)")
        elif log:
            actions[name] = ActionTokenizer(tokenizer, *log.bounds(), c.scheme, log.names, table.get("n_bins", 256))
    return actions


def make_data(c, robots, webs, actions: dict, tokenizer: Tokenizer, pretrain: int, quiet=False):
    """the mix of all sources, and batches of the demonstrations held out"""
    shape = dict(text_len=c.text_len, size=c.image_size, frames=c.frames)

    def robot_data(held_out):
        return [(RobotData(log, actions[name], hold_out=table.get("hold_out", 21), held_out=held_out, **shape,
                                augment=table.get("augment", False) and not held_out, thoughts=0 if held_out else c.thoughts,
                                plans=c.plans, points=c.points), table.get("weight", 1.0))
                for name, (log, table) in robots.items()]
    web_data = [(WebData(log, tokenizer, c.web_questions, **shape), table.get("weight", 1.0)) for log, table in webs.values()]
    easy, easy_steps = [], min(c.easy_steps, pretrain)
    if easy_steps:
        log = WorldLog(c.data_dir, web.web_pictures, c.web_pictures // 2, dict(size=c.image_size, **on_the_web(c.vocabulary, easy=True)), quiet)
        easy = [(WebData(log, tokenizer, EASY, **shape), 1.0)]
    mix = Mix(robot_data(False), web_data, c.batch_size, c.robot_fraction, c.text_len, pretrain, c.seed, c.micro_batches, easy, easy_steps, c.shift,
              0 if c.init_from else c.shift_from)
    return mix, robots and Mix(robot_data(True), [], 128, 1.0, c.text_len)
