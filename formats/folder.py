"""
The plainest formats: a file of JSON lines beside pictures. Folder is a robot log of one's own, VQA anyone's
pictures with questions.
"""
import hashlib
import json
import os
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import Log
from formats.index import IndexedLog, inside, json_lines, kept, parse_json, read_picture, short, stamp
from tokenizer import BEGIN_ACTION


def framed(question: str, answer: str):
    """Example: framed("How many cups?", "two") -> ("Q: How many cups? A:", " two")"""
    return f"Q: {question.strip()} A:", f" {answer.strip()}"


def checksum(folder: Path, name: str, outside: bool, before=0) -> int:
    """of a picture, and of what was checked before; ValueError if it is not there"""
    path = inside(folder, name, outside)
    if not os.path.isfile(path):
        raise ValueError(f"its picture {short(name)} is not there")
    return zlib.crc32(path.read_bytes(), before)


def episode_of(steps) -> dict:
    """the steps of one episode -> what IndexedLog.scan yields"""
    with np.errstate(over="ignore"):        # what float32 cannot hold becomes infinite, and is left out
        actions = np.array([step["action"] for step in steps], np.float64).astype(np.float32)
    return {"id": steps[0]["id"], "actions": actions, "instructions": [step["instruction"] for step in steps],
            "where": np.array([step["where"] for step in steps], np.int64),
            "pictures": [step["picture"] for step in steps]}


class Folder(IndexedLog):
    """
    A robot log of one's own: steps.jsonl beside pictures, one line a step, the steps of an episode in order:

        {"episode": 0, "instruction": "open the drawer", "action": [0.1, 0.0, -0.2], "image": "images/0.jpg"}

    With several cameras, "image" has a picture of each: {"front": "front/0.jpg", "wrist": "wrist/0.jpg"}. A
    line may also say what to think before the action, and ask about its picture:

        "thought": "Plan: grasp the handle.", "questions": [["How many cups are there?", "two"]]

    names: of the numbers of an action (a0, a1, ... without); "terminate" first if the log has one of its own
    """
    described_by = ("**/*",)        # also the pictures: a picture that is exchanged makes a new index
    KEYS = {"episode": int, "instruction": str, "action": list}
    MORE = {"thought": str, "questions": list}
    last = None, {}                 # the line that was read last: the next question is mostly about it, too

    def files(self):
        if not (self.path / "steps.jsonl").is_file():
            raise ValueError(f"{self.path}: there is no steps.jsonl in it")
        lines = json_lines(self.path / "steps.jsonl", {"action": list})
        _, _, self.first = next(lines, (0, 0, {"action": []}))
        self.cameras = tuple(self.images(self.first))
        return ["steps.jsonl"]

    @staticmethod
    def images(row) -> dict:
        """the pictures of a line: camera -> file. One camera need not have a name."""
        image = row.get("image")
        return image if type(image) is dict and image else {"": image}

    def action_names(self):
        names, D = list(self.settings["names"]), len(self.first["action"])
        if names and (len(names) != D or "terminate" in names[1:]):
            raise ValueError(f"{self.path}: names = {names}, but an action has {D} numbers; name each, "
                             "terminate first if it is there")
        if not D:
            raise ValueError(f"{self.path / 'steps.jsonl'}: its first line has no action; it is empty")
        return names or [f"a{d}" for d in range(D)]

    def scan(self, file):
        path, D, steps = self.path / file, len(self.action_names()), []
        for number, offset, row in json_lines(path, self.KEYS, self.MORE):
            if steps and row["episode"] != steps[-1]["id"]:
                yield episode_of(steps)
                steps = []
            try:
                steps.append(self.step(row, D, offset))
            except ValueError as e:
                raise ValueError(f"{path}, line {number} (episode {row['episode']}): {e}") from None
        if steps:
            yield episode_of(steps)

    def step(self, row, D, offset):
        """what one line says, checked"""
        action, thought, questions = row["action"], row.get("thought", ""), row.get("questions", [])
        if len(action) != D or not all(type(x) is float or type(x) is int and abs(x) < 1e38 for x in action):
            raise ValueError(f"its action is {short(action)}; it must be {D} numbers")
        if BEGIN_ACTION.strip() in thought:
            raise ValueError(f"its thought has {BEGIN_ACTION.strip()!r}, which is where the action begins")
        if not all(type(q) is list and len(q) == 2 and all(type(text) is str and text.strip() for text in q)
                   for q in questions):
            raise ValueError(f"its questions are {short(questions)}; each must be [question, answer]")
        images = self.images(row)
        if not all(type(name) is str for name in images.values()) or tuple(images) != self.cameras:
            raise ValueError(f"its image is {short(row.get('image'))}; it must be the name of a file, or in "
                             "every line a table of the same cameras, such as {\"front\": \"0.jpg\"}")
        check = 0
        for name in images.values():
            check = checksum(self.path, name, self.settings["outside"], check)
        if thought or questions:                # the fingerprint has to change with them, too
            check = zlib.crc32(repr((thought, questions)).encode(), check)
        return {"id": row["episode"], "action": action, "instruction": row["instruction"], "picture": check,
                "where": (offset, bool(thought.strip()), bool(questions))}

    def row(self, i):
        """the line of step i"""
        if self.last[0] != i:
            path = self.path / "steps.jsonl"
            try:
                with open(path, "rb") as f:
                    f.seek(self.where[i, 0])
                    row = parse_json(f.readline())
                if row["instruction"].strip() != self.instruction(i):
                    raise ValueError("another line is in its place")
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
                raise ValueError(f"{path} has changed since it was indexed ({e}); start again") from None
            self.last = i, row
        return self.last[1]

    def picture(self, i):
        paths = [self.path / name for name in self.images(self.row(i)).values()]
        found = [read_picture(path, path) for path in paths]
        return found if len(found) > 1 else found[0]

    def request(self, i, rng):
        prompt, _ = super().request(i, rng)
        return prompt, f" {self.row(i)['thought'].strip()}" if self.where[i, 1] else ""

    def ask(self, i, rng):
        """one of the questions of step i, by chance; None if it has none"""
        if self.where[i, 2]:
            questions = self.row(i)["questions"]
            return framed(*questions[rng.integers(len(questions))])
        return None

    def texts(self):
        yield from super().texts()
        more = np.flatnonzero(self.where[:, 1:].any(1))
        for i in np.random.default_rng(0).permutation(more)[:20_000].tolist():
            questions = self.row(i)["questions"] if self.where[i, 2] else []
            yield self.request(i, None)[1] + "".join("".join(framed(*q)) for q in questions)


class VQA(Log):
    """
    Anyone's pictures for the web's half of a batch: questions.jsonl (or the only .jsonl file) beside them,

        {"image": "pictures/7.jpg", "question": "What is on the table?", "answer": "two apples"}

    Lines about the same picture are turns: they are asked about it together. A line without a question is a
    caption. Questions that do not fit behind a picture are passed over as samples are made. All lines are in
    memory, pictures are not.
    """
    options = {"path": str, "outside": False}
    CAPTION = "What is happening in the image?"

    def __init__(self, *, cache, size, quiet, path, outside):
        self.path, self.turns = Path(path).expanduser(), {}
        files = sorted(self.path.glob("*.jsonl"))
        files = [f for f in files if f.name == "questions.jsonl"] or files
        if len(files) != 1:
            raise ValueError(f"{path}: it must have one file of JSON lines, called questions.jsonl; "
                             f"there are {[f.name for f in files]}")
        for number, _, row in json_lines(files[0], {"image": str, "answer": str}):
            image, question = row["image"], row.get("question", self.CAPTION)
            if type(question) is not str or not question.strip() or not row["answer"].strip():
                raise ValueError(f"{files[0]}, line {number}: the question or answer about {short(image)} is "
                                 "empty, or not a text")
            if image not in self.turns and not os.path.isfile(inside(self.path, image, outside)):
                raise ValueError(f"{files[0]}, line {number}: the picture {short(image)} is not there")
            self.turns.setdefault(image, []).append(framed(question, row["answer"]))
        self.images = list(self.turns)
        if not self.images:
            raise ValueError(f"{files[0]} has no lines")

        def fill(folder):           # once: from then on, names, sizes and times of the files will do
            for i in range(0, len(self), 1 + len(self) // 200):
                self.picture(i)
            bar = tqdm(self.images, desc=f"reading {self.path}", unit="picture", disable=quiet)
            sums = [checksum(self.path, image, outside) for image in bar]
            (folder / "checksums.json").write_text(json.dumps([sums, zlib.crc32(files[0].read_bytes())]))
        key = stamp([files[0], *map(self.path.joinpath, self.images)], cache)
        name = f"vqa-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"
        self.fingerprint = kept(Path(cache) / name, fill)

    def __len__(self):
        return len(self.images)

    def summary(self):
        return f"{len(self)} pictures, {sum(map(len, self.turns.values()))} questions"

    def picture(self, i):
        path = self.path / self.images[i]
        return read_picture(path, path)

    def ask(self, i, rng):
        """one of the turns about picture i, by chance: (question, answer)"""
        turns = self.turns[self.images[i]]
        return turns[rng.integers(len(turns))]

    def texts(self):
        rng = np.random.default_rng(0)
        for i in rng.permutation(len(self))[:20_000].tolist():
            yield "".join(self.ask(i, rng))
