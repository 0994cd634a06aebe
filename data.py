"""
Where samples come from, and how a sample becomes numbers.

A sample is one picture and a few questions with answers, from a robot or from the web. pack() makes aligned
lists of it: the tokens, the number of the question that each belongs to, and what each token is: asked (no
loss), said (loss), or one of the numbers of an action (loss).

A robot sample. The action says: go on, 4 cm away, 4 cm to the left, 8 cm down, no turn, gripper open. In
the rows label: . asked, s said, a action.

    picture   64 x 64 x 3, which become 16 picture tokens in the model
    tokens    Q: what action should the robot take to pick apple ? A: | 0 192 192 0 128 128 128 255 <eos>
    segment   1  1    1      1      1   1     1    1  1    1     1 1  | 1 1   1   1 1   1   1   1   1
    label     .  .    .      .      .   .     .    .  .    .     . .  | a a   a   a a   a   a   a   s

With a thought (section 4.4), words come before the action, and " Action:" ends them:

    tokens    Instruction: I am thirsty. | Plan: pick red can. Action: | 0 192 192 0 128 128 128 255 <eos>
    label     .          . . .  .      . | s   s s    s   s  s s       | a a   a   a a   a   a   a   s

A web sample. There is no robot; several questions share the picture, and each sees the picture and itself
only.

    tokens    Q: where is the duck ? A: | 12 20 <eos> | Q: what is at 25 9 ? A: | apple <eos>
    segment   1  1     1  1   1    1 1  | 1  1  1     | 2  2    2  2  2  2 2 2  | 2     2
    label     .  .     .  .   .    . .  | s  s  s     | .  .    .  .  .  . . .  | s     s

Pictures and words come from a Log. Whoever made it, a log gives the same five things (class Log), and
nothing else in this project knows where samples come from.
"""
import functools
import importlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from tokenizer import ActionTokenizer, Tokenizer

# labels of tokens; all but ASKED have loss. SAID: words; ACTION: a number of an action
ASKED, SAID, ACTION = 0, 1, 2

# format -> the class that reads it, opened by name when a preset asks for it. A format of your own is one
# more line.
FORMATS = {"robot": {"world": "world.record:Demonstrations", "folder": "formats.folder:Folder",
                     "rlds": "formats.rlds:RLDS", "lerobot": "formats.lerobot:LeRobot"},
           "web": {"world": "world.record:WebPictures", "vqa": "formats.folder:VQA"}}
# keys of a table [[robot]] or [[web]] in any format; Log.options has those of one format. weight: its share
# among the tables of its side; hold_out: see held_out_episodes(); augment: see jitter(); chunk: see Robot
COMMON = {"robot": {"name": "", "weight": 1.0, "hold_out": 21, "augment": False, "n_bins": 256, "chunk": 1},
          "web": {"name": "", "weight": 1.0}}


# --------------------------------------------------------------------------------------------------------
# logs

class Log:
    """
    A source of samples, by number. RT-2 asks five things of it:

        names, bounds, actions, episode     robot logs only: names of the D numbers, "terminate" first;
                                            (low, high), each of D; (N, D), in the log's own units; (N,) int,
                                            the episode of each step
        len(log), picture(i)                (H, W, 3) uint8, of any size; where cameras names several, a list
                                            of such pictures
        request(i, rng)                     robot logs only: what the robot was told at step i, as a prompt,
                                            and the thought that comes before the action ("" for plain RT-2)
        ask(i, rng)                         one more question about picture i, and its answer; or None
        texts()                             text that holds the words of the log, for the tokenizer to learn
                                            them from

    Example: log.request(7, rng) -> ("Q: what action should the robot take to pick apple? A:", "")
             log.ask(7, rng)     -> ("Q: where is the duck? A:", " 12 20")

    categories: the values of those numbers that choose rather than measure (class ActionTokenizer).
    last_action_counts: the log has no terminate of its own. So terminate = 1 is written beside its last
    action, which the robot did carry out. Else, as in the paper, a step with terminate = 1 moves nothing.

    options: the keys of its table in a preset, key -> default value, or key -> type where it must be given. A
    value has the type of its default. A list holds strings; a single string becomes a list of one. check()
    looks at what is in a dict. fingerprint changes when what the log gives changes.

    Two class methods are optional, and eval.report() calls them. lines(settings, size) lists environments, as
    arguments of eval.Line; without it a robot is measured on its held-out episodes. quiz(settings, size, n)
    gives questions about pictures that training never saw: name -> [(picture, question, answer, tolerance)].
    """
    options, fingerprint = {}, ""
    cameras, categories, last_action_counts = ("",), {}, False

    def __init__(self, *, cache, size, quiet, **options):
        """cache: folder for recordings and indexes; size: pixels a side, for logs that are drawn"""
        raise NotImplementedError

    @classmethod
    def check(cls, settings: dict):
        """ValueError if options of the right type make no sense"""

    def ask(self, i, rng):
        return None

    def summary(self) -> str:
        """one line for people, printed when the log is opened"""
        return ""


def log_class(side: str, format: str):
    """Example: log_class("web", "vqa") -> formats.folder.VQA"""
    if type(format) is not str or format not in FORMATS[side]:
        raise ValueError(f"format = {format!r} under [[{side}]]; use one of: {', '.join(FORMATS[side])}")
    module, name = FORMATS[side][format].split(":")
    return getattr(importlib.import_module(module), name)


def settings_of(side: str, table: dict) -> dict:
    """
    One table [[robot]] or [[web]] of a preset, checked and completed with the defaults of its format.

    Example: settings_of("web", {"format": "vqa", "path": "data/vqa"})
        -> {"format": "vqa", "name": "vqa", "weight": 1.0, "path": "data/vqa", "outside": False}
    """
    if "format" not in table:
        raise ValueError(f"a table [[{side}]] needs a format, one of: {', '.join(FORMATS[side])}; "
                         f"it says {table}")
    kind = log_class(side, table["format"])
    options, settings = {**COMMON[side], **kind.options}, {"format": table["format"]}
    where = f"[[{side}]] of format {table['format']!r}"
    for key in table.keys() - options.keys() - {"format"}:
        raise ValueError(f"{where} has no key {key!r}; there are: {', '.join(options)}")
    for key, default in options.items():
        if isinstance(default, type) and key not in table:
            raise ValueError(f"{where} needs {key} = ... of type {default.__name__}")
        wanted, value = default if isinstance(default, type) else type(default), table.get(key, default)
        value = float(value) if wanted is float and type(value) is int else value
        value = [value] if wanted is list and type(value) is str else value
        if type(value) is not wanted or wanted is list and not all(type(x) is str for x in value):
            name = {list: "list of texts", dict: "table"}.get(wanted, wanted.__name__)
            raise ValueError(f"{where}: {key} = {value!r} must be of type {name}")
        settings[key] = value
    settings["name"] = settings["name"] or settings["format"]
    for key, fits, range_ in (("weight", lambda x: 0 < x < np.inf, "above 0"),
                              ("hold_out", lambda x: x == 0 or x >= 2, "0 (none), or 2 and more"),
                              ("n_bins", lambda x: x >= 2, "2 and more"),
                              ("chunk", lambda x: 1 <= x <= 100, "from 1 to 100")):
        if key in settings and not fits(settings[key]):
            raise ValueError(f"[[{side}]] {settings['name']}: {key} = {settings[key]}; it must be {range_}")
    kind.check(settings)
    return settings


def open_log(side: str, table: dict, cache="data", size=64, quiet=False) -> Log:
    """The log that one table of a preset names, recorded or indexed in the folder cache on first use."""
    settings = settings_of(side, table)
    kind = log_class(side, settings["format"])
    log = kind(cache=cache, size=size, quiet=quiet, **{key: settings[key] for key in kind.options})
    if not quiet and log.summary():
        print(f"{settings['name']}: {log.summary()}")
    return log


def open_logs(config, quiet=False) -> dict:
    """
    All logs of a configuration: side -> name -> (log, the settings of its table). A side that the run does
    not use stays unopened: its dict is empty.
    """
    logs = {"robot": {}, "web": {}}
    needed = {"robot": config.robot_fraction > 0, "web": config.robot_fraction < 1 or config.n_pretrain > 0}
    for side in logs:
        for table in getattr(config, side) if needed[side] else ():
            settings = settings_of(side, table)
            if settings["name"] in logs[side]:
                raise ValueError(f"two tables [[{side}]] are called {settings['name']!r}; "
                                 "give each a name of its own")
            logs[side][settings["name"]] = (
                open_log(side, table, config.data_dir, config.image_size, quiet), settings)
        if needed[side] and not logs[side]:
            raise ValueError(f"robot_fraction = {config.robot_fraction} with {config.n_pretrain} steps of "
                             f"pretraining needs a table [[{side}]]")
    return logs


def make_tokenizer(logs: dict, n_vocab: int) -> Tokenizer:
    """A vocabulary of the words of all logs. The logs of one world share one text, which counts once."""
    texts = [log.texts() for side in logs.values() for log, _ in side.values()]
    return Tokenizer.train((text for some in {id(t): t for t in texts}.values() for text in some), n_vocab)


class Robot(NamedTuple):
    """
    What a policy has to know of a robot; it is saved with the weights. cameras, last_action_counts: as of its
    Log. chunk: how many actions an answer holds; RT-2 has 1.
    """
    actions: ActionTokenizer
    chunk: int = 1
    cameras: tuple = ("",)
    last_action_counts: bool = False

    def state(self) -> dict:
        return {**self._asdict(), "actions": self.actions.state()}

    @classmethod
    def from_state(cls, state: dict, tokenizer: Tokenizer) -> "Robot":
        robot = cls(**{**state, "actions": ActionTokenizer(tokenizer, **state["actions"])})
        if type(robot.chunk) is not int or robot.chunk < 1 or type(robot.cameras) is not tuple:
            raise ValueError(f"a robot has chunk = {robot.chunk} and the cameras {robot.cameras}")
        return robot


def make_robots(config, logs: dict, tokenizer: Tokenizer, known: dict) -> dict:
    """
    Robot's name -> Robot: the one of a checkpoint (known), or a new one with the bounds of its log.
    ValueError if the log is of another robot than the checkpoint's of that name.
    """
    robots = dict(known)
    for name, (log, settings) in logs["robot"].items():
        actions = ActionTokenizer(tokenizer, *log.bounds, config.scheme, log.names, settings["n_bins"],
                                  log.categories)
        new = Robot(actions, settings["chunk"], tuple(log.cameras), log.last_action_counts)
        if name not in robots:
            robots[name] = new
            continue
        old, other = robots[name], "give the log another name (name = ...)"
        for key in ("names", "n_bins", "chunk", "cameras", "last_action_counts"):
            now, before = (getattr(r if hasattr(r, key) else r.actions, key) for r in (new, old))
            if now != before:
                raise ValueError(f"robot {name!r}: {key} = {now}, and {before} in the checkpoint; {other}")
        numbers, bounds = np.asarray(log.actions)[:100_000], old.actions
        wild = (numbers < bounds.low) | (numbers > bounds.high)
        for number, values in bounds.categories.items():
            d = bounds.names.index(number)
            wild[:, d] |= ~np.isin(numbers[:, d], values)
        if wild.mean() > .05:         # bounds that are percentiles leave 2 % outside anyway
            raise ValueError(f"robot {name!r}: {wild.mean():.0%} of the log's numbers are outside the "
                             f"checkpoint's bounds; it is another robot: {other}")
    return robots


def most_cameras(robots: dict) -> int:
    """how many pictures of each step the model sees; a source that has fewer shows its last one again"""
    return max((len(robot.cameras) for robot in robots.values()), default=1)


# --------------------------------------------------------------------------------------------------------
# pictures

def fit(picture, size, box=None):
    """A picture (H, W, 3) uint8 -> (size, size, 3). box: what to take, (left, top, right, bottom)"""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"a picture must be (height, width, 3) uint8, got {picture.shape} {picture.dtype}; "
                         "convert it to RGB bytes")
    if picture.shape[:2] == (size, size) and box is None:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR, box))


def jitter(pictures, size, rng):
    """
    The same random crop (at least 0.9 of each side), brightness and contrast (0.8 to 1.2) of all pictures
    of a sample. pictures: list of (H, W, 3) uint8 -> list of (size, size, 3) uint8
    """
    side, left, top = rng.uniform(.9, 1), rng.random(), rng.random()
    x, y = left * (1 - side), top * (1 - side)
    boxes = [(x * W, y * H, (x + side) * W, (y + side) * H) for H, W, _ in (p.shape for p in pictures)]
    light, contrast = rng.uniform(.8, 1.2, 2)
    pictures = [fit(picture, size, box).astype(np.float32) for picture, box in zip(pictures, boxes)]
    return [((p - p.mean()) * contrast + p.mean() * light).clip(0, 255).astype(np.uint8) for p in pictures]


# --------------------------------------------------------------------------------------------------------
# samples: a picture and its questions, as token ids. A question is a list of (label, ids)

def held_out_episodes(log: Log, hold_out: int) -> np.ndarray:
    """
    Which episodes are not trained on: one in hold_out, drawn at random, but evenly over the tasks, of each of
    which at least one is trained on. Where no two episodes share a task, held-out tasks are new ones.
    hold_out = 0, or a log of one episode: none.

    Example: 3 tasks of 10 episodes each, hold_out = 10 -> 3 episodes, one of each task
    """
    episodes, first = np.unique(log.episode, return_index=True)
    if not hold_out or len(episodes) < 2:
        return episodes[:0]
    rng = np.random.default_rng(0)
    tasks = [log.request(int(i), rng)[0] for i in first]
    order = sorted(rng.permutation(len(episodes)), key=lambda n: tasks[n])      # by task, else by chance
    # all but the first of each task; where no task comes twice, all but one
    spare = [b for a, b in zip(order, order[1:]) if tasks[a] == tasks[b]] or order[1:]
    n = min(max(1, round(len(episodes) / hold_out)), len(spare))
    evenly = [spare[int((k + .5) * len(spare) / n)] for k in range(n)]          # along the tasks
    return np.sort(episodes[evenly])


class RobotData:
    """
    Demonstrations as questions: first what to do (the action), then questions about the same picture while
    they fit. sample(rng) -> pictures (frames * cameras, S, S, 3), the oldest step first; list of questions.

    The answer holds `chunk` actions: of this step and of those after it. Past the end of an episode its last
    action is repeated.

    RobotData takes the episodes to train on, or, with held_out = True, those of held_out_episodes().

    thought_len: most tokens of a thought. With 0 the model acts at once, as the paper's plain RT-2; else
    " Action:" stands between thought and action, even if the thought is empty, so that decoding knows when
    the action begins.
    """

    def __init__(self, log: Log, robot: Robot, text_len=64, size=64, frames=1, cameras=1, hold_out=21,
                 held_out=False, augment=False, thought_len=0):
        self.log, self.robot, self.tokenizer = log, robot, robot.actions.tokenizer
        self.text_len, self.size, self.frames, self.cameras = text_len, size, frames, cameras
        self.augment, self.thought_len = augment, thought_len
        is_held_out = np.isin(log.episode, held_out_episodes(log, hold_out))
        self.index = np.flatnonzero(is_held_out == held_out)            # the steps of the log that it takes
        if not len(self.index):
            raise ValueError(f"no episode is {'held out' if held_out else 'left to train on'} "
                             f"(hold_out = {hold_out}); record more, or set another hold_out in its table")
        ends = np.flatnonzero(np.diff(log.episode, append=-1))          # the last step of each episode
        last = np.repeat(ends, np.diff(ends, prepend=-1))[self.index, None]     # (n, 1) that of each step
        steps = np.minimum(self.index[:, None] + np.arange(robot.chunk), last)  # (n, chunk) of each answer
        ids = robot.actions.encode(log.actions[steps], quiet=True).astype(np.int32)     # (n, chunk, D)
        self.answers = ids.reshape(len(steps), -1)                              # (n, chunk * D)
        self.check_words()

    def check_words(self):
        """
        Before training, on the first 200,000 steps: ValueError if prompt, thought and action do not fit, and
        a warning if words of an instruction have tokens that now mean bins.
        """
        actions, lost = self.robot.actions, set()
        bins, n_action = set(actions.ids.tolist()), self.answers.shape[1]
        encode, rng = functools.lru_cache(100_000)(self.tokenizer.encode), np.random.default_rng(0)
        for i in self.index[:200_000]:
            prompt, thought = self.log.request(int(i), rng)
            ids, said = encode(prompt), encode(thought)
            # room for the longest thought, because the policy may think it; then " Action:", and <eos>
            needed = len(ids) + (self.thought_len + 1 if self.thought_len else 0) + n_action + 1
            if needed > self.text_len:
                raise ValueError(f"{prompt!r}, thought (at most {self.thought_len}) and action take {needed} "
                                 f"tokens; raise text_len = {self.text_len}")
            if len(said) > self.thought_len:
                raise ValueError(f"the thought {thought!r} takes {len(said)} tokens; "
                                 f"raise thought_len = {self.thought_len}")
            if actions.scheme == "overwrite" and bins & {*ids, *said}:
                lost.add(prompt)
        if lost:
            warnings.warn(f"{len(lost)} instructions have words whose tokens now mean bins, "
                          f"such as {min(lost)!r}")

    def previous(self, i):
        """the step before i in its episode, i itself if it is the first"""
        return i - 1 if i > 0 and self.log.episode[i - 1] == self.log.episode[i] else i

    def pictures(self, i):
        """What the model sees at step i: a list of frames * cameras pictures, the oldest step first."""
        steps = [i]
        for _ in range(self.frames - 1):
            steps.insert(0, self.previous(steps[0]))
        return [picture for j in steps for picture in views(self.log.picture(j), self.cameras)]

    def sample(self, rng, n=None):
        """n: which of its own steps to take; without it a random one"""
        n = int(rng.integers(len(self.index))) if n is None else n
        i, tok = int(self.index[n]), self.tokenizer
        prompt, thought = self.log.request(i, rng)
        said = [*tok.encode(thought), tok.begin_action] if self.thought_len else []
        action = [(ASKED, tok.encode(prompt)), (SAID, said),
                  (ACTION, self.answers[n].tolist()), (SAID, [tok.eos])]
        pictures = self.pictures(i)
        pictures = jitter(pictures, self.size, rng) if self.augment else [fit(p, self.size) for p in pictures]
        # a crop moves things, so the answers of questions about places would be wrong
        questions = [action] if self.augment else \
            fill([action], lambda: self.log.ask(i, rng), self.text_len, tok)
        return np.stack(pictures), questions


class WebData:
    """Pictures that come with no action. sample(rng) -> pictures and a list of questions, as in RobotData."""

    def __init__(self, log: Log, tokenizer: Tokenizer, text_len=64, size=64, frames=1, cameras=1):
        self.log, self.tokenizer = log, tokenizer
        self.text_len, self.size, self.n_pictures = text_len, size, frames * cameras

    def sample(self, rng):
        for _ in range(100):
            i = int(rng.integers(len(self.log)))
            questions = fill([], lambda: self.log.ask(i, rng), self.text_len, self.tokenizer)
            if questions:       # a web picture stands still: it was the same a moment ago
                return np.stack([fit(self.log.picture(i), self.size)] * self.n_pictures), questions
        raise ValueError("100 pictures had no question, or none that fits "
                         f"text_len = {self.text_len}; ask other questions, or raise it")


def views(picture, n: int) -> list:
    """what a log or a robot gives, a picture or a list of them by camera, as a list of n pictures"""
    pictures = list(picture) if isinstance(picture, (list, tuple)) else [picture]
    return pictures + [pictures[-1]] * (n - len(pictures))


def fill(questions, ask, text_len, tokenizer):
    """Add different questions, as ask() finds them, until the text is full."""
    asked = set()
    for _ in range(20):
        found = ask()
        if found is None or found in asked:
            continue
        question = [(ASKED, tokenizer.encode(found[0])), (SAID, [*tokenizer.encode(found[1]), tokenizer.eos])]
        if sum(len(ids) for some in [*questions, question] for _, ids in some) > text_len:
            break
        asked.add(found)
        questions.append(question)
    return questions


def pack(questions, text_len):
    """
    A list of questions -> tokens, segment, label: lists of text_len, padded with 0, -1 and ASKED.

    Example: pack([[(ASKED, [5, 6]), (ACTION, [7]), (SAID, [2])], [(ASKED, [8]), (SAID, [9])]], 7)
        -> [5, 6, 7, 2, 8, 9, 0], [1, 1, 1, 1, 2, 2, -1], [ASKED, ASKED, ACTION, SAID, ASKED, SAID, ASKED]
    """
    tokens, segment, label = [], [], []
    for n, question in enumerate(questions, start=1):
        for what, ids in question:
            tokens += ids
            segment += [n] * len(ids)
            label += [what] * len(ids)
    empty = text_len - len(tokens)
    if empty < 0:
        raise ValueError(f"a sample of {len(tokens)} tokens does not fit text_len = {text_len}; "
                         "raise text_len")
    return tokens + [0] * empty, segment + [-1] * empty, label + [ASKED] * empty


# --------------------------------------------------------------------------------------------------------
# the co-training mix

class Mix(torch.utils.data.Dataset):
    """
    The co-training mix. Item (step, k) is the k-th of the n_micro micro-batches of that step. It is fixed
    by (seed, step, k) alone, so that a resumed run goes on with the very samples of an uninterrupted one,
    on any number of ranks.

    robots, webs: lists of (data, settings of its table). In the first n_pretrain steps all samples are of
    the web, then robot_fraction of every batch is of robots (paper: about 0.5 for PaLI-X, 0.66 for PaLM-E).
    Within each part, sources are drawn by their weight.

    An item is a dict: images (n, pictures, S, S, 3) uint8; tokens, segment, label (n, T) int64; source (n,),
    which of the robots a row is from, -1 = web.
    """

    def __init__(self, robots, webs, batch_size, robot_fraction, text_len, n_pretrain=0, seed=0, n_micro=1):
        self.robots, self.webs, self.batch_size, self.text_len = robots, webs, batch_size, text_len
        self.robot_fraction, self.n_pretrain = robot_fraction, n_pretrain
        self.seed, self.n_micro = seed, n_micro

    def __getitem__(self, item):
        step, k = item
        rng = np.random.default_rng([self.seed, step, k])
        n_robot = round(self.batch_size * self.robot_fraction) if step >= self.n_pretrain else 0
        rows = []
        for row in range(k, self.batch_size, self.n_micro):         # robot and web in every micro-batch
            sources = self.robots if row < n_robot else self.webs
            which = self.draw(sources, rng)
            pictures, questions = sources[which][0].sample(rng)
            rows.append((pictures, *pack(questions, self.text_len), which if row < n_robot else -1))
        images, tokens, segment, label, source = zip(*rows)
        return {"images": torch.from_numpy(np.stack(images)), "tokens": torch.tensor(tokens),
                "segment": torch.tensor(segment), "label": torch.tensor(label),
                "source": torch.tensor(source)}

    @staticmethod
    def draw(sources, rng):
        if len(sources) == 1:
            return 0
        weights = np.cumsum([settings["weight"] for _, settings in sources])
        return int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))


def make_mix(config, logs: dict, robots: dict, tokenizer: Tokenizer):
    """The mix of all logs, and batches of the demonstrations that are held out (None without any)."""
    shape = dict(text_len=config.text_len, size=config.image_size, frames=config.frames,
                 cameras=most_cameras(robots))

    def robot_data(held_out):
        return [(RobotData(log, robots[name], hold_out=settings["hold_out"], held_out=held_out, **shape,
                           augment=settings["augment"] and not held_out, thought_len=config.thought_len),
                 settings)
                for name, (log, settings) in logs["robot"].items()
                if not held_out or len(held_out_episodes(log, settings["hold_out"]))]
    webs = [(WebData(log, tokenizer, **shape), settings) for log, settings in logs["web"].values()]
    mix = Mix(robot_data(False), webs, config.batch_size, config.robot_fraction, config.text_len,
              n_pretrain=config.n_pretrain, seed=config.seed, n_micro=config.micro_batches)
    held_out = robot_data(True)
    return mix, Mix(held_out, [], 128, 1.0, config.text_len) if held_out else None


# --------------------------------------------------------------------------------------------------------
# what logs that are recorded or indexed on first use have in common

def helper(_=None):
    """how a helper process begins: Ctrl-C is for its parent, and when the parent dies, it ends, too"""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def in_processes(function, jobs):
    """yields function(job) for every job, in the jobs' order; as many processes as there are cores"""
    jobs = list(jobs)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if min(len(jobs), cores) < 2:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(min(len(jobs), cores), multiprocessing.get_context("spawn"), helper) as pool:
        try:
            yield from pool.map(function, jobs, chunksize=1 + len(jobs) // (cores * 64))
        except BrokenProcessPool:
            raise ValueError("a helper process was killed (out of memory?), or the script that started this "
                             "has no `if __name__ == \"__main__\":`") from None
        finally:
            pool.shutdown(cancel_futures=True)


def make_folder(path: Path, make):
    """make(folder) makes it under another name first: a folder is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
    temporary.chmod(0o755)
    try:
        make(temporary)
        try:
            os.replace(temporary, path)
        except OSError:
            if not path.exists():                           # another run may have made the same one meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
