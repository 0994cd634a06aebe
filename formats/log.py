"""
Robot logs that others have recorded, read where they lie.

    log = open_log("robot", "rlds", "/data/bridge_dataset/1.0.0", camera="image_0")
    log.actions[i], log.instruction(i), log.picture(i)      # step i of len(log), in any order

A training run wants steps in random order, and files hold episodes one after the other. Instead of a stream with a buffer that
shuffles some of it, each log gets an index, made once in one pass over its files: the numbers of every step, and where its
picture lies. Then any step is one short read away: the shuffle is over the whole log, no rank or worker has to agree with
another on who reads what, the place of an interrupted run is the number of its step, and nothing but the index is in memory
(60 bytes a step). The same pass checks the files and gathers the statistics of the actions, from which come the bounds of
the bins.

Here are what all formats share, and the two plainest: Folder, a robot log of one's own, and VQA, anyone's pictures with questions.
RLDS has a file of its own (rlds.py), and so has LeRobot (lerobot.py): read those only if your data comes that way.
"""
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

NOTHING = 1e-5          # a movement this small is none
SEVEN = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def leave_ctrl_c_to_the_parent(_=None):
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_processes(function, jobs):
    """function(job) for every job, in order, as they come; in as many processes as there are cores, or in this one for one job"""
    workers = min(len(jobs), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    if workers < 2:
        yield from map(function, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, leave_ctrl_c_to_the_parent) as pool:
        yield from pool.imap(function, jobs, chunksize=1 + len(jobs) // (workers * 64))


def make_folder(path: Path, fill):
    """fill(folder) makes it under another name first: a folder is there whole or not at all"""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
    temporary.chmod(0o755)
    try:
        fill(temporary)
        try:
            os.replace(temporary, path)
        except OSError:
            if not path.exists():                           # another run may have made the same one meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Log:
    """
    The steps of a robot log, by number. A format is a subclass with four methods: files, scan, action_names, picture.

    len(log) steps; names: of the D numbers of an action, "terminate" first; actions (N, D) float32, in the log's own units;
    episode (N,) int32: the episode of each step; instruction(i) -> str; picture(i) -> (H, W, 3) uint8;
    previous(i): the step before it in its episode, itself if it is the first.
    statistics: name -> {"q01", "q99", "min", "max", "mean", "std"}; counts: {"episodes", "steps", "skipped": {why: how many}}.

    Dropped on the way in, and counted: first steps that do nothing (as OpenVLA does), steps without an instruction, episodes
    without pictures or with an action that is not finite. terminate is the log's own where it has one, else 1 in the last step
    of an episode.
    """
    format = ""
    accepts = ()                # the options that a preset may give
    described_by = ()           # patterns of the files that say what the others hold; a change in one makes a new index

    def __init__(self, path, cache="data", quiet=False, **options):
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(f"{path}: there is no such folder; give the one that holds {self.format} files")
        self.options = options
        files = self.files()
        beside = [f for pattern in self.described_by for f in sorted(self.path.glob(pattern))]
        stamp = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in [*map(self.path.joinpath, files), *beside]]
        key = [self.format, str(self.path.resolve()), sorted(options.items()), stamp]
        code = Path(__file__).read_bytes() + Path(sys.modules[type(self).__module__].__file__).read_bytes()
        self.index = Path(cache) / f"{self.format}-{hashlib.sha256(code + json.dumps(key).encode()).hexdigest()[:12]}"
        if not self.index.exists():
            make_folder(self.index, lambda folder: self._make(folder, files, quiet))
        about = json.loads((self.index / "about.json").read_text())
        self.names, self.statistics, self.counts = about["names"], about["statistics"], about["counts"]
        self.texts = about["instructions"]
        self.actions, self.episode, self.where, self.text = (
            np.load(self.index / f"{name}.npy", mmap_mode="r") for name in ("actions", "episode", "where", "text"))

    # -- what a format must have

    def files(self) -> list[str]:
        """the files to scan, relative to the folder, in order; ValueError if the folder is not of this format"""
        raise NotImplementedError

    def scan(self, file: str):
        """
        yields the episodes of one file: a dict {"actions": (T, D) float32, "instructions": list of T str, "where": (T, 3) int64,
        what picture() needs to find a picture again}, or {"skipped": why}. Sets nothing on self: it runs in another process.
        """
        raise NotImplementedError

    def action_names(self) -> list[str]:
        """the names of the D numbers that scan() gives; with "terminate" first if the log says itself when it is over"""
        raise NotImplementedError

    def picture(self, i: int) -> np.ndarray:
        """the picture of step i, (H, W, 3) uint8"""
        raise NotImplementedError

    # -- what they share

    def __len__(self):
        return len(self.episode)

    def instruction(self, i) -> str:
        return self.texts[self.text[i]]

    def previous(self, i) -> int:
        return i - 1 if i > 0 and self.episode[i - 1] == self.episode[i] else i

    def ask(self, i, rng, kinds):
        """no question about a robot's picture but what to do; the built-in world has some (data.WorldLog)"""

    def summary(self) -> str:
        """Example: "25 episodes, 225 steps (skipped: 25 first steps that do nothing)" """
        skipped = ", ".join(f"{n} {why}" for why, n in self.counts["skipped"].items())
        return f"{self.counts['episodes']} episodes, {len(self)} steps" + f" (skipped: {skipped})" * bool(skipped)

    def _scan(self, file):
        return list(self.scan(file))

    def _make(self, folder, files, quiet):
        names = self.action_names()
        actions, episode, where, text, texts, skipped, n = [], [], [], [], {}, {}, 0
        jobs = in_processes(self._scan, files)
        for found in tqdm(jobs, total=len(files), desc=f"reading {self.path}", unit="file", disable=quiet):
            for e in found:
                why, a = e.get("skipped"), e.get("actions")
                if not why and not np.isfinite(a).all():
                    why = "episodes with an action that is not finite"
                if not why:
                    # a gripper at rest says where it is, not 0
                    moves = [a[:, d] - a[:1, d] * ("gripper" in name) for d, name in enumerate(names) if name != "terminate"]
                    idle = (np.abs(moves) < NOTHING).all(0)
                    first = len(a) if idle.all() else int(idle.argmin())
                    keep = np.array([t >= first and bool(words.strip()) for t, words in enumerate(e["instructions"])], bool)
                    if first:
                        skipped["first steps that do nothing"] = skipped.get("first steps that do nothing", 0) + first
                    if not keep.any():
                        why = "episodes without an instruction" if first < len(a) else "episodes without a movement"
                if why:
                    skipped[why] = skipped.get(why, 0) + 1
                    continue
                if names[0] != "terminate":
                    a = np.concatenate([(np.arange(len(a)) == len(a) - 1)[:, None], a], 1)
                actions.append(a[keep].astype(np.float32))
                where.append(e["where"][keep])
                episode.append(np.full(keep.sum(), n, np.int32))
                kept = [words.strip() for words, k in zip(e["instructions"], keep) if k]
                text.append(np.array([texts.setdefault(words, len(texts)) for words in kept], np.int32))
                n += 1
        if not n:
            raise ValueError(f"{self.path}: no episode is left to learn from; skipped: {skipped or 'nothing, it is empty'}")
        names = names if names[0] == "terminate" else ["terminate", *names]
        actions = np.concatenate(actions)
        low, high = np.quantile(actions, (.01, .99), axis=0)
        numbers = dict(q01=low, q99=high, min=actions.min(0), max=actions.max(0), mean=actions.mean(0, np.float64),
                       std=actions.std(0, np.float64))
        for name, values in (("actions", actions), ("episode", np.concatenate(episode)), ("where", np.concatenate(where)),
                             ("text", np.concatenate(text))):
            np.save(folder / f"{name}.npy", values)
        (folder / "about.json").write_text(json.dumps({
            "names": names, "instructions": list(texts), "counts": {"episodes": n, "steps": len(actions), "skipped": skipped},
            "statistics": {name: {k: float(v[d]) for k, v in numbers.items()} for d, name in enumerate(names)}}))

    def bounds(self):
        """
        low, high: the bounds of the bins, lists of D: the 1st and 99th percentile, so that a few wild values do not make all bins
        wide (as OpenVLA). A number that never changes gets bounds close around it.
        """
        low, high = [], []
        for name in self.names:
            lo, hi = (0.0, 1.0) if name == "terminate" else (self.statistics[name]["q01"], self.statistics[name]["q99"])
            if lo == hi:                                    # a rare button, say
                lo, hi = self.statistics[name]["min"], self.statistics[name]["max"]
            if lo == hi:
                lo, hi = lo - 1e-6 * max(1, abs(lo)), hi + 1e-6 * max(1, abs(hi))
            low.append(lo), high.append(hi)
        return low, high


# ---------------------------------------------------------------------------------------------------------------------
# folders of pictures beside a file of JSON lines: the plainest format, for one's own robot and one's own questions

def json_lines(path: Path, keys: dict):
    """yields (offset in the file, the line's dict) of every line of path; keys: what each must have, name -> type"""
    offset = 0
    with open(path, "rb") as f:
        for number, line in enumerate(f, start=1):
            try:
                row = json.loads(line)
            except ValueError as e:
                raise ValueError(f"{path}, line {number}: no JSON ({e})") from None
            for key, kind in keys.items():
                if not isinstance(row, dict) or not isinstance(row.get(key), kind):
                    raise ValueError(f"{path}, line {number}: it must be an object with {key!r} of type {kind.__name__}")
            yield offset, row
            offset += len(line)


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8"""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"{path}: this picture is named in the log, but is not there") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise ValueError(f"{path} cannot be read as a picture ({e})") from None


class Folder(Log):
    """
    A robot log of one's own: steps.jsonl beside pictures, a line a step, the steps of an episode in order:

        {"episode": 0, "instruction": "open the drawer", "action": [0.1, 0.0, -0.2, 1], "image": "pictures/000000.jpg"}

    names: of the numbers of an action (a0, a1, ... without); give "terminate" first if the log says itself when it is over.
    """
    format = "folder"
    accepts = ("names",)

    def files(self):
        if not (self.path / "steps.jsonl").is_file():
            raise ValueError(f"{self.path}: there is no steps.jsonl in it")
        return ["steps.jsonl"]

    def action_names(self):
        _, first = next(json_lines(self.path / "steps.jsonl", {"action": list}), (0, {"action": []}))
        names, D = list(self.options.get("names") or ()), len(first["action"])
        if names and (len(names) != D or "terminate" in names[1:]):
            raise ValueError(f"{self.path}: names = {names}, but an action has {D} numbers; name each, terminate first if it is there")
        return names or [f"a{d}" for d in range(D)]

    def scan(self, file):
        path, D, steps = self.path / file, len(self.action_names()), []

        def episode():
            return {"actions": np.array([row["action"] for _, row in steps], np.float32),
                    "instructions": [row["instruction"] for _, row in steps],
                    "where": np.array([(offset, 0, 0) for offset, _ in steps], np.int64)}
        for offset, row in json_lines(path, {"episode": int, "instruction": str, "action": list, "image": str}):
            if len(row["action"]) != D or not all(type(x) in (int, float) for x in row["action"]):
                raise ValueError(f"{path}: an action of episode {row['episode']} is {row['action']}; it must be {D} numbers")
            if not (self.path / row["image"]).is_file():
                raise ValueError(f"{path}: its picture {row['image']} is not there")
            if steps and row["episode"] != steps[-1][1]["episode"]:
                yield episode()
                steps = []
            steps.append((offset, row))
        if steps:
            yield episode()

    def picture(self, i):
        with open(self.path / "steps.jsonl", "rb") as f:
            f.seek(self.where[i, 0])
            return read_picture(self.path / json.loads(f.readline())["image"])


class VQA:
    """
    The web half of the mix from anyone's pictures: questions.jsonl (or the only .jsonl file) beside pictures,

        {"image": "pictures/7.jpg", "question": "What is on the table?", "answer": "two apples"}

    Lines of the same picture are turns about it. A line without a question is a caption. Answers that do not fit behind a picture
    are passed over as samples are made. All lines are kept in memory, pictures are not.
    """
    format = "vqa"
    accepts = ()
    CAPTION = "What is happening in the image?"

    def __init__(self, path, cache=None, quiet=False):
        self.path, self.turns = Path(path), {}
        files = sorted(self.path.glob("*.jsonl"))
        files = [f for f in files if f.name == "questions.jsonl"] or files
        if len(files) != 1:
            raise ValueError(f"{path}: it must have one file of JSON lines, called questions.jsonl; "
                             f"there are {[f.name for f in files]}")
        for _, row in json_lines(files[0], {"image": str, "answer": str}):
            question = row.get("question", self.CAPTION)
            if not isinstance(question, str) or not question.strip() or not row["answer"].strip():
                raise ValueError(f"{files[0]}: the question or answer about {row['image']} is empty or no text")
            if row["image"] not in self.turns and not (self.path / row["image"]).is_file():
                raise ValueError(f"{files[0]}: the picture {row['image']} is not there")
            self.turns.setdefault(row["image"], []).append((f"Q: {question.strip()} A:", f" {row['answer'].strip()}"))
        self.images = list(self.turns)
        if not self.images:
            raise ValueError(f"{files[0]} has no lines")

    def __len__(self):
        return len(self.images)

    def summary(self):
        return f"{len(self)} pictures, {sum(map(len, self.turns.values()))} questions"

    def picture(self, i):
        return read_picture(self.path / self.images[i])

    def ask(self, i, rng, kinds=None):
        """one of the turns about picture i, by chance: (question, answer)"""
        turns = self.turns[self.images[i]]
        return turns[rng.integers(len(turns))]


# ---------------------------------------------------------------------------------------------------------------------

def open_log(half: str, format: str, path, cache="data", quiet=False, **options):
    """
    The log at path. half: "robot" or "web", which have formats of their own; options: what the format's class says of its keys.
    ValueError if the format or an option is not known, or the files are not as they must be.
    """
    from formats.lerobot import LeRobot
    from formats.rlds import RLDS
    formats = {kind.format: kind for kind in ((RLDS, LeRobot, Folder) if half == "robot" else (VQA,))}
    if format not in formats:
        raise ValueError(f"format = {format!r} under [[{half}]]; use one of: world, {', '.join(formats)}")
    for name in options:
        if name not in formats[format].accepts:
            raise ValueError(f"unknown key {name!r} of format {format!r}; there are: {', '.join(formats[format].accepts) or 'none'}")
    return formats[format](path, cache, quiet, **options)
