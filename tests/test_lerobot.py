"""LeRobot data sets, written here from the description of the format. a picture is one grey, and its action tells which"""
import contextlib
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

import data
from formats import index
from formats.lerobot import Video, frames_at

CAMERA, FPS, LENGTHS = "observation.images.top", 10, (8, 12)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """a pool of processes takes a second to start; one test below has it"""
    monkeypatch.setattr(index, "in_processes", map)


def film(path, greys, codec="mpeg4", container={}, **options):
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def needs(codec):
    try:
        pytest.importorskip("av").Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this av cannot write {codec}")


def png(grey, mode="RGB"):
    file = io.BytesIO()
    Image.new("L", (64, 48), grey).convert(mode).save(file, "png")
    return file.getvalue()


def save(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=5)


def write(root, version="v2.1", kind="video", D=7, action="action", camera=CAMERA, names=None, text="task", lists=None, clock=0.,
          cell=lambda grey: {"bytes": png(grey), "path": None}, features=None):
    """a data set of two episodes, of 8 and 12 steps; their 20 greys are 10, 22, 34, ..."""
    v3, greys, tables, start = version == "v3.0", [10 + 12 * i for i in range(sum(LENGTHS))], [], 0
    for e, T in enumerate(LENGTHS):
        grey = greys[start:start + T]
        numbers = [[g / 1000] + [.01] * (D - 1) for g in grey]
        tables.append({
            action: pa.array(numbers, lists or pa.list_(pa.float32())), "observation.state": numbers,
            "timestamp": pa.array(clock + np.arange(T) / FPS, pa.float32()), "frame_index": np.arange(T),
            "episode_index": [e] * T, "index": np.arange(start, start + T), "task_index": [e] * T})
        if kind == "image":
            tables[-1][camera] = [cell(g) for g in grey]
        if kind == "video" and not v3:
            film(root / f"videos/chunk-000/{camera}/episode_{e:06d}.mp4", grey)
        start += T
    if v3:
        save(root / "data/chunk-000/file-000.parquet", pa.concat_tables(map(pa.table, tables)))
        if kind == "video":
            film(root / f"videos/{camera}/chunk-000/file-000.mp4", greys)
        save(root / "meta/tasks.parquet", {"task_index": [1, 0], text: ["push the cup", "open the box"]})
        save(root / "meta/episodes/chunk-000/file-000.parquet", {
            "episode_index": [0, 1], "dataset_from_index": [0, 8], "dataset_to_index": [8, 20], "data/chunk_index": [0, 0],
            "data/file_index": [0, 0]} | ({f"videos/{camera}/chunk_index": [0, 0], f"videos/{camera}/file_index": [0, 0],
                                           f"videos/{camera}/from_timestamp": [0., .8],
                                           f"videos/{camera}/to_timestamp": [.8, 2.]} if kind == "video" else {}))
    else:
        for e, table in enumerate(tables):
            save(root / f"data/chunk-000/episode_{e:06d}.parquet", table)
        (root / "meta").mkdir()
        (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "open the box"}\n'
                                               '{"task_index": 1, "task": "push the cup"}\n')
    number = {"dtype": "int64", "shape": [1], "names": None}
    info(root, codebase_version=version, fps=FPS, chunks_size=1000, total_episodes=len(LENGTHS), total_frames=start,
         data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet" if v3 else
         "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
         video_path=None if kind == "image" else "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if v3 else
         "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
         features={camera: {"dtype": kind, "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
                   action: {"dtype": "float32", "shape": [D], "names": names}, "timestamp": number, "task_index": number,
                   "observation.state": {"dtype": "float32", "shape": [D], "names": None}} | (features or {}))
    return root


def info(root, **changes):
    file = root / "meta/info.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def read(root, **options):
    return data.open_log("robot", {"format": "lerobot", "path": str(root), **options}, root.with_name("cache"), quiet=True)


def right(log, order=None):
    """every picture is that of its step: nearer to its grey than to the next"""
    order = range(len(log)) if order is None else order
    return all(log.picture(i).shape == (48, 64, 3) and abs(log.picture(i).mean() - 1000 * log.actions[i][1]) < 6 for i in order)


# -- what the log says

@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_steps_words_and_pictures_of_every_version(tmp_path, version, kind):
    log = read(write(tmp_path / "set", version, kind))
    assert log.counts == {"episodes": 2, "steps": 20, "skipped": {}}
    assert log.names == ("terminate", "a0", "a1", "a2", "a3", "a4", "a5", "a6")
    assert [log.instruction(i) for i in (0, 7, 8, 19)] == ["open the box"] * 2 + ["push the cup"] * 2
    assert np.flatnonzero(log.actions[:, 0]).tolist() == [7, 19]
    assert np.allclose(log.actions[:, 1], [.01 + .012 * i for i in range(20)])
    assert log.picture(3).dtype == np.uint8 and right(log)
    assert right(read(tmp_path / "set"), [19, 0, 8, 7, 12])         # from the index that is there now


def test_the_scan_runs_in_other_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "in_processes", data.in_processes)
    assert right(read(write(tmp_path / "set")))


@pytest.mark.parametrize("text", ["task", "__index_level_0__"])
def test_both_spellings_of_the_tasks_of_v3(tmp_path, text):
    assert read(write(tmp_path / "set", "v3.0", "image", text=text)).instructions == ["open the box", "push the cup"]


@pytest.mark.parametrize("D, names, said", [
    (2, None, ["a0", "a1"]), (14, {"motors": list("abcdefghijklmn")}, list("abcdefghijklmn")), (2, ["x", "y"], ["x", "y"]),
    (2, [["x", "y"]], ["x", "y"]), (2, {"y": 1, "x": 0}, ["x", "y"]),
    (2, ["x", "x"], ["a0", "a1"]), (2, ["x"], ["a0", "a1"]), (2, ["x", "y", "z"], ["a0", "a1"]), (2, "xy", ["a0", "a1"]),
    (2, ["terminate", "x"], ["a0", "a1"])])
def test_names_of_the_numbers(tmp_path, D, names, said):
    root = write(tmp_path / "set", kind="image", D=D, names=names)
    assert read(root).names == ("terminate", *said)
    mine = [f"n{d}" for d in range(D)]
    assert read(root, names=mine).names == ("terminate", *mine)
    for bad in (["x"], ["x"] * D, ["terminate", *mine[1:]], [*mine, "x"]):
        with pytest.raises(ValueError, match="give each"):
            read(root, names=bad)


@pytest.mark.parametrize("lists", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.float64())])
def test_lists_of_any_kind(tmp_path, lists):
    assert right(read(write(tmp_path / "set", kind="image", D=2, lists=lists)))


def test_one_number_is_a_column_without_lists(tmp_path):
    root = write(tmp_path / "set", kind="image", D=1)
    for file in root.glob("data/*/*"):
        table = pq.read_table(file)
        pq.write_table(table.set_column(0, "action", pa.array([a[0] for a in table["action"].to_pylist()], pa.float64())), file)
    assert right(read(root))


# -- odd sets

def test_other_keys_and_the_choice_of_a_camera(tmp_path):
    more = {"observation.images.desktop": {"dtype": "video", "shape": [48, 64, 3]}, "sound": {"dtype": "audio", "shape": [1]}}
    root = write(tmp_path / "set", camera="image", action="actions", kind="image", features=more)
    with pytest.raises(ValueError, match="fits 2 cameras; use one of: image, observation.images.desktop"):
        read(root)
    assert right(read(root, camera="image"))
    with pytest.raises(ValueError, match="fits 0 cameras"):
        read(root, camera="top")                            # the end of a name, but not of a part of one
    with pytest.raises(ValueError, match="0 folders have videos of observation.images.desktop"):
        read(root, camera="desktop")                        # in info.json alone
    assert right(read(root, camera="image", action="observation.state"))
    with pytest.raises(ValueError, match="no feature 'action' that"):
        read(root, camera="image", action="action")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_several_cameras(tmp_path, version):
    """in videos, each with places of its own; with one that is missing the episode is left out"""
    root = write(tmp_path / "set", version)
    here, there = CAMERA, CAMERA + "_2"
    for video in (root / "videos").glob("**/*.mp4"):
        other = root / str(video.relative_to(root)).replace(here, there)
        other.parent.mkdir(parents=True, exist_ok=True)
        film(other, [250 - 6 * n for n in range(20)] if version == "v3.0" else
             [250 - 6 * n for n in (range(8) if "000000" in video.name else range(8, 20))])
    features = json.loads((root / "meta/info.json").read_text())["features"]
    info(root, features={**features, there: features[here]})
    for file in (root / "meta/episodes").glob("*/*.parquet"):
        table = pq.read_table(file).to_pydict()
        save(file, {**table, **{key.replace(here, there): value for key, value in table.items() if here in key}})
    names = [c.split(".")[-1] for c in (there, here)]
    log = read(root, camera=names)
    assert log.cameras == tuple(names) and len(log) == 20
    for i in (0, 7, 8, 19):
        two, one = log.picture(i)
        assert abs(two.mean() - (250 - 6 * i)) < 4 and abs(one.mean() - 1000 * log.actions[i][1]) < 6
    if version == "v2.1":
        next((root / "videos").glob(f"**/{there}/episode_000000.mp4")).unlink()
        assert read(root, camera=names).counts["skipped"] == {"episodes without pictures": 1} and len(read(root, camera=names[1])) == 20


def test_a_camera_without_its_column(tmp_path):
    root = write(tmp_path / "set", kind="image", features={"depth": {"dtype": "image", "shape": [48, 64, 1]}})
    with pytest.raises(ValueError, match="episode_000000.parquet has no column 'depth'; it has: action"):
        read(root, camera="depth")


def test_an_episode_without_its_video_is_left_out_until_it_comes(tmp_path):
    root = write(tmp_path / "set")
    file = root / f"videos/chunk-000/{CAMERA}/episode_000000.mp4"
    file.rename(tmp_path / "away.mp4")
    log = read(root)
    assert log.counts == {"episodes": 1, "steps": 12, "skipped": {"episodes without pictures": 1}} and right(log)
    (tmp_path / "away.mp4").rename(file)
    assert len(read(root)) == 20


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), 1e300])
def test_an_episode_of_v3_without_a_video(tmp_path, nothing):
    root = write(tmp_path / "set", "v3.0")
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file).to_pydict()
    save(file, table | {f"videos/{CAMERA}/{k}": pa.array([nothing, v]) for k, v in
                        (("chunk_index", 0.), ("file_index", 0.), ("from_timestamp", .8))})
    log = read(root)
    assert log.counts["skipped"] == {"episodes without pictures": 1} and right(log)


@pytest.mark.parametrize("folder", ["video/chunk-000/" + CAMERA, "videos/chunk-000/top", "film/chunk-000/top"])
def test_videos_in_another_folder_than_told(tmp_path, folder):
    root = write(tmp_path / "set")
    (root / folder).parent.mkdir(parents=True, exist_ok=True)
    (root / "videos/chunk-000" / CAMERA).rename(root / folder)
    assert right(read(root))
    (root / "more").mkdir()
    (root / folder).parent.rename(root / "more/chunk-000")
    assert right(read(root))
    (root / "most/chunk-000/top").mkdir(parents=True)
    (root / "most/chunk-000/top/episode_000000.mp4").touch()
    with pytest.raises(ValueError, match="2 folders have videos of"):
        read(root)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_clock_that_does_not_start_at_0(tmp_path, version):
    assert right(read(write(tmp_path / "set", version, clock=1234.5)))


def test_the_rows_of_v3_go_by_episode_index_not_by_wrong_metadata(tmp_path):
    root = write(tmp_path / "set", "v3.0")
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    pq.write_table(table.slice(0, 8), root / "data/chunk-000/file-000.parquet")
    pq.write_table(table.slice(8), root / "data/chunk-000/file-001.parquet")       # where meta/episodes does not say it is
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    save(file, pq.read_table(file).to_pydict() | {"dataset_from_index": [3, 3], "dataset_to_index": [4, 4]})
    log = read(root)
    assert len(log) == 20 and right(log)


def test_pictures_that_are_bytes_or_files(tmp_path):
    assert right(read(write(tmp_path / "bytes", kind="image", cell=lambda grey: png(grey, "L"))))
    root = tmp_path / "files"

    def cell(grey):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / f"images/{grey}.png").write_bytes(png(grey))
        return {"bytes": None, "path": f"images/{grey}.png"}
    log = read(write(root, kind="image", cell=cell))
    assert right(log)
    for i, grey in ((0, 10), (5, 70)):
        (root / f"images/{grey}.png").rename(tmp_path / "away.png")
        with pytest.raises(ValueError, match=f"episode_000000.parquet: row {i} of '{CAMERA}': this picture .* is not there"):
            log.picture(i)
        with pytest.raises(ValueError, match=f"episode_000000.parquet: row {i} of '{CAMERA}' is the file .*{grey}.png', which is not there"):
            read(root)                                      # and at once, when the log is opened anew
        (tmp_path / "away.png").rename(root / f"images/{grey}.png")


def test_numbers_that_are_not_finite_leave_the_episode_out(tmp_path):
    root = write(tmp_path / "set", kind="image", D=2)
    file = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(file).to_pydict()
    table["action"][3] = [float("nan"), 0]
    save(file, table)
    assert read(root).counts["skipped"] == {"episodes with an action that is not finite": 1}


# -- pictures in any order

@pytest.mark.parametrize("kind", ["video", "image"])
def test_any_order_gives_the_same_pictures(tmp_path, kind):
    log = read(write(tmp_path / "set", "v3.0", kind))
    one_by_one = [log.picture(i) for i in range(20)]
    for i in np.random.default_rng(0).integers(0, 20, 60):
        assert (log.picture(i) == one_by_one[i]).all()
    assert (pickle.loads(pickle.dumps(log)).picture(3) == one_by_one[3]).all()      # as a loader that spawns its workers does


@pytest.mark.parametrize("codec, options", [
    ("mpeg4", {}), ("libx264", {}), ("libx264", {"x264-params": "keyint=8:open-gop=1:scenecut=0:b-adapt=0:bframes=3"}),
    ("libx265", {"x265-params": "keyint=8:scenecut=0:b-adapt=0:bframes=3:log-level=none"}), ("libsvtav1", {"g": "2"})])
def test_frames_by_time_whatever_the_codec(tmp_path, codec, options):
    needs(codec)
    film(tmp_path / "a.mp4", [10 + 12 * i for i in range(20)], codec, **options)
    for i in [*range(20), *np.random.default_rng(0).integers(0, 20, 40)]:
        if i % 7 == 0:
            video = Video(str(tmp_path / "a.mp4"), FPS)
        assert abs(video[float(np.float32(i / FPS))].mean() - 10 - 12 * i) < 6
    for i in (18, 20, 19, -1, 0):
        frame = video[i / FPS]
        assert frame is None if i in (20, -1) else abs(frame.mean() - 10 - 12 * i) < 6


def test_the_next_frame_is_decoded_not_sought(tmp_path):
    pytest.importorskip("av")
    film(tmp_path / "a.mp4", range(0, 240, 12))
    video, sought = Video(str(tmp_path / "a.mp4"), FPS), []
    container = video.container

    class Counting:
        def seek(self, *a, **k):
            sought.append(a)
            container.seek(*a, **k)

        def __getattr__(self, name):
            return getattr(container, name)
    video.container = Counting()
    for i in (0, 1, 2, 2, 5, 6, 19, 3):
        assert abs(video[i / FPS].mean() - 12 * i) < 6
    assert len(sought) == 3 and sought[1][0] > 0            # for 0, 19 and 3


class Greys(torch.utils.data.Dataset):
    def __init__(self, log):
        self.log = log

    def __len__(self):
        return len(self.log)

    def __getitem__(self, i):
        return i, self.log.picture(i).mean()


@pytest.mark.parametrize("kind", ["video", "image"])
def test_worker_processes_read_the_right_pictures(tmp_path, kind):
    others = [read(write(tmp_path / f"other {n}", "v3.0", "video" if n % 2 else kind)) for n in range(4)]
    log = read(write(tmp_path / "set", "v3.0", kind))
    for one in (*others, log):
        one.picture(4)                                      # the parent has them open and stands in their middle
    loader = torch.utils.data.DataLoader(Greys(log), batch_size=1, shuffle=True, num_workers=2, multiprocessing_context="fork",
                                         timeout=30)
    for i, grey in [*loader, *((i, log.picture(i).mean()) for i in (5, 4, 6))]:
        assert abs(float(grey) - 1000 * log.actions[int(i)][1]) < 6


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_file_is_opened_once_a_process(tmp_path, monkeypatch, kind):
    log = read(write(tmp_path / "set", "v3.0", kind))
    log.picture(4)
    calls = []
    monkeypatch.setattr("formats.lerobot.extra", lambda name: calls.append(name) or importlib.import_module(name))
    log.picture(15)
    assert not calls
    monkeypatch.setattr(os, "getpid", lambda: -1)
    log.picture(15)
    assert len(calls) == 1


# -- what goes wrong

@pytest.mark.parametrize("missing", ["pyarrow", "av"])
def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch, missing):
    root = write(tmp_path / "set")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError) as e:
        read(root)
    assert str(e.value) == f"LeRobot data needs {missing}; run: pip install -r formats/requirements.txt"


def test_pictures_in_the_tables_need_no_av(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert right(read(write(tmp_path / "set", kind="image")))


@pytest.mark.parametrize("changes, said", [
    ({"codebase_version": "v1.6"}, "info.json: codebase_version is 'v1.6'; convert to"),
    ({"features": None}, "info.json cannot be read"), ({"fps": 0}, "info.json cannot be read"),
    ({"fps": float("inf")}, "info.json cannot be read"), ({"data_path": None}, "None is not a name of files"),
    ({"data_path": "/etc/{episode_index}"}, "outside of its folder"),
    ({"data_path": "data/../../{episode_index}"}, "outside of its folder"),
    ({"data_path": "data/{x}/episode_{episode_index:06d}.parquet"}, "'data/{x}/.* is not a name of files"),
    ({"data_path": "data/{episode_index:0999999999d}"}, "is not a name of files"),
    ({"features": {"action": {"dtype": "float32", "shape": [7]}}}, "fits 0 cameras")])
def test_a_wrong_info_json(tmp_path, changes, said):
    root = write(tmp_path / "set", kind="image")
    info(root, **changes)
    with pytest.raises(ValueError, match=said):
        read(root)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_new_words_for_the_tasks_make_a_new_index(tmp_path, version):
    root = write(tmp_path / "set", version, "image")
    read(root)
    if version == "v3.0":
        save(root / "meta/tasks.parquet", {"task_index": [0, 1], "task": ["one", "two"]})
    else:
        (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "one"}\n{"task_index": 1, "task": "two"}\n')
    assert read(root).instructions == ["one", "two"]


def test_a_task_without_text_leaves_its_steps_out(tmp_path):
    root = write(tmp_path / "set", "v3.0", "image")
    save(root / "meta/tasks.parquet", {"task_index": [0, 1], "task": [None, "two"]})
    log = read(root)
    assert log.instructions == ["two"] and log.counts["skipped"] == {"episodes without an instruction": 1} and right(log)


def test_a_folder_that_is_something_else(tmp_path):
    with pytest.raises(ValueError, match="has no meta/info.json; give the folder"):
        read(tmp_path)


def test_rows_that_are_not_what_info_json_says(tmp_path):
    root = write(tmp_path / "set", kind="image", D=2)
    file = root / "data/chunk-000/episode_000001.parquet"
    whole = pq.read_table(file).to_pydict()
    for column, cells, said in [("action", [[.1]] + [[.1, .2, .3]] + whole["action"][2:], "a row of 'action' has not 2 numbers"),
                                ("action", [None] + whole["action"][1:], "a row of 'action' has not 2 numbers"),
                                ("action", [["a", "b"]] * 12, "column 'action' cannot be read"),
                                ("task_index", [None] + [1] * 11, "a row lacks its task_index")]:
        save(file, whole | {column: cells})
        with pytest.raises(ValueError, match=f"episode_000001.parquet.*{said}"):
            read(root)
    whole.pop("task_index")
    save(file, whole)
    with pytest.raises(ValueError, match="episode_000001.parquet has no column 'task_index'"):
        read(root)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_damaged_file_is_named(tmp_path, version, kind):
    root = write(tmp_path / "set", version, kind)
    files = [f for f in root.rglob("*") if f.is_file() and not (kind == "image" and "episodes" in f.parts)]
    for file in files:
        whole = file.read_bytes()
        for size in (0, 3, len(whole) // 2, len(whole) - (200 if file.suffix == ".mp4" else 2)):
            file.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=f"{file.name}.* (cannot be read|is not JSON)|is not in meta/tasks|^$"):
                if "no frame" in read(root).summary():      # the list of frames is cut, but a list
                    raise ValueError("")
        file.write_bytes(whole)
    assert right(read(root))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "libx265", "libsvtav1"])
def test_a_damaged_frame_is_no_picture(tmp_path, codec):
    """half of its bytes are gone. some decoders raise, some mark the frame, none may give another picture"""
    av, file = pytest.importorskip("av"), tmp_path / "a.mp4"
    needs(codec)
    film(file, [10 + 12 * i for i in range(20)], codec)
    with av.open(str(file)) as container:
        packet = list(container.demux(video=0))[9]
        start, size = packet.pos, packet.size
    data = bytearray(file.read_bytes())
    data[start + size // 2:start + size] = bytes(size - size // 2)
    file.write_bytes(data)
    video, good = Video(str(file), FPS), 0
    for i in range(20):
        try:
            frame = video[i / FPS]
        except Exception:
            continue
        assert frame is None or abs(frame.mean() - 10 - 12 * i) < 6
        good += frame is not None
    assert good > 4


def test_noise_in_a_file_is_an_error_or_a_log_but_nothing_else(tmp_path):
    generator = np.random.default_rng(0)
    for kind in ("video", "image"):
        root = write(tmp_path / kind, "v3.0", kind)
        for file in [f for f in root.rglob("*") if f.is_file()]:
            whole = np.frombuffer(file.read_bytes(), np.uint8)
            for _ in range(15):
                noise = whole.copy()
                noise[generator.integers(0, len(noise), 1 + len(noise) // 200)] = generator.integers(0, 256)
                file.write_bytes(noise.tobytes())
                with contextlib.suppress(ValueError):
                    log = read(root)
                    for i in range(len(log)):
                        log.picture(i)
            file.write_bytes(whole.tobytes())


# -- which frame belongs to which row

def change(root, **columns):
    """the column `name` of every table of rows becomes columns[name](what it was, the whole table); None takes it away"""
    for file in sorted(root.glob("data/*/*")):
        table = pq.read_table(file).to_pydict()
        for name, new in columns.items():
            table[name] = new(table.pop(name), table) if new else None
        save(file, {name: cells for name, cells in table.items() if cells is not None})


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("clock, way", [
    (lambda t: t, "by timestamp"), (lambda t: t * 10 / 8, "one a row"), (lambda t: t * 10 / 12, "one a row"),
    (lambda t: t + .1, "one a row"), (lambda t: t + 99, "one a row"), (lambda t: t * np.nan, "one a row"),
    (lambda t: t + .03, "by timestamp")])
def test_pictures_stay_with_their_rows_whatever_the_clock_of_the_timestamps(tmp_path, version, clock, way):
    """8 fps written as 10, and 12; a clock that starts at 1 / fps; another clock; none"""
    root = write(tmp_path / "set", version)
    change(root, timestamp=lambda t, table: clock(np.array(t)))
    log = read(root)
    assert len(log) == 20 and right(log) and f"2 episodes find their frames {way}" in log.summary()


def test_how_frames_were_found_and_why_is_printed_once(tmp_path, capsys):
    root = write(tmp_path / "set")
    change(root, timestamp=lambda t, table: np.array(t) + 50)
    data.open_log("robot", {"format": "lerobot", "path": str(root)}, tmp_path / "cache")
    said = "2 episodes find their frames one a row, as their timestamps are not those of the video"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_rows_that_were_cut_at_the_start_keep_their_frames(tmp_path, version):
    """by their timestamps; frame_index, which some tools count anew, would be three frames off"""
    root = write(tmp_path / "set", version)
    for file in root.glob("data/*/*"):
        table = pq.read_table(file)
        pq.write_table(table.filter(pa.compute.greater(table["frame_index"], 2)), file)
    change(root, frame_index=lambda f, table: np.array(f) - 3)
    log = read(root)
    assert len(log) == 14 and right(log) and log.actions[0, 1] == pytest.approx(.046)


@pytest.mark.parametrize("kind", ["frame_index", "row"])
def test_a_video_that_is_longer_than_the_episode_goes_by_fps_where_timestamps_do_not_fit(tmp_path, kind):
    root = write(tmp_path / "set")
    for e, start in ((0, 0), (1, 8)):
        film(root / f"videos/chunk-000/{CAMERA}/episode_{e:06d}.mp4", [*(10 + 12 * i for i in range(start, start + 8)), *[0] * 9])
    for file in root.glob("data/*/*"):
        pq.write_table(pq.read_table(file).slice(0, 8), file)
    change(root, timestamp=lambda t, table: np.array(t) + 50, **{"frame_index": None} if kind == "row" else {})
    log = read(root)
    assert len(log) == 16 and right(log) and f"2 episodes find their frames by {kind}" in log.summary()


def test_without_clocks_there_is_one_frame_a_row(tmp_path):
    root = write(tmp_path / "set")
    change(root, timestamp=None, frame_index=None)
    assert right(read(root))


@pytest.mark.parametrize("missing", [0, 5, 11])
def test_an_episode_of_which_any_frame_is_missing_is_left_out_and_counted(tmp_path, missing):
    av, root = pytest.importorskip("av"), write(tmp_path / "set")
    with av.open(str(root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 106 + 12 * t, np.uint8), format="rgb24")
            frame.pts = t
            if t != missing:
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    log = read(root)
    if missing:                                             # a container may count time from its first frame
        assert log.counts["skipped"] == {"episodes with steps that have no frame in their video": 1}
    assert right(log)


@pytest.mark.parametrize("cut", [True, False])
def test_a_video_whose_last_frame_is_cut_or_zeros_is_found_out_when_the_log_is_opened(tmp_path, cut):
    """a download that stopped, or that had made room for the whole file: the list of frames, at the front, is whole"""
    root = write(tmp_path / "set")
    file = root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    film(file, [106 + 12 * i for i in range(12)], container={"movflags": "faststart"})
    assert right(read(root))
    with pytest.importorskip("av").open(str(file)) as container:
        packet = list(container.demux(video=0))[11]
        start, size = packet.pos, packet.size
    whole = file.read_bytes()
    assert start + size == len(whole)
    file.write_bytes(whole[:-1] if cut else whole[:start] + bytes(size))
    if cut:
        assert read(root).counts["skipped"] == {"episodes with steps that have no frame in their video": 1}
    else:
        with pytest.raises(ValueError, match="episode_000001.mp4"):
            read(root)


def test_frames_by_time():
    times = np.arange(5) / 10
    assert frames_at(times, np.array([.09, .31]), .05).tolist() == [.1, times[3]]
    for t in ([.2, .46], [.1, .12], [-.06], [np.nan], [.1, 7]):
        assert frames_at(times, np.array(t), .05) is None
    assert frames_at(times[:0], np.array([0.]), .05) is None


def test_a_video_that_stands_on_its_side_is_turned(tmp_path):
    av, file = pytest.importorskip("av"), tmp_path / "a.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:16] = 255                                  # light on top
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 4 + 40                       # the matrix: (x, y) is shown at (-y, x), a quarter turn clockwise
    data[at:at + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    file.write_bytes(data)
    frame = Video(str(file), FPS)[0]
    assert frame.shape == (64, 48, 3) and frame[:, -10:].mean() > 200 and frame[:, :20].mean() < 50


# -- logs that do not keep the rules, or claim too much

def test_an_episode_that_returns_is_named(tmp_path):
    root = write(tmp_path / "a", "v3.0", "image")
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table.slice(0, 4), table.slice(8, 12), table.slice(4, 4)]), file)
    with pytest.raises(ValueError, match="file-000.parquet: episode 0 returns after it has ended"):
        read(root)
    pq.write_table(table.slice(0, 4), file)                 # one half in another file: each half would say stop
    pq.write_table(table.slice(4), file.with_name("file-001.parquet"))
    with pytest.raises(ValueError, match="file-001.parquet: episode 0 returns after it has ended"):
        read(root)


@pytest.mark.parametrize("clock", ["timestamp", "frame_index"])
def test_rows_out_of_order_are_named(tmp_path, clock):
    root = write(tmp_path / "set", kind="image")
    change(root, **{clock: lambda t, table: [*t[:3], t[4], t[3], *t[5:]]})
    with pytest.raises(ValueError, match=f"episode_000000.parquet: the rows of episode 0 are not in order of their {clock}"):
        read(root)


def test_lines_are_what_json_lines_say_they_are(tmp_path):
    """a task may have a line separator of Unicode in it; a file may begin with a byte-order mark and end with an empty line"""
    root = write(tmp_path / "set", kind="image")
    tasks = root / "meta/tasks.jsonl"
    lines = [json.dumps({"task_index": i, "task": text}, ensure_ascii=False) for i, text in enumerate(["a\u2028b", "c\u0085d"])]
    tasks.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    assert read(root).instructions == ["a\u2028b", "c\u0085d"]
    for bad, said in ((["open the box"], "must be a text"), (7, "must be a text"), ("\ud800", "line 1: it is not JSON")):
        tasks.write_text(json.dumps({"task_index": 0, "task": bad}) + "\n" + lines[1])
        with pytest.raises(ValueError, match=f"tasks.jsonl.*{said}"):
            read(root)
    tasks.write_text(lines[0].replace("0", "0.5", 1))
    with pytest.raises(ValueError, match="'task_index' of type int"):
        read(root)


@pytest.mark.parametrize("odd", ["a\nb", "a\u2028b", "a" * 5000], ids=["break", "separator", "long"])
@pytest.mark.parametrize("key", ["data_path", "video_path"])
def test_an_error_is_one_line_whatever_info_json_says(tmp_path, key, odd):
    root = write(tmp_path / "set")
    info(root, **{key: odd})
    with pytest.raises(ValueError) as e:
        read(root)
    assert len(str(e.value).splitlines()) == 1 and len(str(e.value)) <= 1000 and str(root) in str(e.value)


def test_a_damaged_parquet_is_one_line(tmp_path):
    """what pyarrow says of it may have several"""
    root = write(tmp_path / "set", "v3.0", "image")
    file, refusals = root / "data/chunk-000/file-000.parquet", 0
    whole = file.read_bytes()
    for at in range(0, len(whole), len(whole) // 150):
        file.write_bytes(whole[:at] + bytes(27) + whole[at + 27:])
        try:
            read(root)
        except ValueError as e:
            refusals += 1
            assert len(str(e).splitlines()) == 1 and str(root) in str(e)
    assert refusals > 50


def test_tasks_of_v3_must_be_texts(tmp_path):
    root = write(tmp_path / "set", "v3.0", "image")
    save(root / "meta/tasks.parquet", {"task_index": [0, 1], "task": [["one"], ["two"]]})
    with pytest.raises(ValueError, match="tasks.parquet: task 0 is .'one'.; it must be a text"):
        read(root)


@pytest.mark.parametrize("shape", [[10 ** 12], [10 ** 400], [1e400], ["7"], [7.0], [True], 7, [], [0], [-1], [2, 3]])
def test_an_action_that_claims_too_much_or_makes_no_sense_is_one_line_at_once(tmp_path, shape):
    root = write(tmp_path / "set", kind="image")
    info(root, features={"action": {"dtype": "float32", "shape": shape}, CAMERA: {"dtype": "image"}})
    with pytest.raises(ValueError, match="no feature 'action' that is one list of 1 to 1000 numbers"):
        read(root)


def test_deep_nesting_and_rows_that_take_gigabytes_are_refused(tmp_path):
    root = write(tmp_path / "set", kind="image")
    file = root / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pa.table({"task_index": np.zeros(21_000_000, np.int8), "action": np.zeros(21_000_000, np.int8)}), file)
    assert file.stat().st_size < 200_000
    with pytest.raises(ValueError, match="episode_000000.parquet claims 42000000 numbers"):
        read(root)
    (root / "meta/info.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="info.json cannot be read .it is nested too deeply"):
        read(root)


def test_a_parquet_whose_statistics_are_damaged_is_an_error_and_not_the_end_of_the_process(tmp_path):
    """pyarrow 26 aborts when it is asked for a column of such a file; so this runs in a process of its own"""
    root = write(tmp_path / "set", "v3.0", "image")
    file = root / "meta/tasks.parquet"
    whole = file.read_bytes()
    code = """
import contextlib, sys, pathlib, data
root, file = map(pathlib.Path, sys.argv[1:])
whole = file.read_bytes()
for i in range(200, len(whole) - 8):
    file.write_bytes(whole[:i] + bytes([whole[i] ^ 32]) + whole[i + 1:])
    with contextlib.suppress(ValueError):
        data.open_log("robot", {"format": "lerobot", "path": str(root)}, root.with_name("cache"), quiet=True)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code, str(root), str(file)], capture_output=True, text=True,
                          cwd=Path(__file__).parent.parent)
    assert done.stdout == "alive\n" and len(whole) > 400, done.stderr[-300:]


def test_the_fingerprint_is_that_of_the_head_of_a_video_too(tmp_path):
    """which may turn its frames, although the frames in the file are the same"""
    root = write(tmp_path / "set", "v3.0")
    file, found = next(root.glob("videos/*/*/*.mp4")), [read(root)]
    raw = bytearray(file.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    raw[at:at + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    file.write_bytes(raw)
    found.append(read(root))
    assert found[1].picture(0).shape == (64, 48, 3) and found[0].fingerprint != found[1].fingerprint


def test_depth_and_frames_too_large_are_refused(tmp_path, monkeypatch):
    root = write(tmp_path / "set")
    monkeypatch.setattr(Video, "MOST", 64 * 48 - 1)
    with pytest.raises(ValueError, match="episode_000000.mp4.*64 x 48 pixels"):
        read(root)
    info(root, features={CAMERA: {"dtype": "video", "info": {"video.is_depth_map": True}}, "action": {"dtype": "f", "shape": [7]}})
    with pytest.raises(ValueError, match="is a depth map"):
        read(root)


def test_a_picture_that_is_missing_anywhere_leaves_its_episode_out(tmp_path):
    root = write(tmp_path / "set", kind="image")
    file = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(file).to_pydict()
    for cell in (None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}):
        save(file, table | {CAMERA: [*table[CAMERA][:5], cell, *table[CAMERA][6:]]})
        assert read(root).counts == {"episodes": 1, "steps": 8, "skipped": {"episodes without pictures": 1}}


def test_pictures_outside_of_the_folder_are_refused_unless_the_table_says_so(tmp_path):
    def cell(grey):
        (tmp_path / f"{grey}.png").write_bytes(png(grey))
        return {"bytes": None, "path": f"../{grey}.png"}
    root = write(tmp_path / "set", kind="image", cell=cell)
    with pytest.raises(ValueError, match="'../10.png', which is outside of its folder; .*outside = true"):
        read(root)
    assert right(read(root, outside=True))


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_camera_whose_name_leads_out_of_the_folder_is_refused(tmp_path, kind):
    """its videos would be those of another log, or of anyone"""
    write(tmp_path / "secret", kind=kind)
    camera = "../../../secret/videos/chunk-000/" + CAMERA
    root = write(tmp_path / "set", kind=kind)
    info(root, features={"action": {"dtype": "f", "shape": [7]}, camera: {"dtype": kind}})
    with pytest.raises(ValueError, match="outside of its folder" if kind == "video" else "has no column"):
        read(root)


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_folder_with_a_colon_in_its_name_is_a_path_and_no_address(tmp_path, monkeypatch, version, kind):
    """FFmpeg and pyarrow take what stands before a colon for a protocol"""
    write(tmp_path / "so100:v1", version, kind)
    monkeypatch.chdir(tmp_path)
    log = data.open_log("robot", {"format": "lerobot", "path": "so100:v1"}, "cache", quiet=True)
    assert len(log) == 20 and right(log)


def test_the_fingerprint_is_that_of_words_numbers_and_pictures_but_not_of_the_place(tmp_path):
    made = [read(write(tmp_path / f"set {kind}", kind=kind)).fingerprint for kind in ("image", "video")]
    (tmp_path / "moved").mkdir()
    (tmp_path / "set image").rename(tmp_path / "moved/set")
    root = tmp_path / "moved/set"
    assert read(root).fingerprint == made[0] != made[1]
    tasks = root / "meta/tasks.jsonl"
    tasks.write_text(tasks.read_text().replace("box", "bag"))
    words = read(root).fingerprint
    change(root, **{CAMERA: lambda cells, table: [{"bytes": png(9), "path": None}, *cells[1:]]})
    assert len({made[0], words, read(root).fingerprint}) == 3
    other = tmp_path / "set video"
    film(other / f"videos/chunk-000/{CAMERA}/episode_000000.mp4", [10] * 8)
    assert read(other).fingerprint != made[1]
