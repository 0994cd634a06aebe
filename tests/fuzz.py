"""
Hostile inputs by the thousand. Each is a small valid input with one thing spoilt: a bit, some bytes, a value.

    python -m tests.fuzz --n 10000 --seed 0             # about ten minutes; not part of the suite
    python -m tests.fuzz --only preset --case 17        # one case again, with its traceback

An input must be refused in one line that names its file, or be read, within 5 seconds of CPU time and 1 GB.
What is read must be what the whole input gives, unless the damage changed what the input says.
"""
import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import tomllib
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import data  # noqa: E402
import eval as evaluation  # noqa: E402
import test_formats  # noqa: E402
import test_rlds  # noqa: E402
import test_weights  # noqa: E402
import tiny  # noqa: E402
import train  # noqa: E402
from formats import index, rlds, weights  # noqa: E402

index.in_processes = map                                    # a case has a process already
data.FORMATS["robot"]["tiny"], data.FORMATS["web"]["tiny"] = "tiny:Robot", "tiny:Web"
TOKENIZER = data.Tokenizer.train(["a b"])
TEXTS = ["", " ", "...", "a\nb", "\ud800", "a\u2028b", "\ufeff", "\0", "a" * 5000, "../x", "/etc/passwd"]
ODD = [*TEXTS, "@huge@", "@deep@", -1, 0, 1, 10**5, 10**7, 10**8, 10**12, 10**400, 2**63, 1.5, 1e-320, 1e308,
       float("nan"), float("inf"), True, None, [], {}]
TOML = ["-1", "0", "1e400", "nan", "'x'", "''", "[]", "{}", "true", "1" * 400, "1" * 5000, "[[1]]", "1.5",
        "[{format = 'world', skills = [1]}]", "[" * 3000 + "]" * 3000, "[" * 90_000, "99999999999",
        '"\\ud800"', '"a\\nb"', '"\\u0000"', "1979-05-27", "{a = 1}", "[1, 'x']",
        "{gpt2 = 7}", "[{}]", f"'{'a' * 5000}'"]
PRESET = """out_dir = "out"\nn_layer = 2\nlr_adam = 1e-3\ncompile = false
pretrained = {gpt2 = "a", vit = "b"}\n[[robot]]\nformat = "folder"\npath = "x"
names = ["dx", "dy"]\nhold_out = 5\n[[web]]\nformat = "world"
pictures = 100\nquestions = {locate = 1, way = 2}\n"""
KINDS = ["checkpoint", "preset", "lines", "rlds", "lerobot", "picture", "weights"]
GOOD, BAD = ["refused", "equal", "other"], ["TRACEBACK", "HANG", "MEMORY", "SILENT"]
NOTHING, SAME, ANY = range(3)           # what may be read: nothing, only what the whole input says, anything


class Late(BaseException):
    """raised by the alarm; no `except Exception` holds it up"""


# -----------------------------------------------------------------------------------------------------------
# one thing is spoilt. Each function gives or writes the spoilt thing and says what it did; those that write
# also say what may be read after that

def spoil_bytes(raw, rng):
    """a bit flips, or up to 40 bytes change, go or come, or all from there on is cut off"""
    at, n = rng.randrange(max(1, len(raw))), rng.randrange(1, 40)
    how, a, old, b = rng.choice(["flip"] * 3 + ["cut", "noise", "zeros", "insert", "drop", "twice"]), \
        raw[:at], raw[at:at + n], raw[at + n:]
    new = {"flip": bytes(byte ^ (1 << n % 8) * (i == 0) for i, byte in enumerate(old)), "cut": b"",
           "noise": rng.randbytes(len(old)), "zeros": bytes(len(old)), "insert": rng.randbytes(n) + old,
           "drop": b"", "twice": old + old}[how]
    return a + new + (b"" if how == "cut" else b), f"{how} at byte {at} ({n})"


def spoil_value(x, rng, where=""):
    """one value somewhere inside x becomes something else, or goes, or a key is added"""
    keys = list(x) if isinstance(x, dict) else range(len(x)) if isinstance(x, list) else ()
    if not keys or rng.random() < .1:
        new = rng.choice([*ODD, [x], {"x": x}, str(x)])
        return new, f"{where} is {repr(new)[:40]}"
    key, how, new = rng.choice(keys), rng.random(), x.copy()
    what = f"{where}/{key} is taken away"
    if how < .1:
        del new[key]
    elif how < .15 and isinstance(x, dict):
        new[odd], what = 1, f"{where} has a key {(odd := rng.choice(TEXTS))[:9]!r}"
    else:
        new[key], what = spoil_value(x[key], rng, f"{where}/{key}")
    return new, what


def spoil_json(path, rng):
    """a file of one JSON value, or of one a line: a value or bytes change; lines swap, are copied, are odd"""
    raw = path.read_bytes()
    lines, how = raw.splitlines() if path.suffix == ".jsonl" else [raw], rng.choice("vvvvvvvvvbbbbbsco")
    i, j = rng.choices(range(len(lines)), k=2)
    value = json.loads(lines[i].decode("utf-8-sig"))
    value, what = spoil_value(value, rng, f"line {i + 1}") if how == "v" else (rng.choice(ODD), how)
    line = json.dumps(value, ensure_ascii=rng.random() < .5).replace('"@huge@"', "1" + "0" * 5000)
    line = line.replace('"@deep@"', "[" * 50_000 + "]" * 50_000).encode("utf-8", "surrogatepass")
    new = {"v": [*lines[:i], line, *lines[i + 1:]], "s": [*lines[i:], *lines[:i]], "c": [lines[i], *lines],
           "o": [*lines[:i], line, *lines[i:]], "b": []}[how]
    new = rng.choice([b"\n", b"\r\n"]).join([*new, *[b"", b" ", b""] * rng.randrange(2)])
    new = rng.choice([b"\xef\xbb\xbf", b"\n", b"", b""]) + new
    new, what = spoil_bytes(raw, rng) if how == "b" else (new, what)
    path.write_bytes(new)
    return f"{path.name}: {what}", ANY


def spoil_file(path, rng):
    """any file. PNG, TFRecord, checkpoints and the index have checksums; what is cut short shows"""
    raw = path.read_bytes()
    new, how = spoil_bytes(raw, rng)
    if rng.random() < .1:
        path.unlink()
        new, how = rng.choice([(None, "is gone"), (0, "is a folder"), (b"", "is empty"), (b"a", "is an a")])
    if new == 0:
        path.mkdir()
    elif new is not None:
        path.write_bytes(new)
    safe = raw[:4] == b"\x89PNG" or path.suffix == ".pt" or ".tfrecord" in path.name or "cache" in path.parts
    safe = safe or how[:3] == "cut" and path.suffix not in (".mp4", ".toml")
    return f"{path.name} {how}", SAME if safe else ANY


def spoil_checkpoint(path, rng):
    """tensors, values and claims are saved spoilt; or it is another zip, or runs code as it is unpickled"""
    how, state = rng.choice("tvvccz"), torch.load(path, weights_only=True)
    if how == "t":
        name = rng.choice(list(state["model"]))
        p = state["model"].pop(name)
        odd = {"gone": 0, "nan": p * float("nan"), "half": p.half(), "long": p.long(), "flat": p.ravel()[:1],
               "text": "x", "wide": torch.zeros(1).expand(10**9), "complex": p + 0j, "sparse": p.to_sparse()}
        what = rng.choice(list(odd))
        state["model"] |= {name: odd[what]} if what != "gone" else {}
    elif how == "c":
        part = state[rng.choice(["model_config", "model_config", "config"])]
        name = rng.choice([key for key in part if type(part[key]) is int])
        what = part[name] = rng.choice([10**5, 10**7, 10**8, 10**12, 10**400, -1, 0])
    elif how == "v":
        part = rng.choice([key for key in state if key != "model"])
        state[part], what = spoil_value(state[part], rng, part)
    else:
        what = rng.choice(["words", "bomb", "overlap", "evil", "legacy"])
        state["model"] = type("Evil", (), {"__reduce__": lambda _: (open, (f"{path}.ran", "w"))})()
    if how == "z" and what in ("words", "bomb", "overlap"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", bytes({"words": 9, "bomb": 9 * 10**8, "overlap": 10**7}[what]))
            archive.filelist *= 5000 if what == "overlap" else 1            # as many names of one entry
    else:
        torch.save(state, path, _use_new_zipfile_serialization=what != "legacy")
    return f"{name} is {what}"[:60] if how in "tc" else what, NOTHING if how == "z" else ANY


def spoil_preset(path, rng):
    """bytes change, a value becomes an odd one, a key comes, or the text is in another code"""
    lines, how = PRESET.split("\n"), rng.choice("bbvvvvkkc")
    i = rng.choice([i for i, line in enumerate(lines) if " = " in line])
    names = [*(f.name for f in dataclasses.fields(train.Config)), "seeds", "a.b", "'x y'", '"a\\nb"', "ü"]
    name = lines[i].split(" = ")[0] if how == "v" else rng.choice(names)
    at, code = i if how == "v" else 0, "utf-8"
    code = rng.choice(["utf-16", "utf-8-sig", "latin-1"]) if how == "c" else code
    lines[at:i + 1 if how == "v" else 0] = ["# ü" if how == "c" else f"{name} = {rng.choice(TOML)}"]
    new, what = "\n".join(lines).encode(code), f"{code} {how}: {lines[at][:60]}"
    new, what = spoil_bytes(PRESET.encode(), rng) if how == "b" else (new, what)
    path.write_bytes(new)
    return what, ANY


def chunk(kind, body):
    """a part of a PNG, with its checksum"""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def spoil_picture(path, rng):
    """chunks damaged before their CRC was made, EXIF, other formats under this name, 16 bits, bombs"""
    raw, how, file, may = path.read_bytes(), rng.choice("ccccxxxkdb"), io.BytesIO(), NOTHING
    is_png = raw[:4] == b"\x89PNG"
    if how == "c" and is_png:
        names = b"IHDR", b"IDAT", b"PLTE", b"eXIf"
        at = rng.choice([i for i in range(8, len(raw)) if raw[i + 4:i + 8] in names])
        n, name = int.from_bytes(raw[at:at + 4], "big"), raw[at + 4:at + 8]
        body, what = spoil_bytes(raw[at + 8:at + 8 + n], rng)
        more = rng.choice([b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"acTL", b"PLTE", b"gAMA"])
        new = rng.choice([chunk(name, body), chunk(more, rng.randbytes(30)) + raw[at:at + 12 + n]])
        new, what, may = raw[:at] + new + raw[at + 12 + n:], f"{name} {what}, or {more} in front of it", ANY
    elif how in "cxk":
        exif, kinds = Image.Exif(), ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "PDF", "TGA", "PCX"]
        exif[0x0112] = rng.choice([0, 3, 8, 9, 65535])
        body, what = spoil_bytes(exif.tobytes(), rng)
        kind, may = (rng.choice(kinds), NOTHING) if how == "k" else ("PNG" if is_png else "JPEG", ANY)
        Image.open(path).convert("RGB").save(file, kind, **{"exif": body} if how != "k" else {})
        new, what = file.getvalue(), f"{kind} with exif {what}"
    else:
        colours, n = rng.choice([(0, 1), (2, 3), (4, 2), (6, 4)])
        side, depth = (rng.choice([5000, 7000, 7080, 60_000]), 8) if how == "b" else (8, 16)
        full = side < 7050 and depth == 8
        head = side.to_bytes(4, "big") * 2 + bytes([depth, colours, 0, 0, 0])
        rows = zlib.compress(bytes(side * (1 + side * n) if full else 1000))
        new = raw[:8] * is_png + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        what, may = f"{side} x {side} of {n} x {depth} bits, whole: {full}", ANY if full else NOTHING
    path.write_bytes(new)
    return what, may


def spoil_weights(path, rng):
    """a value or bytes of the header, or the numbers, which have no checksum: others are others"""
    raw, how = path.read_bytes(), rng.choice("vvhn")
    n = 8 + int.from_bytes(raw[:8], "little")
    value, what = spoil_value(json.loads(raw[8:n]), rng, "header")
    head, rest = json.dumps(value).encode() if how == "v" else raw[8:n], raw[n:]
    head, what = spoil_bytes(head, rng) if how == "h" else (head, what)
    rest, what = spoil_bytes(rest, rng) if how == "n" else (rest, what)
    path.write_bytes(len(head).to_bytes(8, "little") + head + rest)
    return f"{how} {what}", SAME if how == "h" else ANY


def spoil_record(path, rng):
    """a record that is spoilt before its CRC is written, so that what reads it has to notice"""
    payloads = [record for _, record, _ in rlds.records(path)]
    n = rng.randrange(len(payloads))
    payloads[n], what = spoil_bytes(payloads[n], rng)
    lengths = [len(p).to_bytes(8, "little") for p in payloads]
    crc = rlds.masked_crc
    path.write_bytes(b"".join(n + crc(n) + p + crc(p) for n, p in zip(lengths, payloads)))
    return f"{path.name}, before its CRC: {what}", ANY


def spoil_cell(path, rng):
    """a whole parquet file with a cell or a column that is odd"""
    import pyarrow as pa
    import pyarrow.parquet as pq
    columns = pq.read_table(path).to_pydict()
    name = rng.choice(list(columns))
    cells, what = spoil_value(columns[name], rng, name)
    try:
        columns[name] = cells if isinstance(cells, list) else [cells] * len(columns[name])
        pq.write_table(pa.table({k: v[:len(columns[name])] for k, v in columns.items()}), path)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):       # no column can hold such cells
        return spoil_file(path, rng)
    return f"{path.name}: {what}", ANY


OWN = {".pt": spoil_checkpoint, ".toml": spoil_preset, ".picture": spoil_picture, ".parquet": spoil_cell,
       ".safetensors": spoil_weights, ".json": spoil_json, ".jsonl": spoil_json}


def spoil(kind, folder, rng):
    """one of the files, in the way of its kind or as bytes; one in ten times the index of a log of lines"""
    if kind == "lines" and rng.random() < .1:
        read(kind, folder)                                  # makes the index
        return spoil_file(rng.choice(sorted(p for p in (folder / "cache").rglob("*") if p.is_file())), rng)
    files = {p.suffix + p.name[:1]: p for p in sorted(folder.rglob("*")) if p.is_file()}    # one of each sort
    path = rng.choice(list(files.values()))
    way = spoil_record if ".tfrecord" in path.name else OWN.get(path.suffix, spoil_file)
    return way(path, rng) if way is spoil_json or rng.random() < .5 else spoil_file(path, rng)


# -----------------------------------------------------------------------------------------------------------
# valid inputs, and all that they say

def make(kind, folder):
    """valid inputs of this kind, each in a folder of its own"""
    if kind == "checkpoint":
        more = ["--out_dir", str(folder / "tiny"), "--data_dir", str(folder / "tiny")]
        train.train(train.read_config([*tiny.ARGS, *tiny.SOURCES, *more]))
        (folder / "tiny/web.pt").unlink(), (folder / "tiny/log.jsonl").unlink()
    elif kind == "lines":
        more = {"thought": "Plan: go.", "questions": [["How many?", "one"], ["Is it dark?", "no"]]}
        test_formats.write_robot(folder / "robot", episodes=3, steps=4, change=lambda lines: [
            {**line, **more} if n % 2 else line for n, line in enumerate(lines)])
        test_formats.write_vqa(folder / "vqa")
    elif kind == "rlds":
        payloads = [test_rlds.bridge(seed=n)[0] for n in range(3)]
        test_rlds.write(folder / "bridge", test_rlds.BRIDGE, [payloads[:2], payloads[2:]])
    elif kind == "lerobot":
        import av  # noqa: F401
        import pyarrow  # noqa: F401
        import test_lerobot
        for n in range(4):
            test_lerobot.write(folder / f"{n}", ("v2.1", "v3.0")[n // 2], ("video", "image")[n % 2])
    elif kind == "weights":
        test_weights.published_folder(folder / "gpt2", test_weights.gpt2(), model_type="gpt2", n_head=2)
        test_weights.published_folder(folder / "vit", test_weights.vit(), model_type="vit", hidden_act="gelu")
        (folder / "words").mkdir()
        test_weights.write_gpt2_files(folder / "words")
    elif kind == "preset":
        (folder / "a").mkdir()
        (folder / "a/a.toml").write_text(PRESET)
    else:
        pixels, exif = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8), Image.Exif()
        exif[0x0112] = 6
        for way in ["RGB PNG", "P PNG", "RGBA PNG", "1 PNG", "RGB JPEG", "L JPEG", "CMYK JPEG"]:
            (folder / way).mkdir()
            picture, kind = Image.fromarray(pixels).convert(way.split()[0]), way.split()[1]
            picture.save(folder / way / "a.picture", kind, exif=exif)


def read(kind, folder) -> dict:
    """all that an input says"""
    if kind == "preset":
        path = folder / "a.toml"
        config = dataclasses.asdict(train.read_config(["--config", str(path)]))
        for key, value in tomllib.loads(path.read_text("utf-8")).items():
            assert config[key] == value and isinstance(value, bool) == isinstance(config[key], bool), key
        return config
    if kind == "checkpoint":
        path = folder / "checkpoint.pt"
        try:
            state = train.load(path)
            train.rebuild(path, state)
            action = evaluation.Policy(path, "cpu", temperature=0).episode().act(tiny.picture(2), "go to the square")
        finally:
            assert not Path(f"{path}.ran").exists(), "the checkpoint ran code of its own"
        assert np.isfinite(action).all(), action
        return {**state, "action": action}
    if kind == "picture":
        path = folder / "a.picture"
        picture, same = index.read_picture(path, path), index.read_picture(path.read_bytes(), path)
        assert picture.dtype == np.uint8 and picture.shape[2:] == (3,) and (picture == same).all()
        return {"picture": picture}
    if kind != "weights":
        return read_log(kind, folder)
    if folder.name == "words":
        words, text = weights.gpt2_tokenizer(folder), "Q: über 12 255? A: Action: 0 17 red\n\n 's"
        assert words.decode(words.encode(text)) == text, "words do not come back"
        return {**words.state(), "ids": words.encode(text)}
    model = test_weights.make()
    before = plain(model.state_dict())
    try:
        found = weights.settings({folder.name: str(folder)})
        weights.load(model, {folder.name: str(folder)})
    except ValueError:
        assert plain(model.state_dict()) == before, "it was refused, but the model has changed"
        raise
    return {**found, **model.state_dict()}


def read_log(kind, folder):
    """What a folder of lines says must also be what its lines say, in their order, by the plainest reading"""
    vqa = folder.name == "vqa"
    table = {"format": "vqa" if vqa else "folder" if kind == "lines" else kind, "path": str(folder)}
    log = data.open_log("web" if vqa else "robot", table, folder / "cache", 16, quiet=True)
    rng, every, rows = np.random.default_rng(0), range(len(log)), []
    said = {"fingerprint": log.fingerprint, "texts": list(log.texts()), "told": [],
            "pictures": [log.picture(i) for i in every],
            "asked": [log.ask(i, rng) for i in every for _ in range(3)]}
    assert all(p.dtype == np.uint8 and p.shape[2:] == (3,) for p in said["pictures"]), "not (H, W, 3) uint8"
    if not vqa:
        bins = data.ActionTokenizer(TOKENIZER, *log.bounds, names=log.names).encode(log.actions, quiet=True)
        said |= {"names": log.names, "bounds": log.bounds, "actions": np.array(log.actions), "bins": bins,
                 "episode": np.array(log.episode), "told": [log.request(i, rng) for i in every]}
    for text in (*said["texts"], *sum(said["told"], ())):
        TOKENIZER.encode(text)
    if kind == "lines":
        text = (folder / ("questions.jsonl" if vqa else "steps.jsonl")).read_bytes().decode("utf-8-sig")
        rows = iter([json.loads(line) for line in text.split("\n") if line.strip()])
    if vqa:
        assert Counter(r["image"] for r in rows) == {k: len(v) for k, v in log.turns.items()}, "other lines"
    for i in every if kind == "lines" and not vqa else ():
        told, thought = said["told"][i]
        assert any(np.array_equal(np.float32(row["action"]), log.actions[i, 1:])
                   and told == index.prompt(row["instruction"])
                   and thought.strip() == row.get("thought", "").strip()
                   and np.array_equal(said["pictures"][i], index.read_picture(folder / row["image"], "x"))
                   for row in rows), f"step {i} is no line, or not in its place"
    return said


# -----------------------------------------------------------------------------------------------------------
# cases, in processes that run many of them

def plain(x):
    """the same for the same values"""
    if isinstance(x, (np.ndarray, torch.Tensor)):
        return str(x.dtype), tuple(x.shape), hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return [plain(v) for v in x] if isinstance(x, (list, tuple)) else repr(x)


def kilobytes(key):
    """what the system counts of this process: VmRSS is its memory, VmHWM the most that it had"""
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[1])


def case(kind, number, seed, base, truths):
    """-> what became of it, what was done, and what came of that"""
    rng, work = random.Random(f"{kind} {number} {seed}"), Path(tempfile.mkdtemp(prefix="fuzz"))
    part = rng.choice(sorted(base.iterdir()))
    folder, what, before, said = work / part.name, "nothing yet", 0, ""
    try:
        if part not in truths:
            shutil.copytree(part, work / "whole" / part.name)
            truths[part] = plain(read(kind, work / "whole" / part.name))
        shutil.copytree(part, folder)
        what, may = spoil(kind, folder, rng)
        Path("/proc/self/clear_refs").write_text("5")       # the peak of memory is counted from here
        before = kilobytes("VmRSS")
        signal.setitimer(signal.ITIMER_PROF, 5)
        try:
            got = read(kind, folder)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        got, truth = plain(got), truths[part]
        differ = [str(k) for k in {*got, *truth} if got.get(k) != truth.get(k)]
        marked = "fingerprint" in differ                    # all bytes of a log count there
        other = len(differ) > marked
        wrong = may == NOTHING or other and (may == SAME or "fingerprint" in got and not marked)
        found, said = "SILENT" if wrong else "other" if other else "equal", f"read; other: {differ}"[:200]
    except (Late, AssertionError) as e:
        found, said = "HANG" if isinstance(e, Late) else "SILENT", traceback.format_exc()
    except BaseException as e:
        one_line = str(folder) in str(e) and len(str(e)) < 2000 and len(str(e).splitlines()) == 1
        good = one_line and isinstance(e, (ValueError, OSError, FloatingPointError))
        found = "refused" if good else "MEMORY" if isinstance(e, MemoryError) else "TRACEBACK"
        said = traceback.format_exc()
    if before and found != "HANG" and kilobytes("VmHWM") - before > 1_000_000:
        found = "MEMORY"
    shutil.rmtree(work, ignore_errors=True)
    return found, f"[{part.name}] {what}", said.replace(str(work), "")


def serve(pipe, kind, seed, base):
    """runs the cases whose numbers come through the pipe; what libraries print is lost"""
    def late(*_):
        raise Late
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, late)
    most, truths = kilobytes("VmSize") * 1024 + 6 * 2**30, {}
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    while True:
        pipe.send(case(kind, pipe.recv(), seed, base, truths))


def run(kind, numbers, seed, base):
    """Yields the number of each case and what case() says. A process that dies or hangs is replaced."""
    fork, process = multiprocessing.get_context("fork"), None
    for count, number in enumerate(numbers):
        if process is None:
            pipe, end = fork.Pipe()
            process = fork.Process(target=serve, args=(end, kind, seed, base), daemon=True)
            process.start(), end.close()
        pipe.send(number)
        there = any(pipe.poll(10) for _ in range(4))        # one may end early, if this process was stopped
        try:
            found = pipe.recv() if there else ("HANG", "", "it did not end in 40 s")
        except EOFError:
            process.join()
            found = "TRACEBACK", "", f"the process died ({process.exitcode})"
        yield number, *found
        if count % 300 == 299 or found[0] in ("HANG", "MEMORY") or "process died" in found[2]:
            process.kill()
            process = None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=10_000, help="inputs in all (10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, help="this kind alone")
    parser.add_argument("--case", type=int, help="this case alone, with its traceback")
    args, rows = parser.parse_args(), []
    for kind in [args.only] if args.only else KINDS:
        with tempfile.TemporaryDirectory() as base:
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    make(kind, Path(base))
            except ImportError as e:
                print(f"{kind} is left out: it needs {e.name}")
                continue
            numbers, counts = range(args.n // len(KINDS)) if args.case is None else [args.case], Counter()
            for number, found, what, said in run(kind, numbers, args.seed, Path(base)):
                counts[found] += 1
                if found in BAD or args.case is not None:
                    lines = said.strip().split("\n")
                    place = [line.strip() for line in lines if line.strip().startswith("File")][-1:]
                    said = said if args.case is not None else f"{lines[-1][:300]} {' '.join(place)}"
                    what = f"--seed {args.seed} --only {kind} --case {number} {what}"
                    print(f"{found} {what}: {said}", flush=True)
            rows.append((kind, counts.total(), *(counts[x] for x in GOOD + BAD)))
    rows.append(("all", *map(sum, list(zip(*rows))[1:])))
    for name, *numbers in [("kind", "cases", "one line", *GOOD[1:], *BAD), *rows]:
        print(f"{name:12}" + "".join(f"{x:>11}" for x in numbers))
    sys.exit(any(rows[-1][-len(BAD):]))


if __name__ == "__main__":
    main()
