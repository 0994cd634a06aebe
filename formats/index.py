"""
What the readers of robot logs have in common: an index, made once, so that any step is one short read away.

    log = data.open_log("robot", {"format": "rlds", "path": "bridge_dataset/1.0.0", "camera": "image_0"})
    log.actions[i], log.request(i, rng), log.picture(i)     # step i of len(log), in any order

A training run wants steps in random order, but files hold episodes one after the other. Instead of a stream
with a buffer that shuffles some of it, a log is read once from end to end, and an index is kept: the numbers
of every step, and where its picture lies. From then on the shuffle is over the whole log, no rank or worker
has to agree with another on who reads what, an interrupted run goes on at the number of its step, and only
the index is in memory (60 bytes a step).

The same pass checks the files, counts what it leaves out, and finds the bounds of the bins. folder.py,
rlds.py and lerobot.py say where in the files of their format the steps are. All else is here.
"""
import functools
import hashlib
import io
import json
import os
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from data import Log, in_processes, make_folder
from tokenizer import prompt

NOTHING = 1e-5          # a movement this small is none
MOST_NUMBERS = 1000     # of an action; a file that claims more is damaged
MOST_CATEGORIES = 256
SEVEN = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


class IndexedLog(Log):
    """
    A robot log in the folder `path`. A format is a subclass with four methods: files, scan, action_names and
    view.

    categories: numbers that choose (left, right, up). One whose values are whole and less than 256 apart is
    such a number by itself, if bounds and full_range do not name it. Each value in the log has its own bin.
    bounds: {dx = [-0.1, 0.1]}, of the bins of other numbers; full_range: numbers whose bounds are not to cut
    off wild values.

    Left out, and counted in summary(): first steps that do nothing (as OpenVLA does; skip_idle = false keeps
    them), steps without an instruction, episodes without pictures or with an action that is not finite.
    terminate is the log's own where it has one that changes within the episode, else 1 in the last step,
    whose action counts (last_action_counts).
    """
    options = {"path": str, "outside": False, "skip_idle": True, "full_range": [], "names": [],
               "categories": [], "bounds": {}}
    described_by = ()           # patterns of files that say what the others hold: a change makes a new index

    def __init__(self, *, cache, size, quiet, **options):
        try:
            self.prepare(cache, quiet, options)
        except ValueError as e:
            if str(e) == one_line(e, 1000):
                raise
            raise ValueError(one_line(e, 1000)) from None

    def prepare(self, cache, quiet, options):
        self.settings, self.path, kind = options, Path(options["path"]).expanduser(), type(self).__name__
        if not self.path.is_dir():
            raise ValueError(f"{self.path}: there is no such folder; give the one that holds the {kind} log")
        files = self.files()
        beside = [f for pattern in self.described_by for f in sorted(self.path.glob(pattern))]
        key = [sorted({**options, "path": str(self.path.resolve())}.items()),
               stamp([*map(self.path.joinpath, files), *beside], cache)]
        code = Path(__file__).read_bytes() + Path(sys.modules[type(self).__module__].__file__).read_bytes()
        name = f"{kind.lower()}-{hashlib.sha256(code + json.dumps(key).encode()).hexdigest()[:12]}"
        self.index = Path(cache) / name
        self.fingerprint = kept(self.index, lambda folder: self.make(folder, files, quiet))
        about = json.loads((self.index / "about.json").read_bytes())
        self.names, self.bounds = tuple(about["names"]), tuple(map(np.array, about["bounds"]))
        self.counts, self.notes, self.instructions = about["counts"], about["notes"], about["instructions"]
        self.categories, self.last_action_counts = about["categories"], about["last_action_counts"]
        self.cameras = tuple(about["cameras"])
        self.actions, self.episode, self.where, self.text = (
            np.load(self.index / f"{name}.npy", mmap_mode="r")
            for name in ("actions", "episode", "where", "text"))

    @classmethod
    def check(cls, settings):
        names, cameras = settings["names"], settings.get("camera", [])
        if len({*cameras}) < len(cameras):
            raise ValueError(f"camera = {cameras} names one of them twice")
        if len({*names}) < len(names) or "" in names:
            raise ValueError(f"names = {names}; give each number of an action a name of its own")
        for name, bounds in settings["bounds"].items():
            if type(bounds) is not list or len(bounds) != 2 or not {*map(type, bounds)} <= {int, float} \
                    or not -1e38 < bounds[0] < bounds[1] < 1e38:
                raise ValueError(f"bounds of {name} are {short(bounds)}; they must be [low, high]")
        for name in {*settings["categories"]} & {*settings["bounds"], *settings["full_range"], "terminate"}:
            raise ValueError(f"{name} is one of categories = {settings['categories']}, which have no bounds")

    # -- what a format must have

    def files(self) -> list[str]:
        """the files to scan, relative to the folder, in order. ValueError if it is of another format"""
        raise NotImplementedError

    def scan(self, file: str):
        """
        Yields the episodes of one file. Each is {"skipped": why}, or a dict with

            actions         (T, D) float32
            instructions    a list of T texts
            where           (T, cameras, 3) int64: what view() needs to find a picture again
            pictures        a checksum of the pictures
            id, note        optional: the name of the episode in its log; a remark, which summary() counts

        It sets nothing on self, since it runs in another process.
        """
        raise NotImplementedError

    def action_names(self) -> list[str]:
        """the names of the D numbers that scan() gives; "terminate" first if the log has one of its own"""
        raise NotImplementedError

    def view(self, camera: int, *where):
        """the picture (H, W, 3) uint8 of one camera, by its three numbers in `where`"""
        raise NotImplementedError

    # -- what data.Log asks for

    def __len__(self):
        return len(self.episode)

    def picture(self, i):
        found = [self.view(camera, *where) for camera, where in enumerate(self.where[i].tolist())]
        return found if len(found) > 1 else found[0]

    def instruction(self, i) -> str:
        return self.instructions[self.text[i]]

    def request(self, i, rng):
        return prompt(self.instruction(i)), ""

    def texts(self):
        return map(prompt, self.instructions)

    def summary(self) -> str:
        """Example: "25 episodes, 225 steps (skipped: 25 first steps that do nothing)" """
        skipped = ", ".join(f"{n} {why}" for why, n in self.counts["skipped"].items())
        notes = "; ".join([f"skipped: {skipped}"] * bool(skipped) + self.notes)
        return f"{self.counts['episodes']} episodes, {len(self)} steps" + f" ({notes})" * bool(notes)

    # -- making the index

    def scanned(self, file):
        return list(self.scan(file))

    def make(self, folder, files, quiet):
        """reads all files and writes the index: about.json, and arrays of actions, episode, where and text"""
        names, found, ids, skipped, notes = self.action_names(), [], set(), Counter(), Counter()
        if not 0 < len(names) <= MOST_NUMBERS:
            raise ValueError(f"{self.path}: an action of {len(names)} numbers; it has 1 to {MOST_NUMBERS}")
        jobs = in_processes(self.scanned, files)
        jobs = tqdm(jobs, total=len(files), desc=f"reading {self.path}", unit="file", disable=quiet)
        for episodes, file in zip(jobs, files):
            for e in episodes:
                if "id" in e and e["id"] in ids:
                    raise ValueError(f"{self.path / file}: episode {e['id']} returns after it has ended; "
                                     "put its steps together, in their order")
                ids |= {e["id"]} if "id" in e else set()
                why = e.get("skipped") or ("episodes without a step" if not len(e["actions"]) else
                                           "episodes with an action that is not finite"
                                           if not np.isfinite(e["actions"]).all() else "")
                if why:
                    skipped[why] += 1
                else:
                    found.append(e)
        own_stop = names[0] == "terminate"
        if not own_stop:
            names = ["terminate", *names]
            for e in found:
                e["actions"] = np.insert(e["actions"], 0, 0, axis=1)
        found, derived = with_a_stop(found, skipped)
        if own_stop:
            notes["episodes whose terminate never changes: their last step stops"] += derived
        for option in ("full_range", "categories", "bounds"):
            if not {*self.settings[option]} <= {*names}:
                raise ValueError(f"{self.path}: {option} = {self.settings[option]}; "
                                 f"the numbers are {', '.join(names)}")
        categories = self.find_categories(names, found) if found else {}
        found = self.trimmed(found, names, categories, skipped)
        skipped, notes = ({why: n for why, n in counter.items() if n} for counter in (skipped, notes))
        if not found:
            raise ValueError(f"{self.path}: no episode is left to learn from; skipped: "
                             f"{skipped or 'nothing, it is empty'}")
        actions = np.concatenate([e["actions"] for e in found]).astype(np.float32)
        instructions = [words for e in found for words in e["instructions"]]
        number = {words: n for n, words in enumerate(dict.fromkeys(instructions))}
        low, high, wild = self.find_bounds(names, actions, categories)
        notes |= Counter(e["note"] for e in found if "note" in e)
        self.where = np.concatenate([e["where"] for e in found])
        self.text = np.array([number[words] for words in instructions], np.int32)
        self.instructions = list(number)
        first = np.cumsum([0, *(len(e["actions"]) for e in found)])
        for i in first[:-1:1 + len(found) // 200].tolist():
            self.picture(i)                                 # what is wrong with all of them shows now
        np.save(folder / "actions.npy", actions)
        np.save(folder / "episode.npy", np.repeat(np.arange(len(found), dtype=np.int32), np.diff(first)))
        np.save(folder / "where.npy", self.where)
        np.save(folder / "text.npy", self.text)
        (folder / "about.json").write_text(json.dumps({
            "names": names, "instructions": self.instructions, "bounds": [low, high],
            "categories": categories, "last_action_counts": derived > 0, "cameras": self.cameras,
            "counts": {"episodes": len(found), "steps": len(actions), "skipped": skipped},
            "notes": [*(f"{n} {note}" for note, n in notes.items()), *wild],
            "pictures": hashlib.sha256(repr([e["pictures"] for e in found]).encode()).hexdigest()}))

    def find_categories(self, names, found) -> dict:
        """name -> the values of each number that chooses, rising; noise over whole numbers is rounded away"""
        categories = {}
        for d, name in enumerate(names):
            values = np.unique(np.concatenate([np.unique(e["actions"][:, d]) for e in found]))
            if name in self.settings["categories"]:
                if not 1 < len(values) <= MOST_CATEGORIES:
                    raise ValueError(f"{self.path}: {name} is one of categories, but it has {len(values)} "
                                     f"different values; a category has 2 to {MOST_CATEGORIES}")
            elif d == 0 or name in {*self.settings["bounds"], *self.settings["full_range"]} \
                    or not is_choice(values):
                continue
            else:
                values = np.unique(np.round(values))
                for e in found:
                    e["actions"][:, d] = np.round(e["actions"][:, d])
            categories[name] = values.tolist()
        return categories

    def trimmed(self, found, names, categories, skipped):
        """the episodes without the steps that nothing can be learnt from, which are counted in skipped"""
        gripper = np.array(["gripper" in name.lower() for name in names])
        choice = np.array([name in categories for name in names])
        good = []
        for e in found:
            a = e["actions"]
            # A gripper at rest says where it is, which is not 0. A choice (0 = left) is never nothing.
            idle = (np.abs(a - a[:1] * gripper) < NOTHING) & (gripper | ~choice)            # (T, D)
            idle = idle[:, 1:].all(1) & self.settings["skip_idle"]
            first = len(a) if idle.all() else int(idle.argmin())
            told = np.array([says_something(words) for words in e["instructions"]])
            keep = told & (np.arange(len(a)) >= first)
            skipped["first steps that do nothing"] += first
            if first == len(a):
                skipped["episodes without a movement"] += 1
            elif not keep.any():
                skipped["episodes without an instruction"] += 1
            else:
                skipped["steps without an instruction"] += int((~told[first:]).sum())
                good.append({**e, "actions": a[keep], "where": e["where"][keep],
                             "instructions": [w.strip() for w, k in zip(e["instructions"], keep) if k]})
        return good

    def find_bounds(self, names, actions, categories):
        """
        low, high: the bounds of the bins, lists of D, from the 1st to the 99th percentile, so that a few wild
        values do not make all bins wide (as OpenVLA); and a remark for each number with values far outside.
        The bounds hold every value of a number that hardly ever moves, or that full_range names. A number
        that never changes gets bounds close around it.
        """
        low, high, wild = [0.], [1.], []
        for name, values in zip(names[1:], actions[:, 1:].T):
            lo, hi = map(float, np.quantile(values, (.01, .99)))
            least, most = float(values.min()), float(values.max())
            noise = NOTHING * max(1, abs(lo), abs(hi))
            if name in self.settings["full_range"] or hi - lo < noise:
                lo, hi = least, most
            if hi - lo < noise:
                lo, hi = lo - noise, hi + noise
            if name in categories:
                lo, hi = categories[name][0], categories[name][-1]
            lo, hi = map(float, self.settings["bounds"].get(name, (lo, hi)))
            if max(lo - least, most - hi) > 10 * (hi - lo):
                wild.append(f"{name} goes from {least:.3g} to {most:.3g}, its bins go from {lo:.3g} to "
                            f"{hi:.3g}; if the rest is real, set full_range = [{json.dumps(name)}]")
            low.append(lo), high.append(hi)
        return low, high, wild


def with_a_stop(found, skipped):
    """
    The episodes, so that each says stop (number 0) at its end, and in how many of them the log did not say
    so. In those the last step stops.
    """
    good, derived = [], 0
    for e in found:
        stop = e["actions"][:, 0] > .5
        if not stop.any() or stop.all() and len(stop) > 1:          # a column that says nothing
            e["actions"][:, 0] = np.arange(len(stop)) == len(stop) - 1
            derived += 1
        if stop[0] and not stop.all():
            skipped["episodes that begin with terminate = 1, which means stop"] += 1
        else:
            good.append(e)
    return good, derived


@functools.lru_cache(100_000)
def says_something(words: str) -> bool:
    """Is there an instruction? Nobody can be asked to do "" or "..." (prompt() refuses both)."""
    try:
        return bool(prompt(words))
    except ValueError:
        return False


def is_choice(values) -> bool:
    """
    Does a number choose (left, right, up; a button) rather than measure? Then its values are whole numbers,
    more than one, and so near that each can have a bin.

    Example: is_choice(np.array([0, 2, 2, 1])) -> True
    """
    whole = np.abs(values - np.round(values)) < NOTHING
    return .5 < values.max() - values.min() < MOST_CATEGORIES and bool(whole.all())


# -----------------------------------------------------------------------------------------------------------
# files: names, JSON, and what is kept in the cache

def inside(folder: Path, name: str, outside=False) -> Path:
    """
    The path of a file that a log names. A log may come from anywhere, so a name that leads out of its folder
    is refused, unless the preset says outside = true. Symbolic links are followed: they were made here.
    """
    if not outside and (os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir):
        raise ValueError(f"{folder}: the log names {short(name)}, which is outside of its folder; "
                         "if that is right, set outside = true in its table")
    return folder / name


def short(value, n=80) -> str:
    """repr(value), cut to n letters, for an error message"""
    text = repr(value)
    return text if len(text) <= n else text[:n] + "..."


def one_line(error, n=300) -> str:
    """What an error says, without line breaks, cut to n letters. Names in a file may hold anything."""
    return " ".join(str(error).splitlines())[:n]


def parse_json(raw: bytes):
    """What JSON in UTF-8 says, with or without a byte-order mark; ValueError for whatever else raw is."""
    text = raw.decode("utf-8-sig")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode()      # half a letter (a lone surrogate) is a ValueError
    return value


def read_json(path: Path):
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as e:
        raise ValueError(f"{path} cannot be read ({e}); is it whole?") from None


def json_lines(path: Path, keys: dict, optional: dict = {}):
    """
    Yields (number from 1 on, offset in the file, dict) of every line of path that is not empty. keys: what a
    line must have, name -> type; optional: what it may have.
    """
    offset = 0
    try:
        with open(path, "rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    try:
                        row = parse_json(line)
                    except ValueError as e:
                        raise ValueError(f"{path}, line {number}: it is not JSON ({e})") from None
                    for key, kind in (keys | optional).items():
                        missing = kind() if key in optional else None
                        if type(row) is not dict or type(row.get(key, missing)) is not kind:
                            raise ValueError(f"{path}, line {number}: it must be an object with {key!r} of "
                                             f"type {kind.__name__}")
                    yield number, offset, row
                offset += len(line)
    except OSError as e:
        raise ValueError(f"{path} cannot be read ({e})") from None


def stamp(files, cache):
    """path, size and time of each file, but for those in the cache"""
    cache = Path(cache).resolve()
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in dict.fromkeys(files)
            if f.is_file() and cache not in f.resolve().parents]


def kept(folder: Path, make) -> str:
    """
    A folder of the cache, made by make(folder) if it is not there -> a hash of what it holds. The hash is
    kept with it, so that damage is noticed.
    """
    def fingerprint(folder):
        digest = hashlib.sha256()
        for file in sorted(folder.iterdir()):
            if file.name != "fingerprint":
                digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def fill(new):
        make(new)
        (new / "fingerprint").write_text(fingerprint(new))
    if not folder.exists():
        try:
            make_folder(folder, fill)
        except OSError as e:
            raise ValueError(f"the index {folder} cannot be made ({e})") from None
    try:
        found, told = fingerprint(folder), (folder / "fingerprint").read_text("utf-8")
    except (OSError, ValueError):
        found, told = "", None
    if found != told:
        raise ValueError(f"{folder} is damaged; delete this folder, and it will be made again")
    return found


def check_png(raw: bytes):
    """
    ValueError if a part of a PNG does not match its checksum or is cut off. Pillow does not look at those of
    pixels.
    """
    at, kind = 8, b""
    while kind != b"IEND":
        n, kind = int.from_bytes(raw[at:at + 4], "big"), raw[at + 4:at + 8]
        if zlib.crc32(raw[at + 4:at + 8 + n]) != int.from_bytes(raw[at + 8 + n:at + 12 + n], "big") \
                or at + 12 + n > len(raw):
            raise ValueError(f"its part {kind!r} at byte {at} does not match its checksum, or is cut off")
        at += 12 + n


def read_picture(source, name) -> np.ndarray:
    """
    The one place that opens a picture: source, a path or bytes of a JPEG or PNG -> (H, W, 3) uint8.
    16-bit and float pixels, which 8 bits would cut without a word, more than 50 million pixels, and a PNG of
    which a checksum does not match are errors that name the picture.
    """
    try:
        raw = source if isinstance(source, bytes) else Path(source).read_bytes()
        with Image.open(io.BytesIO(raw), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > 50_000_000:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels; make it smaller")
            if picture.format == "PNG":
                check_png(raw)
            if picture.mode.startswith(("I", "F")) or ";16" in str(picture.tile):       # ;16: 16-bit colours
                raise ValueError(f"its pixels are {picture.mode!r}, more than 8 bits; "
                                 "scale them to 8 bits yourself")
            # a camera held upright says so in EXIF
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"{name}: this picture is named in the log, but is not there") from None
    except Exception as e:                              # damage, of EXIF too, makes Pillow raise anything
        raise ValueError(f"{name} cannot be read as a picture: {one_line(e)}") from None
