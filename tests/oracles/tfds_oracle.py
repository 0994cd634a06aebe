"""
Logs that TFDS itself writes, read by TFDS and by this project: all numbers, words and pixels must be equal.

    python -m tests.oracles.tfds_oracle

The layouts of Bridge, RT-1 and Language-Table, each written by a GeneratorBasedBuilder and by tfds.rlds. By
default TFDS decodes JPEG with a faster cosine transform, and pixels are off by up to 5 of 255. With the exact
one, which Pillow has, none is: exactly() asks for it.
"""
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "NO_GCE_CHECK": "true"}
try:
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from tensorflow_datasets.rlds import rlds_base
except ImportError:
    sys.exit("not installed: pip install tensorflow-cpu tensorflow-datasets")
import numpy as np

import data
from formats import index

F, RNG = tfds.features, np.random.default_rng(0)
WORDS = ["put the carrot on the plate", "schiebe die Tasse\u2028zum Rand: é, 月", " flip the pot "]
SPLITS = {"train": (5, 1, 7, 3), "val": (2, 1)}         # steps of each episode
PNG, JPEG = (F.Image(shape=(None, None, 3), encoding_format=kind) for kind in ("png", "jpeg"))
TWO, THREE, SEVEN, ONE = (F.Tensor(shape=(n,), dtype=np.float32) for n in (2, 3, 7, 1))


def picture():
    slope = np.add.outer(np.arange(24), np.arange(32))[..., None] * RNG.uniform(0, 3, 3)
    return (slope + RNG.uniform(0, 60, (24, 32, 3))).clip(0, 255).astype(np.uint8)


def numbers(n):
    return RNG.normal(size=n).astype(np.float32)


# layout -> features of the observation, of the action, and more; a step; its numbers in order; the camera
LAYOUTS = {
    "bridge": (
        {"image_0": JPEG, "image_1": PNG, "state": SEVEN}, SEVEN, {"language_instruction": F.Text()},
        lambda words, last: {"observation": {"image_0": picture(), "image_1": picture(), "state": numbers(7)},
                             "action": numbers(7), "language_instruction": words},
        lambda action, last: [last, *action], "image_0"),
    "rt1": (
        {"image": JPEG, "natural_language_instruction": F.Text()},
        F.FeaturesDict({"world_vector": THREE, "rotation_delta": THREE, "gripper_closedness_action": ONE,
                        "terminate_episode": F.Tensor(shape=(3,), dtype=np.int32)}), {},
        lambda words, last: {"observation": {"image": picture(), "natural_language_instruction": words},
                             "action": {"world_vector": numbers(3), "rotation_delta": numbers(3),
                                        "gripper_closedness_action": numbers(1),
                                        "terminate_episode": np.int32([last, not last, 0])}},
        lambda a, last: [a["terminate_episode"][0], *a["world_vector"], *a["rotation_delta"],
                         *a["gripper_closedness_action"]], "image"),
    "language_table": (
        {"rgb": PNG, "instruction": F.Tensor(shape=(512,), dtype=np.int32)}, TWO, {},
        lambda words, last: {"action": numbers(2), "observation": {"rgb": picture(), "instruction":
                             np.int32([*words.encode().ljust(512, b"\0")])}},
        lambda action, last: [last, *action], "rgb")}


def episodes(step, split):
    for e, T in enumerate(SPLITS[split]):
        yield e, {"steps": [{**step(WORDS[e % 3], t == T - 1), "is_first": t == 0, "is_last": t == T - 1,
                             "is_terminal": False, "reward": 0., "discount": 1.} for t in range(T)]}


def by_builder(folder, observation, action, more, step, *_):
    """TFDS's usual way, two files a split"""
    steps = F.Dataset({"observation": observation, "action": action, **more, "is_first": np.bool_, "is_last":
                       np.bool_, "is_terminal": np.bool_, "reward": np.float32, "discount": np.float32})
    with tfds.core.registered.skip_registration():
        class Robots(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=F.FeaturesDict({"steps": steps}))

            def _split_generators(self, manager):
                return {split: episodes(step, split) for split in SPLITS}

            _generate_examples = episodes
    config = tfds.download.DownloadConfig(num_shards=2)
    Robots(data_dir=folder).download_and_prepare(download_config=config)


def by_rlds(folder, observation, action, more, step, *_):
    """the features of tfds.rlds, written episode by episode"""
    folder.mkdir()
    version, number = tfds.core.Version("1.0.0"), np.float32
    who = tfds.core.dataset_info.DatasetIdentity("robots", version, str(folder), module_name="")
    info = rlds_base.build_info(rlds_base.DatasetConfig(
        name="robots", observation_info=observation, action_info=action, step_metadata_info=more,
        reward_info=number, discount_info=number), who)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=3)
    writer.initialize_splits([*SPLITS])
    for split in SPLITS:
        writer.add_examples({split: [e for _, e in episodes(step, split)]})
    writer.close_all()


@tfds.decode.make_decoder()
def exactly(encoded, feature):
    jpeg = tf.strings.substr(encoded, 0, 2) == b"\xff\xd8"
    return tf.cond(jpeg, lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
                   lambda: tf.io.decode_png(encoded, 3))


def compare(path, split, cache, action, camera):
    log = data.open_log("robot", {"format": "rlds", "path": str(path), "split": split, "skip_idle": False},
                        cache, quiet=True)

    episodes = tfds.builder_from_directory(str(path)).as_dataset(
        split=split, read_config=tfds.ReadConfig(interleave_cycle_length=1),
        decoders={"steps": {"observation": {camera: exactly()}}})
    i = -1
    for e, episode in enumerate(episodes):
        for s in tfds.as_numpy(episode["steps"]):
            i, see = i + 1, s["observation"]
            words = s.get("language_instruction", see.get("natural_language_instruction"))
            words = bytes(see["instruction"].astype(np.uint8)).rstrip(b"\0") if words is None else words
            assert log.episode[i] == e and log.instruction(i) == words.decode().strip()
            assert log.actions[i].tolist() == np.float32(action(s["action"], s["is_last"])).tolist()
            assert (log.picture(i) == see[camera]).all(), f"step {i}: another picture"
    assert log.counts == {"episodes": e + 1, "steps": i + 1, "skipped": {}}
    return f"{e + 1} episodes, {i + 1} steps in {len(log.shards)} files are equal"


if __name__ == "__main__":
    print(f"tensorflow {tf.__version__}, tensorflow_datasets {tfds.__version__}")
    index.in_processes = map            # a new process would import TensorFlow, too
    for write in (by_builder, by_rlds):
        for name, layout in LAYOUTS.items():
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / "robots", *layout)
                path = next(Path(folder).rglob("features.json")).parent
                for split in SPLITS:
                    print(write.__name__, name, split, compare(path, split, f"{folder}/cache", *layout[4:]))
