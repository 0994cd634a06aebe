"""
RLDS: robot logs as tensorflow_datasets (TFDS) writes them, read without tensorflow and without protobuf.
From the outside in: a CRC, the records of a file, the fields of a record, features.json, which says what
they mean, and the class RLDS, which makes episodes of it.
"""
import functools
import math
import os
from pathlib import Path

import numpy as np

from formats.index import MOST_NUMBERS, SEVEN, IndexedLog, inside, read_json, read_picture, short


# -----------------------------------------------------------------------------------------------------------
# TFRecord files

def advance(table, crcs):
    byte = np.ascontiguousarray(crcs).view(np.uint8).reshape(-1, 4)
    return (table[0].take(byte[:, 0]) ^ table[1].take(byte[:, 1])
            ^ table[2].take(byte[:, 2]) ^ table[3].take(byte[:, 3]))


def zeros():
    """tables (4, 256), by the four bytes of a CRC: what it becomes when 4, 8, 16, 32 ... bytes of 0 follow"""
    table = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(32):                                                 # zeros, bit by bit
        table = (table >> 1) ^ (table & 1) * np.uint32(0x82F63B78)
    for _ in range(32):
        yield table
        table = advance(table, table.ravel()).reshape(4, 256)           # once more: twice as many zeros


ZEROS = list(zeros())
START = b"\x54\x64\x1f\x64"      # what leads from 0 to 0xFFFFFFFF, with which a CRC-32C starts


def crc32c(data: bytes) -> int:
    """
    A loop over the bytes in python does 14 MB/s, this does 400. A CRC is linear: that of left + right is
    that of left, with as many zeros after it as right is long, xor that of right. So every word of four
    bytes is joined with its neighbour, all at once, then every pair with its neighbour, and so on. Zeros in
    front change nothing.

    Example: crc32c(b"123456789") -> 0xE3069283
    """
    crcs = np.frombuffer(b"".join((bytes(-len(data) % 4), START, data)), "<u4")
    for table in ZEROS:
        if len(crcs) == 1:
            return int(advance(ZEROS[0], crcs)[0]) ^ 0xFFFFFFFF
        if len(crcs) % 2:
            crcs = np.append(np.uint32(0), crcs)
        crcs = advance(table, crcs[0::2]) ^ crcs[1::2]


def masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def records(path: Path, verify: bool = True):
    """
    Yields (where its bytes start in the file, its bytes, their CRC) of each record of a TFRecord file:

        length u64, masked CRC-32C of these 8 bytes u32, the bytes, masked CRC-32C of the bytes u32

    again and again, little-endian. ValueError if one is cut off or damaged; verify=False checks lengths only.
    """
    with open(path, "rb") as f:
        size, at, n = os.fstat(f.fileno()).st_size, 0, 0
        while at < size:
            head = f.read(12)
            length = int.from_bytes(head[:8], "little")
            wrong = ("is cut off" if len(head) < 12 else
                     "has a damaged length" if masked_crc(head[:8]) != head[8:] else
                     "is cut off" if length > size - at - 16 else "")
            if wrong and at == 0 and head[:2] == b"\x1f\x8b":
                raise ValueError(f"{path} is compressed with gzip, in which no picture can be found alone; "
                                 "unpack it")
            if not wrong:
                data, crc = f.read(length), f.read(4)
                wrong = "does not match its CRC" if verify and masked_crc(data) != crc else ""
            if wrong:
                raise ValueError(f"{path}: record {n}, from byte {at} of {size}, {wrong}; copy it again")
            yield at + 12, data, int.from_bytes(crc, "little")
            at, n = at + 16 + length, n + 1


# -----------------------------------------------------------------------------------------------------------
# a record is a tf.train.Example, a protobuf message: a map from names to Features

def varint(data: bytes, i: int, end: int):
    """the integer that starts at byte i, seven bits a byte, the low ones first -> (integer, where it ends)"""
    value = 0
    for k in range(i, min(i + 10, end)):
        value |= (data[k] & 127) << 7 * (k - i)
        if data[k] < 128:
            return value, k + 1
    raise ValueError(f"the integer at its byte {i} does not end, so it is no tf.train.Example")


def varints(data: bytes) -> np.ndarray:
    """integers end to end -> (n,) int64. A negative one is written as its two's complement, in ten bytes."""
    byte = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(byte < 128)
    size = np.diff(last, prepend=-1)                                    # bytes of each
    if size.sum() < len(byte) or (size > 10).any():
        raise ValueError("an integer in a list does not end, so it is no tf.train.Example")
    first = last + 1 - size
    shift = 7 * (np.arange(len(byte)) - np.repeat(first, size))
    parts = (byte & 127).astype(np.uint64) << shift.astype(np.uint64)
    return (np.add.reduceat(parts, first) if len(first) else parts).view(np.int64)


def fields(data: bytes, i: int, end: int):
    """Yields (number, wire type, start, end) of each field of the protobuf message data[i:end]."""
    while i < end:
        tag, i = varint(data, i, end)
        number, wire, length = tag >> 3, tag & 7, 0
        if wire == 2:
            length, i = varint(data, i, end)
        stop = varint(data, i, end)[1] if wire == 0 else i + {1: 8, 2: length, 5: 4}.get(wire, end)
        if number == 0 or stop > end:
            raise ValueError(f"no field of a message is at its byte {i}, so it is no tf.train.Example")
        yield number, wire, i, stop
        i = stop


def inner(data: bytes, number: int, i: int, end: int) -> list:
    """(start, end) of each message or string that is field `number` of the message data[i:end]"""
    return [(start, stop) for n, wire, start, stop in fields(data, i, end) if (n, wire) == (number, 2)]


def parse_list(data: bytes, i: int, end: int):
    """
    A Feature -> "floats", (n,) float32; "integers", (n,) int64; or "strings", (n, 2) int64: where each
    starts in data, and its length. Numbers come packed (one field has them all) or not (a field each): the
    same bytes.
    """
    lists = [f for f in fields(data, i, end) if f[0] in (1, 2, 3) and f[1] == 2]
    if not lists:
        return "", np.zeros(0)                                          # a Feature may be empty
    kind, _, i, end = lists[-1]
    spans = [(start, stop) for n, wire, start, stop in fields(data, i, end)
             if n == 1 and wire in (2, {2: 5, 3: 0}.get(kind))]
    if kind == 1:
        return "strings", np.array([(start, stop - start) for start, stop in spans], np.int64).reshape(-1, 2)
    numbers = b"".join(data[start:stop] for start, stop in spans)
    if kind == 3:
        return "integers", varints(numbers)
    if len(numbers) % 4:
        raise ValueError("a list of floats ends within one, so it is no tf.train.Example")
    return "floats", np.frombuffer(numbers, "<f4")


def parse_example(data: bytes, keys) -> dict:
    """a tf.train.Example -> {key: (kind, values), as parse_list has them}"""
    found = dict.fromkeys(keys, ("", np.zeros(0)))
    for features in inner(data, 1, 0, len(data)):
        for entry in inner(data, 1, *features):
            name = b"".join(data[i:j] for i, j in inner(data, 1, *entry)[-1:]).decode(errors="replace")
            if name in found:
                for feature in inner(data, 2, *entry)[-1:]:
                    found[name] = parse_list(data, *feature)
    return found


# -----------------------------------------------------------------------------------------------------------
# features.json and dataset_info.json say what is in a record

def whole(text, least=0) -> int:
    """a whole number, which TFDS writes as a text.  Example: whole("7") -> 7"""
    if type(text) not in (int, str) or not least <= int(text) < 2**31:
        raise ValueError(f"{short(text)} is not a size")
    return int(text)


def text(value) -> str:
    if type(value) is not str:
        raise ValueError(f"{short(value)} is not a text")
    return value


def flat_features(node: dict, key="", shape=()) -> dict:
    """
    The tree in features.json -> its leaves, by the names that they have in a record. None in a shape: any
    size.

    Example: {"steps/action": {"kind": "Tensor", "shape": (None, 7), "dtype": "float32", "encoding": "none"}}
    """
    if "featuresDict" in node:
        children = node["featuresDict"].get("features", {})
        return {k: f for name in children
                for k, f in flat_features(children[name], f"{key}/{name}".lstrip("/"), shape).items()}
    if "sequence" in node:
        length = whole(node["sequence"].get("length", -1), -1)
        return flat_features(node["sequence"]["feature"], key, (*shape, length if length > 0 else None))
    leaf = node.get("tensor") or node.get("image") or {}
    sizes = [whole(n, -1) for n in leaf.get("shape", {}).get("dimensions", ())]
    return {key: {"kind": node["pythonClassName"].split(".")[-1],
                  "shape": (*shape, *(n if n >= 0 else None for n in sizes)),
                  "dtype": str(leaf.get("dtype", "string" if "text" in node else "")),
                  "encoding": leaf.get("encoding", "none")}}


def is_action(key, kind, shape, dtype, encoding):
    types = ("float", "bool", "int") if key.endswith("/terminate_episode") else ("float", "bool")
    return (kind in ("Tensor", "Scalar") and dtype.startswith(types) and encoding == "none"
            and None not in shape[1:])


def is_instruction(key, kind, shape, dtype, encoding):
    axes = 1 if dtype in TEXT else 2 if "int" in dtype else 0
    return encoding == "none" and None not in shape[1:] and len(shape) == axes


def is_camera(key, kind, shape, dtype, encoding):
    return kind == "Image" and dtype == "uint8" and len(shape) == 4


TEXT = ("string", "object")         # TFDS has used either name for the dtype of a text
NEEDS = {"action": (is_action, "a Tensor of floats, not compressed"),
         "instruction": (is_instruction, "a text, or its UTF-8 in a Tensor of integers"),
         "camera": (is_camera, "an Image of uint8, kept as JPEG or PNG")}
# the keys that are taken where the option is not given: the first that is there; of RT1 all
CAMERAS = [f"steps/observation/{name}" for name in ("image_0", "image", "rgb")]
INSTRUCTIONS = ["steps/language_instruction", "steps/observation/natural_language_instruction",
                "steps/observation/instruction"]
RT1 = {"steps/action/terminate_episode": ["terminate"], "steps/action/world_vector": SEVEN[:3],
       "steps/action/rotation_delta": SEVEN[3:6], "steps/action/gripper_closedness_action": SEVEN[6:]}
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@functools.lru_cache(64)
def opened(path: Path, version: str):
    """a file, kept open, as are the last 64 (some logs have a thousand). version: of the log"""
    return open(path, "rb", buffering=0)


class RLDS(IndexedLog):
    """
    A data set as TFDS writes it, one record an episode: Bridge, LIBERO, RT-1's fractal, Language-Table, most
    of Open X-Embodiment. path: the folder of a version (".../1.0.0"), or the one around it if it has only
    one.

    split: as dataset_info.json names it. verify: check every record against its CRC when the index is made;
    false checks lengths only. The other options are found where the data set has one of those layouts.
    camera: a key under steps/observation/ ("image_0"), or a list of several. instruction: a key under steps/,
    text or UTF-8 in an array of integers. action: keys under steps/, whose numbers are joined in that order.
    names: of these numbers. Seven in steps/action are taken for dx .. gripper (make sure: joints may be
    seven, too), two for dx and dy; others are called a0, a1, ...

    RT-1's terminate_episode is one of three, of which [1, 0, 0] is terminate: issue 17 of Open X-Embodiment's
    repository (google-deepmind/open_x_embodiment), and terminate_bool_to_act in its notebooks.
    """
    options = {**IndexedLog.options, "split": "train", "camera": [], "action": [], "instruction": "",
               "verify": True}
    described_by = ("features.json", "dataset_info.json")

    def files(self):
        if not (self.path / "features.json").exists():
            versions = sorted(file.parent for file in self.path.glob("*/features.json"))
            if len(versions) != 1:
                raise ValueError(f"{self.path} has no features.json; name the folder of one version of an "
                                 "RLDS data set" + "".join(f", {v}" for v in versions))
            self.path = versions[0]
        self.choose(self.described("features.json", flat_features))
        name, kind, splits = self.described("dataset_info.json", lambda info: (
            text(info["name"]), text(info.get("fileFormat") or "tfrecord"),
            {text(s["name"]): (text(s.get("filepathTemplate") or TEMPLATE),
                               [whole(n) for n in s.get("shardLengths", ())]) for s in info["splits"]}))
        split, about = self.settings["split"], self.path / "dataset_info.json"
        if kind != "tfrecord":
            raise ValueError(f"{self.path} is in {kind} files; have TFDS write it as tfrecord, the only "
                             "kind that is read here")
        if split not in splits:
            raise ValueError(f"{self.path} has no split {split!r}; use one of: {', '.join(splits)}")
        template, self.lengths = splits[split]                  # lengths: how many episodes are in each file
        if not self.lengths:
            raise ValueError(f"{about} has no shardLengths for {split!r}; copy it again")
        digits, total = max(5, len(str(len(self.lengths)))), len(self.lengths)
        self.shards = []
        for i in range(total):
            file, n, of = template, f"{i:0{digits}}", f"{total:0{digits}}"
            for key, value in (("DATASET", name), ("SPLIT", split), ("FILEFORMAT", kind), ("SHARD_INDEX", n),
                               ("NUM_SHARDS", of), ("SHARD_X_OF_Y", f"{n}-of-{of}")):
                file = file.replace(f"{{{key}}}", value)
            if not os.path.isfile(inside(self.path, file, self.settings["outside"])):
                raise ValueError(f"{self.path / file} is missing; {split!r} has {total} files, copy them all")
            self.shards.append(file)
        return self.shards

    def described(self, name, take):
        """take(what is in the json file)"""
        path = self.path / name
        try:
            return take(read_json(path))
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as e:
            why = e if str(path) in str(e) else f"{path} is not as TFDS writes it ({e!r})"
            raise ValueError(f"{why}; copy it again") from None

    def choose(self, features):
        """
        What to read of a record. keys: key -> (how many values a step has, of what kind); clock: the key
        that tells the number of steps; action: key -> how many of its values are taken; numbers: their
        names; order: where each is among them.
        """
        there = {k: f for k, f in features.items() if k.startswith("steps/") and 0 not in f["shape"]}
        settings, where = self.settings, self.path / "features.json"

        def pick(option, name):
            fits, need = NEEDS[option]
            key = next((k for k in (name, f"steps/{name}", f"steps/observation/{name}") if k in there), None)
            if key is None:
                could = ", ".join(k for k, f in there.items() if fits(k, **f))
                could = f"; set {option} to one of: {could}" if could else f", nor anything that is {need}"
                raise ValueError(f"{where} has no {name or f'{option} of a usual name'}{could}")
            if not fits(key, **there[key]):
                raise ValueError(f"{where}: {key} is {short(there[key], 200)}; {option} must be {need}")
            return key

        def first(keys):
            return next((k for k in keys if k in there), "")

        def values(f):
            if f["kind"] == "Image" or f["dtype"] in TEXT:
                return 1, "strings"
            return math.prod(f["shape"][1:]), "floats" if "float" in f["dtype"] else "integers"

        pictures = [k for k, f in there.items() if is_camera(k, **f)]
        only = pictures[0] if len(pictures) == 1 else ""
        wanted = settings["camera"] or [first(CAMERAS) or only]
        self.picture_keys = [pick("camera", name) for name in wanted]
        self.cameras = tuple(key.removeprefix("steps/observation/") for key in self.picture_keys)
        self.words = pick("instruction", settings["instruction"] or first(INSTRUCTIONS))
        usual = RT1 if RT1.keys() <= there.keys() else ["action"]
        action = [pick("action", name) for name in settings["action"] or usual]
        self.clock = first(["steps/is_first", action[0]])
        self.keys = {k: values(there[k]) for k in (*action, self.words, *self.picture_keys, self.clock)}
        self.action = {k: 1 if k.endswith("/terminate_episode") else self.keys[k][0] for k in action}
        D = sum(self.action.values())
        if D > MOST_NUMBERS:
            raise ValueError(f"{where}: an action of {D} numbers; it has at most {MOST_NUMBERS}")
        usual = (SEVEN[:D] if action == ["steps/action"] and D in (2, 7) else
                 [name for k in action for name in RT1[k]] if RT1.keys() >= {*action} else
                 [f"a{d}" for d in range(D)])
        names = settings["names"] or usual
        if len(names) != D or len({*names}) < D:
            raise ValueError(f"{self.path}: names are {', '.join(names)}; the action has {D} numbers, set a "
                             "name for each")
        self.order = sorted(range(D), key=lambda d: names[d] != "terminate")
        self.numbers = [names[d] for d in self.order]

    def action_names(self):
        return self.numbers

    def scan(self, file):
        shard, path, n = self.shards.index(file), self.path / file, 0
        for at, record, crc in records(path, self.settings["verify"]):
            try:
                yield {"pictures": crc, **self.episode_of(record, at, shard)}
            except ValueError as error:
                raise ValueError(f"{path}: record {n}, whose bytes start at {at}: {error}") from None
            n += 1
        if n != self.lengths[shard]:
            raise ValueError(f"{path} has {n} records, dataset_info.json says {self.lengths[shard]}; copy "
                             "both again")

    def episode_of(self, record, at, shard):
        found = parse_example(record, self.keys)
        steps = len(found[self.clock][1]) // self.keys[self.clock][0]

        def rows(key):
            (it_is, values), (n, kind) = found[key], self.keys[key]
            if len(values) != steps * n or steps and it_is != kind:
                raise ValueError(f"{key} has {len(values)} {it_is or 'values'}; by features.json and "
                                 f"{self.clock} it should have {steps * n} {kind}, {n} for each of {steps}")
            return values.reshape(steps, 2 if kind == "strings" else n)

        if not all(len(found[key][1]) and rows(key)[:, 1].all() for key in self.picture_keys):
            return {"skipped": "episodes without pictures"}
        actions = np.concatenate([rows(key)[:, :n] for key, n in self.action.items()], 1)[:, self.order]
        if not len(found[self.words][1]):
            words = [b""] * steps
        elif self.keys[self.words][1] == "strings":
            words = [record[i:i + length] for i, length in rows(self.words)]
        elif (rows(self.words) & ~255).any():
            raise ValueError(f"{self.words} has integers that are no bytes, so it is no text; set "
                             "instruction to another key")
        else:
            words = [row.tobytes().rstrip(b"\0") for row in rows(self.words).astype(np.uint8)]
        words = [w.decode(errors="replace") for w in words]
        lost = any("\ufffd" in w for w in words)
        where = [np.insert(rows(key) + (at, 0), 0, shard, axis=1) for key in self.picture_keys]
        return {"actions": actions.astype(np.float32), "instructions": words, "where": np.stack(where, 1),
                **({"note": "episodes have words that are not UTF-8"} if lost else {})}

    def view(self, camera, shard, at, length):
        path = self.path / self.shards[shard]
        name = f"{path}: the picture in the {length} bytes from byte {at}"
        try:
            data = os.pread(opened(path, self.index.name).fileno(), length, at)
        except OSError as e:
            raise ValueError(f"{name} cannot be read ({e})") from None
        if len(data) < length:
            raise ValueError(f"{name} is cut off, since the file ends before; copy the file again")
        return read_picture(data, name)
