"""LeRobot data sets as logs: v2.0, v2.1 and v3.0, pictures in videos or in columns"""
import functools
import importlib
import os
import re
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from formats.index import (MOST_NUMBERS, IndexedLog, inside, json_lines, one_line, read_json, read_picture,
                           short)


def extra(module):
    """a module that only LeRobot data needs"""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"LeRobot data needs {module.split('.')[0]}; "
                         "run: pip install -r formats/requirements.txt") from None


@contextmanager
def reading(what):
    """whatever a library raises on a damaged file becomes a ValueError that names it"""
    try:
        yield
    except Exception as e:
        reason = f"{type(e).__name__}: {one_line(e)}"
        raise ValueError(f"{what} cannot be read ({reason}); is it whole? download it again") from None


# -----------------------------------------------------------------------------------------------------------
# where pictures are: a column of a table, or a video

class Column:
    """One column of a parquet file, by row. It keeps the last row group: the next step is often in it."""

    def __init__(self, path, key):
        self.file, self.key, self.group = extra("pyarrow.parquet").ParquetFile(path), key, None
        about, have = self.file.metadata, self.file.schema_arrow.names
        if key not in have:
            raise ValueError(f"{path} has no column {key!r}; it has: {', '.join(have)}")
        self.ends = np.cumsum([about.row_group(g).num_rows for g in range(about.num_row_groups)]).tolist()

    def __getitem__(self, row):
        group = int(np.searchsorted(self.ends, row, "right"))
        if group != self.group:
            self.cells = self.file.read_row_group(group, columns=[self.key], use_threads=False)[self.key]
            self.group = group
        return self.cells[row - self.ends[group] + len(self.cells)].as_py()


class Video:
    """One video, by time. It keeps its last frame: to a time just ahead it decodes on, else it seeks."""
    AHEAD = 10                                              # frames
    MOST = 50_000_000                                       # pixels of a frame

    def __init__(self, path, fps):
        self.container, self.fps, self.last = extra("av").open(path), fps, None
        if not self.container.streams.video:
            raise ValueError("there is no video in it")
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = 1      # workers are many; threads start anew at each seek
        if self.stream.width * self.stream.height > self.MOST:
            raise ValueError(f"its frames have {self.stream.width} x {self.stream.height} pixels")

    def times(self):
        """
        When each frame is shown, in seconds, in order. Nothing is decoded. And a checksum of the file, as its
        head changes frames, too (it may turn them).
        """
        pts = np.array([p.pts for p in self.container.demux(self.stream)
                        if p.pts is not None and not p.is_corrupt and not p.is_discard], np.float64)
        check = 0
        with open(self.container.name, "rb") as f:
            while part := f.read(2**20):
                check = zlib.crc32(part, check)
        return np.sort(pts) * float(self.stream.time_base), check

    def __getitem__(self, t):
        """the frame (H, W, 3) that is shown from t seconds on, or None"""
        near, last, self.last = min(.001, .5 / self.fps), self.last, None       # after a failure: seek
        if last is None or not -near < t - last.time < self.AHEAD / self.fps:
            for back in (0, 1, t):      # a key frame that is shown after t may be stored before it: go back
                self.container.seek(round(max(t - back, 0) / self.stream.time_base), stream=self.stream)
                self.frames = self.container.decode(self.stream)
                last = next(self.frames, None)
                if last is None or last.time < t + near:
                    break
        while last is not None and last.time <= t - near:
            last = next(self.frames, None)
        if last is None or last.time >= t + near or last.is_corrupt:
            return None
        self.last = last
        try:
            pixels = last.to_ndarray(format="rgb24", threads=1)
        except TypeError:       # PyAV 15, which LeRobot asks for, knows no threads here and needs none
            pixels = last.to_ndarray(format="rgb24")
        return np.rot90(pixels, last.rotation // 90)


@functools.cache
def kept_open(pid):
    """
    kept_open(os.getpid())(kind, path, detail, version) -> kind(path, detail), kept open, as are the last
    four. version: of the log, whose files may be copied anew. A forked worker starts afresh and lets be what
    its parent has open: the two would share the place they read at, and to close what had threads in the
    parent would wait for them forever.
    """
    return functools.lru_cache(4)(lambda kind, path, detail, version: kind(path, detail))


def frames_at(times, t, half):
    """
    The frames of a video, shown at `times`, that belong to steps at t seconds: their times, or None if a step
    has no frame less than half a frame away, or none of its own.

    Example: frames_at([0, .1, .2, .3], [.09, .31], .05) -> [.1, .3]
             frames_at([0, .1, .2, .3], [.2, .4], .05) -> None
    """
    if not len(times) or not np.isfinite(t).all():
        return None
    after = np.searchsorted(times, t).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(times[before] - t) <= np.abs(times[after] - t), before, after)
    fits = (np.abs(times[nearest] - t) < half).all() and (np.diff(nearest) > 0).all()
    return times[nearest] if fits else None


# -----------------------------------------------------------------------------------------------------------
# names of files

FIELD = re.compile(r"\{(episode_chunk|chunk_index|episode_index|file_index)(?::0?([0-9]{1,2})d)?\}")


def fill_in(template, chunk, number) -> str:
    """Example: fill_in("chunk-{chunk_index:03d}/{file_index:03d}.mp4", 0, 7) -> "chunk-000/007.mp4" """
    return FIELD.sub(lambda m: f"{chunk if 'chunk' in m[1] else number:0{m[2] or 1}d}", template)


def stars(template) -> str:
    """a pattern for the files of a template.  Example: "chunk-{chunk_index:03d}/*.mp4" -> "chunk-*/*.mp4" """
    return FIELD.sub("*", template)


@dataclass
class Camera:
    """
    One camera of a data set: its feature, and whether its pictures are frames of videos. Then video_path says
    where these are, and in v3.0 starts tells of each episode the two numbers of its video, and from when to
    when it is in it, in seconds.
    """
    key: str
    is_video: bool
    video_path: str = ""
    starts: dict = field(default_factory=dict)


class LeRobot(IndexedLog):
    """
    LeRobot data sets v2.0, v2.1 and v3.0: parquet tables with a row for each step; pictures in a column, or
    in videos.

    camera: a feature such as "observation.images.top" or the end of its name, "top", or a list of several;
    not needed where there is only one. action: a feature; else `action` or `actions`. names: of its numbers;
    else those of meta/info.json; else a0, a1, ...

    Which frame belongs to a row of a video's episode? The frame at its timestamp, if every row has one of
    its own there, as in LeRobot. Else the timestamps are of another clock: then it is the next frame, if
    there are as many frames as rows, or else the frame at frame_index / fps, or at row / fps. If none of this
    gives every row a frame, frames are lost, and the episode is left out. summary() says how many were found
    in which way.

    where: the two numbers in a file's name, 0 and 12 for data/chunk-000/episode_000012.parquet, then the row
    of the table or, for a video, the microsecond. In v3.0 a file has many episodes; meta/episodes tells in
    which video each lies, and where in it. It tells the same of the rows, but converters have got those
    wrong (huggingface/lerobot issues 1919 and 2401), while the column episode_index is right: we go by that.

    Pictures in any order are only as fast as the files allow: a frame of a video costs all since the key
    frame before it (LeRobot writes one every 2 frames, other tools every 250), a picture in a column its
    whole row group (100 rows, an episode, or all).
    """
    options = {**IndexedLog.options, "camera": [], "action": ""}
    described_by = ("meta/*.json*", "meta/**/*.parquet")

    def files(self):
        extra("pyarrow")
        self.path = self.path.absolute()        # else so100: in so100:v1/meta would be taken for a protocol
        info = self.path / "meta/info.json"
        if not info.exists():
            raise ValueError(f"{self.path} has no meta/info.json; give the folder of a LeRobot data set")
        about = read_json(info)
        with reading(info):
            version = about["codebase_version"]
        if version not in ("v2.0", "v2.1", "v3.0"):
            raise ValueError(f"{info}: codebase_version is {short(version)}; convert to v2.0, v2.1 or v3.0 "
                             "with LeRobot's own scripts")
        with reading(info):
            features = {key: (f["dtype"], f.get("shape"), f.get("names"))
                        for key, f in about["features"].items()}
            depth = {key for key, f in about["features"].items() for part in ("info", "video_info")
                     if (f.get(part) or {}).get("video.is_depth_map")}
            self.fps = float(about["fps"])
            if not 1e-3 < self.fps < 1e5:
                raise ValueError(f"fps = {self.fps}")
        self.data_path, video_path = about.get("data_path"), about.get("video_path") or ""
        self.check_template(info, self.data_path)
        cameras = {key: kind == "video" for key, (kind, _, _) in features.items()
                   if kind in ("video", "image")}
        self.views, self.v3 = [], version == "v3.0"
        for wanted in self.settings["camera"] or [""]:
            found = [c for c in cameras if c == wanted] or \
                [c for c in cameras if not wanted or c.endswith("." + wanted)]
            if len(found) != 1:
                raise ValueError(f"{self.path}: camera = {wanted!r} fits {len(found)} cameras; use one of: "
                                 f"{', '.join(cameras)}")
            if found[0] in depth:
                raise ValueError(f"{info}: {found[0]} is a depth map, which 8 bits cannot hold; choose "
                                 "another camera")
            self.views.append(Camera(found[0], cameras[found[0]]))
        self.cameras = tuple(view.key.split(".")[-1] for view in self.views)
        self.action = self.settings["action"] or ("action" if "action" in features else "actions")
        _, shape, self.told = features.get(self.action, (None, None, None))
        if type(shape) is not list or [type(n) for n in shape] != [int] or not 0 < shape[0] <= MOST_NUMBERS:
            raise ValueError(f"{info} has no feature {self.action!r} that is one list of 1 to {MOST_NUMBERS} "
                             f"numbers; set action to one of: {', '.join(features)}")
        self.D, self.tasks = shape[0], self.read_tasks()
        data = self.all_named(self.data_path)
        if not data:
            raise ValueError(f"{self.path}: no file is named like {self.data_path}; download the whole set")
        for view in self.views:
            if view.is_video:
                self.check_template(info, video_path)
                self.find_videos(view, video_path)
            else:                                           # pictures may be beside the tables
                self.described_by = (*self.described_by, "images/**/*")
        return data

    def check_template(self, info, template):
        if type(template) is not str or "{" in FIELD.sub("", template.replace("{video_key}", "")):
            raise ValueError(f"{info}: {short(template)} is not a name of files as LeRobot writes it")
        inside(self.path, template, self.settings["outside"])

    def all_named(self, template):
        with reading(f"{self.path}: a file named like {template}"):
            return sorted(f.relative_to(self.path).as_posix() for f in self.path.glob(stars(template)))

    def read_tasks(self):
        """task_index -> text. In v3.0 the text is the index of a pandas table, with a name or without."""
        file = self.path / "meta/tasks.parquet"
        if file.exists():
            table = self.table("meta/tasks.parquet", ())
            with reading(file):
                text = table["task" if "task" in table.column_names else "__index_level_0__"].to_pylist()
                tasks = dict(zip(table["task_index"].to_pylist(), text))
        else:
            file = file.with_suffix(".jsonl")
            lines = json_lines(file, {"task_index": int})
            tasks = {row["task_index"]: row.get("task") for _, _, row in lines}
        for i, task in tasks.items():
            if not isinstance(task, (str, type(None))):
                raise ValueError(f"{file}: task {short(i)} is {short(task)}; it must be a text")
        return {i: task or "" for i, task in tasks.items()}

    def find_videos(self, camera, told):
        """sets video_path and starts of a Camera. told: the video_path of meta/info.json"""
        extra("av")
        top, _, rest = told.partition("/")
        folders = (top, *(f.name for f in self.path.iterdir() if f.is_dir() and f.name != top))
        names = [f"{folder}/{rest}".replace("{video_key}", key)
                 for key in (camera.key, camera.key.split(".")[-1]) for folder in folders]
        found = [name for name in dict.fromkeys(names) if rest and self.all_named(name)]
        if not found or len(found) > 1 and found[0] != names[0]:
            raise ValueError(f"{self.path}: {len(found)} folders have videos of {camera.key}, but not "
                             f"that in meta/info.json, {told}; download it, or choose another one")
        inside(self.path, found[0], self.settings["outside"])       # the name of a camera may lead out, too
        camera.video_path = found[0]
        self.described_by = (*self.described_by, stars(found[0]))
        *keys, until = ["episode_index", *(f"videos/{camera.key}/{key}" for key in (
            "chunk_index", "file_index", "from_timestamp", "to_timestamp"))]
        for file in self.all_named("meta/episodes/*/*.parquet") if self.v3 else []:
            table = self.table(file, keys, perhaps=[until])
            places = np.hstack([self.column(file, table, key) for key in table.column_names])  # (E, 4 or 5)
            if until not in table.column_names:             # it ends where the next one in its video begins
                places = places[np.lexsort(places.T[[3, 2, 1]])]
                follows = (places[1:, 1:3] == places[:-1, 1:3]).all(1)
                ends = np.where(follows, places[1:, 3], np.inf)
                places = np.column_stack((places, np.append(ends, np.inf)))
            camera.starts |= {e: place for e, *place in places.tolist()}

    def table(self, file, keys, perhaps=()):
        """the columns `keys` of a parquet file, and those of `perhaps` that it has; without keys all"""
        path = self.path / file
        with reading(path):
            parquet = extra("pyarrow.parquet").ParquetFile(path)
            have, about = parquet.schema_arrow.names, parquet.metadata
            keys = [*keys, *(key for key in perhaps if key in have)]
            paths = [about.schema.column(i).path for i in range(about.num_columns)]
            first = {name.split(".")[0] for name in keys or paths}
            wanted = [i for i, name in enumerate(paths) if name.split(".")[0] in first]
            # where a damaged file is an error here, it would end the process in column()
            parquet.scan_contents(columns=[paths[i] for i in wanted])
            told = sum(about.row_group(g).column(i).num_values
                       for g in range(about.num_row_groups) for i in wanted)
        for key in keys:
            if key not in have:
                raise ValueError(f"{path} has no column {key!r}; it has: {', '.join(have)}")
        if told > 20_000_000 + path.stat().st_size:         # before memory is taken for them
            raise ValueError(f"{path} claims {told} numbers, more than its size allows; is it damaged?")
        with reading(path):
            return parquet.read(columns=keys or None, use_threads=False).select(keys or have)

    def column(self, file, table, key, D=1):
        """(T, D) float64: a column of numbers, or of lists of D of them; NaN where there is none"""
        column, pc = table[key], extra("pyarrow.compute")
        with reading(f"{self.path / file}: column {key!r}"):
            lists = hasattr(column.type, "value_type")
            lengths = pc.list_value_length(column).to_numpy() if lists else np.ones(len(column))
            values = (pc.list_flatten(column) if lists else column).to_numpy().astype(np.float64)
        if (lengths != D).any():
            raise ValueError(f"{self.path / file}: a row of {key!r} has not {D} numbers, as meta/info.json "
                             "says; correct either")
        return values.reshape(-1, D)

    def scan(self, file):
        path, numbers = self.path / file, [int(n) for n in re.findall("[0-9]+", file)[-2:]]
        if len(numbers) < 2 or fill_in(self.data_path, *numbers) != file:
            raise ValueError(f"{path}: the name does not fit {self.data_path} in meta/info.json; correct one")
        keys, clocks = ["task_index", *["episode_index"] * self.v3], ["timestamp", "frame_index"]
        table = self.table(file, [self.action, *keys], perhaps=clocks)
        with np.errstate(over="ignore"):        # what float32 cannot hold becomes infinite, and is left out
            actions = self.column(file, table, self.action, self.D).astype(np.float32)
        steps = {key: self.column(file, table, key)[:, 0] for key in (*keys, *clocks)
                 if key in table.column_names}
        if not np.isfinite([steps[key] for key in keys]).all():
            raise ValueError(f"{path}: a row lacks its {' or '.join(keys)}; download it again")
        unknown = {*steps["task_index"]} - {*self.tasks}
        if unknown:
            raise ValueError(f"{path}: task_index {min(unknown):g} is not in meta/tasks; download meta again")
        episodes = steps.get("episode_index", np.full(len(actions), numbers[1]))
        starts = np.flatnonzero(np.diff(episodes, prepend=np.nan))              # of each run of one episode
        pictures = [{} if camera.is_video else Column(path, camera.key) for camera in self.views]
        for rows in np.split(np.arange(len(actions)), starts[1:]) if len(actions) else []:
            episode, times = int(episodes[rows[0]]), {key: steps[key][rows] for key in clocks if key in steps}
            for key, t in times.items():
                if (np.diff(t) < 0).any():
                    raise ValueError(f"{path}: the rows of episode {episode} are not in order of their {key}")
            found = [self.find_frames(camera, episode, len(rows), numbers, times, there) if camera.is_video
                     else self.find_cells(camera, rows, numbers, there, path)
                     for camera, there in zip(self.views, pictures)]
            lost = [f for f in found if "skipped" in f]
            notes = dict.fromkeys(f["note"] for f in found if "note" in f)
            yield {"id": episode, **lost[0]} if lost else {
                "id": episode, "actions": actions[rows],
                "instructions": [self.tasks[i] for i in steps["task_index"][rows]],
                "where": np.stack([f["where"] for f in found], 1), "pictures": [f["pictures"] for f in found],
                **({"note": ", or ".join(notes)} if notes else {})}

    def find_cells(self, camera, rows, numbers, cells, path):
        """where the pictures of an episode are, if they are in a column"""
        sums = []
        for row in rows.tolist():
            name = f"{path}: row {row} of {camera.key!r}"
            data, file = self.cell(cells, row, name)
            if not data and not file:
                return {"skipped": "episodes without pictures"}
            if not data:
                beside = inside(self.path, file, self.settings["outside"])
                if not os.path.isfile(beside):
                    raise ValueError(f"{name} is the file {short(file)}, which is not there")
                data = beside.read_bytes()
            sums.append(zlib.crc32(data))
        return {"where": np.column_stack((np.full((len(rows), 2), numbers), rows)), "pictures": sums}

    def find_frames(self, camera, episode, n, numbers, clocks, videos):
        """where the pictures of an episode of n steps are, if they are frames; videos: those seen so far"""
        *place, start, end = camera.starts.get(episode, [np.nan] * 4) if self.v3 else [*numbers, 0, np.inf]
        if not all(0 <= x < 1e9 for x in (*place, start)):
            return {"skipped": "episodes without pictures"}
        place, half = [int(x) for x in place], .5 / self.fps
        path = self.path / fill_in(camera.video_path, *place)
        if not path.exists():
            return {"skipped": "episodes without pictures"}
        if path not in videos:
            with reading(path):
                videos[path] = Video(str(path), self.fps).times()
        times, check = videos[path]
        times = times[(times > start - half) & (times < (end if end > start else np.inf) - half)]

        def frames(clock, unit):
            return frames_at(times, start + clocks.get(clock, np.array([np.nan])) * unit, half)
        shown, way = frames("timestamp", 1), "by timestamp"
        if shown is None and len(times) == n:
            shown, way = times, "one a row, as their timestamps are not those of the video"
        if shown is None:
            shown = frames("frame_index", 1 / self.fps)
            way = "by frame_index / fps, as their timestamps do not fit"
        if shown is None:
            shown = frames_at(times, start + np.arange(n) / self.fps, half)
            way = "by row / fps, as their timestamps do not fit"
        if shown is None:
            return {"skipped": "episodes with steps that have no frame in their video"}
        where = np.column_stack((np.full((n, 2), place), np.round(shown * 1e6))).astype(np.int64)
        self.frame(camera, *where[-1].tolist())     # a video that is cut short shows now, not after a day
        return {"where": where, "pictures": check, "note": f"episodes find their frames {way}"}

    def action_names(self):
        names, told = self.settings["names"], self.told
        if names and (len(names) != self.D or len({*names, "terminate"}) <= self.D):
            raise ValueError(f"names = {names}: {self.action!r} has {self.D} numbers; give each a name of "
                             "its own, not 'terminate'")
        if isinstance(told, dict):                          # {"motors": ["x", "y"]}, or {"x": 0, "y": 1}
            numbered = all(type(i) is int for i in told.values())
            told = sorted(told, key=told.get) if numbered else list(told.values())
        if isinstance(told, list):
            told = sum((part if isinstance(part, list) else [part] for part in told), [])
        good = (isinstance(told, list) and len(told) == self.D and all(isinstance(name, str) for name in told)
                and len({*told, "terminate"}) > self.D)
        return names or (told if good else [f"a{d}" for d in range(self.D)])

    # -- pictures

    def view(self, camera, *where):
        camera = self.views[camera]
        return (self.frame if camera.is_video else self.image)(camera, *where)

    def frame(self, camera, chunk, number, microsecond):
        path, t = self.path / fill_in(camera.video_path, chunk, number), microsecond / 1e6
        with reading(f"{path}: the frame at {t:.3f} s"):
            frame = kept_open(os.getpid())(Video, str(path), self.fps, self.index.name)[t]
        if frame is None:
            raise ValueError(f"{path} has no whole frame at {t:.3f} s; download it again, or delete it to do "
                             "without")
        return frame

    def image(self, camera, chunk, number, row):
        path = self.path / fill_in(self.data_path, chunk, number)
        name = f"{path}: row {row} of {camera.key!r}"
        with reading(name):
            cells = kept_open(os.getpid())(Column, str(path), camera.key, self.index.name)
        data, file = self.cell(cells, row, name)
        return read_picture(data or self.path / file, name)

    @staticmethod
    def cell(cells, row, name):
        """-> the bytes of a picture, and the name of its file; one of them may be None"""
        with reading(name):
            cell = cells[row]
            data, file = (cell["bytes"], cell["path"]) if isinstance(cell, dict) else (cell, None)
        if not isinstance(data, (bytes, type(None))) or not isinstance(file, (str, type(None))):
            raise ValueError(f"{name} is {short(cell)}, not a picture")
        return data, file
