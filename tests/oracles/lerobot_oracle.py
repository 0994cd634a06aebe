"""
Data sets that LeRobot itself writes, read by LeRobot and by this project: all must be equal.

    python -m tests.oracles.lerobot_oracle          (or python tests/oracles/lerobot_oracle.py, since draccus,
                                                    which lerobot needs, may bring a `tests` of its own)

Pictures in columns and in videos (AV1, LeRobot's default, and h264), in one file and in several, with two
cameras. lerobot 0.4 writes v3.0 and 0.3.3 writes v2.1. No pixel may be off, not even in videos. LeRobot uses
torchcodec with the system's FFmpeg (5.1), this project the FFmpeg of PyAV. But decoding is exact by its
standard, and both turn YUV into RGB alike. If another FFmpeg rounds there otherwise, raise TOLERANCE to 2.
LeRobot 0.4.4 cannot write an episode of one frame.

Of lerobot's long list only this is needed (torchvision and torchcodec must be those of your torch):
    pip install --no-deps lerobot torchvision torchcodec
    pip install "datasets<5" jsonlines draccus av deepdiff accelerate      (lerobot 0.3.3: datasets==3.6)
    apt-get install libavcodec59 libavformat59 libavfilter8 libavdevice59 libswscale6
"""
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "SVT_LOG": "1"}
sys.path.insert(0, str(Path(__file__).parents[2]))
import numpy as np
import torch

for name in ("nms", "qnms"):        # PyPI's torchvision is for CUDA; beside a torch for CPUs it misses these
    torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
try:
    import lerobot
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset
except ImportError:
    sys.exit("not installed: pip install lerobot")

import data
from formats import index

V3 = CODEBASE_VERSION >= "v3"
RNG, FPS, SIZE, TOLERANCE = np.random.default_rng(0), 15, (64, 96), 0
LENGTHS, WORDS = (7, 2, 12, 5), ["open the box", "schiebe die Tasse\u2028zum Rand: é, 月", "push it"]
NAMES = ["x", "y", "gripper"]


def picture(n):
    """a slope of colours and a bright square, which stands elsewhere in every step"""
    out = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1]))[..., None] * RNG.uniform(.2, 1.2, 3)
    x, y = n * 13 % (SIZE[1] - 16), n * 29 % (SIZE[0] - 16)
    out[y:y + 16, x:x + 16] = RNG.uniform(0, 255, 3)
    return out.clip(0, 255).astype(np.uint8)


def write(root, kind, codec, files):
    image = {"dtype": kind, "shape": (*SIZE, 3), "names": ["height", "width", "channels"]}
    made = LeRobotDataset.create("ours/robots", FPS, root=root, use_videos=kind == "video", features={
        "observation.images.top": image, "observation.images.wrist": image,
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (len(NAMES),), "names": NAMES}},
        **({"vcodec": codec} if codec else {}))
    if files > 1:
        made.meta.update_chunk_settings(video_files_size_in_mb=.001, data_files_size_in_mb=.001)
    for e, T in enumerate(LENGTHS):
        for t in range(T):
            frame = {"observation.images.top": picture(20 * e + t),
                     "observation.images.wrist": picture(t + 7),
                     "observation.state": RNG.normal(size=2).astype(np.float32),
                     "action": RNG.normal(size=len(NAMES)).astype(np.float32)}
            made.add_frame({**frame, "task": WORDS[e % 3]}) if V3 else made.add_frame(frame, WORDS[e % 3])
        made.save_episode()
    if V3:
        made.finalize()
    return root


def compare(root, camera, cache):
    table = {"format": "lerobot", "path": str(root), "camera": camera, "skip_idle": False}
    log = data.open_log("robot", table, cache, quiet=True)
    theirs = LeRobotDataset("ours/robots", root=root, video_backend="torchcodec")
    assert log.names == ("terminate", *NAMES) and len(log) == len(theirs) == sum(LENGTHS)
    assert log.counts == {"episodes": len(LENGTHS), "steps": sum(LENGTHS), "skipped": {}}
    found = [theirs[i] for i in range(len(theirs))]
    frames = [f[f"observation.images.{camera}"].permute(1, 2, 0) * 255 for f in found]
    frames = [frame.round().numpy().astype(int) for frame in frames]
    most, nearest = 0, 255.
    for i in RNG.permutation(len(log)).tolist():        # in any order, as in training
        f, last = found[i], i + 1 == len(log) or found[i + 1]["frame_index"] == 0
        assert log.episode[i] == f["episode_index"].item() and log.instruction(i) == f["task"]
        assert log.actions[i].tolist() == [float(last), *f["action"].tolist()]
        mine = log.picture(i)
        off = [int(np.abs(mine - frame).max()) for frame in frames]
        assert off[i] <= (TOLERANCE if log.is_video else 0), f"a pixel of step {i} is off by {off[i]}"
        most, nearest = max(most, off[i]), min(nearest, *off[:i], *off[i + 1:])
    assert nearest > 30, f"two steps look alike: {nearest}"
    n, rule = len({*map(tuple, log.where[:, 0, :2].tolist())}), "; ".join(["", *log.notes])
    return f"{len(log)} steps in {n} files: pixels off by {most}, those of other steps by {nearest}{rule}"


if __name__ == "__main__":
    print(f"lerobot {lerobot.__version__}, which writes {CODEBASE_VERSION}")
    index.in_processes = map            # a new process would import all of LeRobot, too
    more = [("video", "h264", 1), ("image", "", 2), ("video", "", 2)] if V3 else []
    for kind, codec, files in (("image", "", 1), ("video", "", 1), *more):
        with tempfile.TemporaryDirectory() as folder:
            root = write(Path(folder) / "set", kind, codec, files)
            for camera in ("top", "wrist"):
                print(kind, codec or "default", camera, compare(root, camera, f"{folder}/cache"))
