"""LeRobot data sets as logs: v2.0, v2.1 and v3.0, pictures in videos or in columns"""
import functools
import importlib
import io
import json
import os
import re
from contextlib import contextmanager

import numpy as np
from PIL import Image

from formats.log import Log


def extra(module):
    """a module that only LeRobot data needs"""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"LeRobot data needs {module.split('.')[0]}; run: pip install -r formats/requirements.txt") from None


@contextmanager
def reading(what):
    """whatever a library raises on a damaged file becomes a ValueError that names it"""
    try:
        yield
    except Exception as e:
        raise ValueError(f"{what} cannot be read ({type(e).__name__}: {e}); is it whole? download it again") from e


class Column:
    """one column of a parquet file, by row. keeps the last row group it read: the next step is often in it"""

    def __init__(self, path, key):
        self.file, self.key, self.group = extra("pyarrow.parquet").ParquetFile(path), key, None
        about = self.file.metadata
        self.ends = np.cumsum([about.row_group(g).num_rows for g in range(about.num_row_groups)]).tolist()

    def __getitem__(self, row):
        group = int(np.searchsorted(self.ends, row, "right"))
        if group != self.group:
            self.cells = self.file.read_row_group(group, columns=[self.key], use_threads=False)[self.key]
            self.group = group
        return self.cells[row - self.ends[group] + len(self.cells)].as_py()


class Video:
    """one video, by time. keeps its last frame: to a time just ahead it decodes on, else it seeks the key frame before"""
    AHEAD = 10                                              # frames

    def __init__(self, path, fps):
        self.container, self.fps, self.last = extra("av").open(path), fps, None
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = 1          # a thread a worker; many start slowly, each time anew after a seek

    def __getitem__(self, t):
        """the frame (H, W, 3) less than half a frame away from t seconds, or None"""
        half, last, self.last = .5 / self.fps, self.last, None          # after a failure the next call seeks
        if last is None or not -half < t - last.time < self.AHEAD / self.fps:
            for back in (0, 1, t):                          # a key frame shown after t may be stored before it: then seek further
                self.container.seek(round(max(t - back, 0) / self.stream.time_base), stream=self.stream)
                self.frames = self.container.decode(self.stream)
                last = next(self.frames, None)
                if last is None or last.time < t + half:
                    break
        while last is not None and last.time <= t - half:
            last = next(self.frames, None)
        if last is None or last.time >= t + half or last.is_corrupt:
            return None
        self.last = last
        return last.to_ndarray(format="rgb24", threads=1)


@functools.cache
def kept(pid):
    """
    kept(os.getpid())(kind, path, detail, version) -> kind(path, detail), kept open, as are the last four. version: of the log,
    whose files may be copied anew. a forked worker starts afresh, and lets what its parent has open be: the two would share the
    place they read at, and to close what had threads in the parent would wait for them forever.
    """
    return functools.lru_cache(4)(lambda kind, path, detail, version: kind(path, detail))


def stars(template):
    """a pattern for the files of a template.  Example: "data/chunk-{chunk_index:03d}/*.parquet" -> "data/chunk-*/*.parquet" """
    return re.sub(r"\{[^}]*\}", "*", template)


class LeRobot(Log):
    """
    LeRobot data sets v2.0, v2.1 and v3.0: parquet tables with a row for each step; pictures in a column of theirs, or in videos.

    options: camera, a feature such as "observation.images.top" or the end of its name, "top"; not needed where there is only one.
    action, a feature; else `action` or `actions`. names of its numbers; else those of meta/info.json; else a0, a1, ...

    where: the two numbers in a file's name, 0 and 12 for data/chunk-000/episode_000012.parquet, then the row of the table or, for
    a video, the microsecond. In v3.0 a file has many episodes; meta/episodes tells in which video each lies, and where in it. It
    tells the same of the rows, but converters have got those wrong (huggingface/lerobot issues 1919 and 2401), while the column
    episode_index is right: we go by that.

    Pictures in any order are only as fast as the files allow: a frame of a video costs all since the key frame before it (LeRobot
    writes one every 2 frames, other tools every 250), a picture in a column its whole row group (100 rows, an episode, or all).
    """
    format = "lerobot"
    accepts = ("camera", "action", "names")
    described_by = ("meta/*.json*", "meta/**/*.parquet")

    def __init__(self, path, cache="data", quiet=False, camera="", action="", names=()):
        super().__init__(path, cache, quiet, camera=camera, action=action, names=list(names))

    def files(self):
        extra("pyarrow")
        info = self.path / "meta/info.json"
        if not info.exists():
            raise ValueError(f"{self.path} has no meta/info.json; give the folder of a LeRobot data set")
        with reading(info):
            about = json.loads(info.read_text(encoding="utf-8"))
            version = about["codebase_version"]
        if version not in ("v2.0", "v2.1", "v3.0"):
            raise ValueError(f"{info}: codebase_version is {version!r}; convert to v2.0, v2.1 or v3.0 with LeRobot's own scripts")
        with reading(info):
            features = {key: (f["dtype"], f.get("shape"), f.get("names")) for key, f in about["features"].items()}
            self.fps, self.half = float(about["fps"]), .5 / float(about["fps"])
            self.data_path, self.video_path = str(about["data_path"]), str(about.get("video_path"))
        cameras = [key for key, (kind, _, _) in features.items() if kind in ("video", "image")]
        wanted = self.options["camera"]
        found = [c for c in cameras if c == wanted] or [c for c in cameras if not wanted or c.endswith("." + wanted)]
        if len(found) != 1:
            raise ValueError(f"{self.path}: camera={wanted!r} fits {len(found)} cameras; use one of: {', '.join(cameras)}")
        self.camera, self.is_video, self.v3 = found[0], features[found[0]][0] == "video", version == "v3.0"
        self.action = self.options["action"] or ("action" if "action" in features else "actions")
        _, shape, self.told = features.get(self.action, (None, None, None))
        if not (isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], int) and shape[0] > 0):
            raise ValueError(f"{info} has no feature {self.action!r} that is one list of numbers; set action to one of: "
                             f"{', '.join(features)}")
        self.D = shape[0]
        data = self._glob(self.data_path)
        if not data:
            raise ValueError(f"{self.path}: no file is named like {self.data_path}; download the whole data set")
        self.tasks = self._tasks()
        if self.is_video:
            self._find_videos()
        return data

    def _glob(self, template):
        with reading(f"{self.path}: a file named like {template}"):
            return sorted(f.relative_to(self.path).as_posix() for f in self.path.glob(stars(template)))

    def _file(self, template, chunk, number):
        with reading(f"{self.path}: a file named like {template}"):
            return template.format(episode_chunk=chunk, chunk_index=chunk, episode_index=number, file_index=number)

    def _tasks(self):
        """task_index -> text. in v3.0 the text is the index of a pandas table, which may have a name or none"""
        file = self.path / "meta/tasks.parquet"
        if file.exists():
            table = self._table("meta/tasks.parquet", ())
            with reading(file):
                text = table["task" if "task" in table.column_names else "__index_level_0__"]
                return {i: str(words or "") for i, words in zip(table["task_index"].to_pylist(), text.to_pylist())}
        with reading(file.with_suffix(".jsonl")):
            rows = map(json.loads, file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines())
            return {row["task_index"]: str(row["task"] or "") for row in rows}

    def _find_videos(self):
        """sets video_path to where the videos of the camera are, and starts, episode -> the two numbers of its video, seconds"""
        extra("av")
        top, _, rest = self.video_path.partition("/")
        names = [f"{folder}/{rest}".replace("{video_key}", key) for key in (self.camera, self.camera.split(".")[-1])
                 for folder in (top, *(f.name for f in self.path.iterdir() if f.is_dir() and f.name != top))]
        found = [name for name in dict.fromkeys(names) if rest and self._glob(name)]
        if not found or len(found) > 1 and found[0] != names[0]:
            raise ValueError(f"{self.path}: {len(found)} folders have videos of {self.camera}, but not that in meta/info.json, "
                             f"{self.video_path}; download that, or choose another camera")
        self.video_path, self.starts, self.described_by = found[0], {}, (*self.described_by, stars(found[0]))
        keys = ["episode_index", *(f"videos/{self.camera}/{key}" for key in ("chunk_index", "file_index", "from_timestamp"))]
        for file in self._glob("meta/episodes/*/*.parquet") if self.v3 else []:
            table = self._table(file, keys)
            self.starts |= {e: start for e, *start in np.hstack([self._numbers(file, table, key) for key in keys]).tolist()}

    def _table(self, file, keys, also=()):
        """the columns keys of a parquet file, or all; the columns also must be in it, but are not read"""
        with reading(self.path / file):
            parquet = extra("pyarrow.parquet").ParquetFile(self.path / file)
            have, table = parquet.schema_arrow.names, parquet.read(columns=list(keys) or None, use_threads=False)
        for key in (*keys, *also):
            if key not in have:
                raise ValueError(f"{self.path / file} has no column {key!r}; it has: {', '.join(have)}")
        return table

    def _numbers(self, file, table, key, D=1):
        """(T, D) float64: a column of numbers, or of lists of D of them; NaN where there is none"""
        column, pc = table[key], extra("pyarrow.compute")
        with reading(f"{self.path / file}: column {key!r}"):
            lists = hasattr(column.type, "value_type")
            lengths = pc.list_value_length(column).to_numpy() if lists else np.ones(len(column))
            values = (pc.list_flatten(column) if lists else column).to_numpy().astype(np.float64)
        if (lengths != D).any():
            raise ValueError(f"{self.path / file}: a row of {key!r} has not {D} numbers, as meta/info.json says; correct either")
        return values.reshape(-1, D)

    def scan(self, file):
        numbers = [int(n) for n in re.findall("[0-9]+", file)[-2:]]
        if len(numbers) < 2 or self._file(self.data_path, *numbers) != file:
            raise ValueError(f"{self.path / file}: the name does not fit {self.data_path} in meta/info.json; correct either")
        keys = ["task_index", *["episode_index"] * self.v3, *["timestamp", "frame_index"] * self.is_video]
        table = self._table(file, [self.action, *keys], also=[] if self.is_video else [self.camera])
        actions = self._numbers(file, table, self.action, self.D).astype(np.float32)
        steps = {key: self._numbers(file, table, key)[:, 0] for key in keys}
        if not np.isfinite(list(steps.values())).all():
            raise ValueError(f"{self.path / file}: a row lacks its {' or '.join(keys)}; download it again")
        unknown = set(steps["task_index"]) - set(self.tasks)
        if unknown:
            raise ValueError(f"{self.path / file}: task_index {min(unknown):g} is not in meta/tasks; download meta again")
        episodes = steps.get("episode_index", np.zeros(len(actions)))
        for episode in np.unique(episodes):
            rows = np.flatnonzero(episodes == episode)
            where = np.full((len(rows), 3), (*numbers, 0))
            where[:, 2] = rows
            if self.is_video:
                *place, start = self.starts.get(episode, [np.nan] * 3) if self.v3 else [*numbers, 0]
                told = all(0 <= n < 1e9 for n in (*place, start))
                if not told or not (self.path / self._file(self.video_path, *map(int, place))).exists():
                    yield {"skipped": "episodes without pictures"}
                    continue
                t = steps["timestamp"][rows]
                if abs(t[0]) >= self.half:                  # the time of some clock, and not of the video
                    t = steps["frame_index"][rows] / self.fps
                where[:, :2], where[:, 2] = place, np.round((t + start) * 1e6)
                self._picture(*where[-1].tolist())          # a video that is cut short shows now, not after a day of training
            yield {"actions": actions[rows], "instructions": [self.tasks[i] for i in steps["task_index"][rows]], "where": where}

    def action_names(self):
        names, told = self.options["names"], self.told
        if names and (len(names) != self.D or len({*names, "terminate"}) <= self.D):
            raise ValueError(f"names={names}: {self.action!r} has {self.D} numbers; give each a name of its own, not 'terminate'")
        if isinstance(told, dict):                          # {"motors": ["x", "y"]}, or {"x": 0, "y": 1}
            told = sorted(told, key=told.get) if all(isinstance(i, int) for i in told.values()) else list(told.values())
        told = sum((part if isinstance(part, list) else [part] for part in told), []) if isinstance(told, list) else []
        good = len(told) == self.D and all(isinstance(name, str) for name in told) and len({*told, "terminate"}) > self.D
        return names or (told if good else [f"a{d}" for d in range(self.D)])

    def picture(self, i):
        return self._picture(*self.where[i].tolist())

    def _picture(self, chunk, number, at):
        path = self.path / self._file(self.video_path if self.is_video else self.data_path, chunk, number)
        if self.is_video:
            with reading(f"{path}: the frame at {at / 1e6:.3f} s"):
                frame = kept(os.getpid())(Video, str(path), self.fps, self.index.name)[at / 1e6]
            if frame is None:
                raise ValueError(f"{path} has no whole frame at {at / 1e6:.3f} s; download it again, or delete it to do without")
            return frame
        with reading(f"{path}: row {at} of {self.camera!r}"):
            cell = kept(os.getpid())(Column, str(path), self.camera, self.index.name)[at]
            data, name = (cell["bytes"], cell["path"]) if isinstance(cell, dict) else (cell, None)
            return np.array(Image.open(self.path / name if data is None else io.BytesIO(data)).convert("RGB"))
