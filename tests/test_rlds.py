"""formats/rlds.py: RLDS files are written here, from the description of the format, by a writer that shares no code with the reader"""
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import struct
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from formats import index
from formats.index import SEVEN
from formats.rlds import RLDS, crc32c, parse_example, varints

SAMPLE = Path(__file__).parents[2] / "shared/bridge_sample/bridge_dataset/1.0.0"
TFDS = "tensorflow_datasets.core.features."


# -- the writer: protobuf

def varint(n):
    n, out = n % 2**64, b""                     # a negative integer is its two's complement
    while n > 127:
        n, out = n >> 7, out + bytes([n & 127 | 128])
    return out + bytes([n])


def message(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def floats(values, packed=True):
    values = [struct.pack("<f", v) for v in np.ravel(values)]
    return message(2, message(1, b"".join(values)) if packed else b"".join(varint(1 << 3 | 5) + v for v in values))


def integers(values, packed=True):
    values = [varint(int(v)) for v in np.ravel(values)]
    return message(3, message(1, b"".join(values)) if packed else b"".join(varint(1 << 3) + v for v in values))


def strings(values):
    return message(1, b"".join(message(1, v) for v in values))


def example(features):
    return message(1, b"".join(message(1, message(1, key.encode()) + message(2, f)) for key, f in features.items()))


# -- the writer: TFRecord files

def crc_step(crc, byte):
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


TABLE = [crc_step(0, byte) for byte in range(256)]


def crc_of_every_start(data):
    """the CRC-32C of data[:0], data[:1], ... data, byte by byte"""
    crc, out = 0xFFFFFFFF, [0]
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
        out.append(crc ^ 0xFFFFFFFF)
    return out


def masked(data):
    crc = crc_of_every_start(data)[-1]
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def tfrecord(payloads):
    return b"".join((n := struct.pack("<Q", len(p))) + masked(n) + p + masked(p) for p in payloads)


# -- the writer: what TFDS puts beside them

def tensor(dtype, *shape, encoding="none"):
    size = {"dimensions": [str(n) for n in shape]} if shape else {}
    return {"pythonClassName": TFDS + "tensor_feature.Tensor", "tensor": {"shape": size, "dtype": dtype, "encoding": encoding}}


def sequence(node, kind="sequence_feature.Sequence", length="-1"):
    return {"pythonClassName": TFDS + kind, "sequence": {"feature": node, "length": length}}


def tree(nodes):
    """a dict of dicts -> the tree of features.json"""
    children = {k: n if "pythonClassName" in n else tree(n) for k, n in nodes.items()}
    return {"pythonClassName": TFDS + "features_dict.FeaturesDict", "featuresDict": {"features": children}}


IMAGE = {"pythonClassName": TFDS + "image_feature.Image",
         "image": {"shape": {"dimensions": ["8", "8", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}
TEXT = {"pythonClassName": TFDS + "text_feature.Text", "text": {}}
FLAG = {"pythonClassName": TFDS + "scalar.Scalar", "tensor": {"shape": {}, "dtype": "bool", "encoding": "none"}}


def write(folder, steps, shards, split="train", kind="tfrecord", lengths=None, template=None):
    """a data set "robots": steps are the features of a step, shards are lists of payloads"""
    folder.mkdir(parents=True, exist_ok=True)
    root = tree({"steps": sequence(tree(steps), "dataset_feature.Dataset"), "episode_metadata": {"file_path": TEXT}})
    (folder / "features.json").write_text(json.dumps(root))
    lengths = [str(len(s)) for s in shards] if lengths is None else lengths
    (folder / "dataset_info.json").write_text(json.dumps({"name": "robots", "fileFormat": kind, "splits": [
        {"name": split, "shardLengths": lengths, **({"filepathTemplate": template} if template else {})}]}))
    for i, payloads in enumerate(shards):
        (folder / f"robots-{split}.tfrecord-{i:05}-of-{len(shards):05}").write_bytes(tfrecord(payloads))
    return folder


def encoded(picture, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


BRIDGE = {"action": tensor("float32", 7), "language_instruction": TEXT, "is_first": FLAG, "reward": tensor("float32"),
          "observation": {"image_0": IMAGE, "image_1": IMAGE, "state": tensor("float32", 7)}}


def bridge(steps=4, words="put the carrot on the plate", seed=0, kind="PNG", **changes):
    """an episode -> (its payload, what it says)"""
    rng = np.random.default_rng(seed)
    truth = {"actions": rng.normal(size=(steps, 7)).astype(np.float32), "words": [words] * steps,
             "pictures": rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8)}
    truth.update({k: v for k, v in changes.items() if k in truth})
    features = {
        "steps/action": floats(truth["actions"]), "steps/is_first": integers([t == 0 for t in range(steps)]),
        "steps/observation/image_1": strings([encoded(p[::-1], kind) for p in truth["pictures"]]),
        "steps/observation/image_0": strings([encoded(p, kind) for p in truth["pictures"]]),
        "steps/language_instruction": strings([w.encode() for w in truth["words"]]), "steps/reward": floats(np.zeros(steps)),
        "steps/observation/state": floats(np.zeros((steps, 7))), "episode_metadata/file_path": strings([b"/somewhere"])}
    features.update({k: v for k, v in changes.items() if k not in truth})
    return example({k: v for k, v in features.items() if v is not None}), truth


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """for speed; test_two_files_are_read_in_two_processes has them"""
    monkeypatch.setattr(index, "in_processes", map)


def opened(folder, cache, **options):
    return data.open_log("robot", {"format": "rlds", "path": str(folder), **options}, cache, quiet=True)


@pytest.fixture
def read(tmp_path):
    """read(steps, payloads, **options) -> the log"""
    def read(steps, payloads, **options):
        return opened(write(tmp_path / "robots/1.0.0", steps, [payloads]), tmp_path / "cache", **options)
    return read


# -- CRC-32C

def test_crc_has_the_standard_check_value():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0 and crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43      # RFC 3720, B.4


def test_crc_is_that_of_a_loop_over_the_bytes_at_every_length():
    data = np.random.default_rng(0).bytes(1100)
    assert [crc32c(data[:n]) for n in range(1101)] == crc_of_every_start(data)


# -- protobuf

def test_integers_of_every_length_and_sign():
    values = [0, 1, -1, 127, 128, 255, 300, -300, 2**31, -2**31, 2**63 - 1, -2**63, *(1 << k for k in range(63))]
    for packed in (True, False):
        kind, found = parse_example(example({"a": integers(values, packed)}), ["a"])["a"]
        assert kind == "integers" and found.dtype == np.int64 and found.tolist() == values
    assert varints(b"").tolist() == []
    for bad in (b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"):
        with pytest.raises(ValueError, match="does not end"):
            varints(bad)


def test_floats_packed_or_not_or_both():
    one, two = np.float32([1.5, -2e-9]), np.float32([3.25])
    for feature in (floats([*one, *two]), floats([*one, *two], packed=False),
                    message(2, floats(one)[2:] + floats(two, packed=False)[2:])):
        kind, found = parse_example(example({"a": feature}), ["a"])["a"]
        assert kind == "floats" and found.dtype == np.float32 and found.tolist() == [*one, *two]


def test_strings_are_found_where_they_lie_with_every_nul():
    values = [b"a\0b\0\0", b"", b"x" * 300]
    data = example({"other": floats([1]), "a": strings(values)})
    (name, (kind, found)), = parse_example(data, ["a"]).items()             # and what is not asked for is not read
    assert name == "a" and kind == "strings" and [data[i:i + n] for i, n in found] == values


def test_unknown_fields_are_skipped_by_wire_type():
    unknown = varint(9 << 3) + varint(2**40) + varint(9 << 3 | 1) + bytes(8) + message(9, b"\xff") + varint(9 << 3 | 5) + bytes(4)
    feature = unknown + message(2, unknown + message(1, struct.pack("<f", 2))) + unknown
    entry = unknown + message(1, b"a") + unknown + message(2, feature) + unknown
    kind, found = parse_example(unknown + message(1, unknown + message(1, entry)) + unknown, ["a"])["a"]
    assert kind == "floats" and found.tolist() == [2]


def test_an_empty_feature_is_an_empty_list():
    for empty in (b"", floats([]), integers([]), strings([]), message(2, b"")):
        assert len(parse_example(example({"a": empty}), ["a", "b"])["a"][1]) == 0
    assert len(parse_example(b"", ["a"])["a"][1]) == 0


def test_of_two_lists_in_a_feature_the_last_counts():
    for last, kind in ((floats([1]), "floats"), (integers([1]), "integers"), (strings([b"1"]), "strings")):
        assert parse_example(example({"a": integers([7]) + floats([7]) + last}), ["a"])["a"][0] == kind


def test_what_is_no_protobuf_is_refused():
    for bad in (b"\x0b", b"\x07", b"\x02\x00", b"\x0a\x05abc", b"\x0a" + b"\x80" * 10 + b"\0", b"\x0d\x01", b"\x09\x01", b"\x08"):
        with pytest.raises(ValueError, match="no tf.train.Example"):
            parse_example(bad, ["a"])
    with pytest.raises(ValueError, match="floats"):
        parse_example(example({"a": message(2, message(1, b"12345"))}), ["a"])


def test_random_bytes_are_parsed_or_refused():
    rng, good = np.random.default_rng(1), bridge(2)[0]
    for i in range(300):
        data = rng.bytes(rng.integers(0, 60)) if i % 2 else good[:rng.integers(len(good))] + rng.bytes(9)
        try:
            parse_example(data, ["steps/action", "steps/observation/image_0"])
        except ValueError:
            pass


# -- layouts

def check(log, truths, names, exact=True):
    """log says what the truths do; terminate is 1 in the last step of each"""
    assert log.names == tuple(names)
    assert len(log) == sum(len(t["actions"]) for t in truths)
    i = 0
    for e, truth in enumerate(truths):
        for t, action in enumerate(truth["actions"]):
            assert log.episode[i] == e and log.instruction(i) == truth["words"][t]
            assert log.actions[i].tolist() == [float(t == len(truth["actions"]) - 1), *action.tolist()]
            difference = np.abs(log.picture(i).astype(int) - truth["pictures"][t])
            assert difference.max() == 0 if exact else difference.mean() < 8
            i += 1


def test_several_cameras(read):
    payload, truth = bridge(3)
    log = read(BRIDGE, [payload], camera=["image_1", "image_0"])
    assert log.cameras == ("image_1", "image_0")
    for i, picture in enumerate(truth["pictures"]):
        assert np.array_equal(log.picture(i)[0], picture[::-1]) and np.array_equal(log.picture(i)[1], picture)
    with pytest.raises(ValueError, match="no image_7"):
        read(BRIDGE, [payload], camera=["image_0", "image_7"])


def test_bridge(read):
    """several episodes and instructions, of which the second appears twice; names and keys found without options"""
    made = [bridge(4, "put it here", 0), bridge(1, "flip the pot", 1), bridge(3, "flip the pot", 2)]
    log = read(BRIDGE, [p for p, _ in made])
    check(log, [t for _, t in made], ["terminate", *SEVEN])
    assert log.instructions == ["put it here", "flip the pot"] and log.counts == {"episodes": 3, "steps": 8, "skipped": {}}
    file, at, length = log.where[0, 0]
    data = (log.path / log.shards[file]).read_bytes()
    assert data[at:at + length] == encoded(made[0][1]["pictures"][0]) and log.picture(0).dtype == np.uint8


def test_another_camera(read):
    payload, truth = bridge()
    for name in ("image_1", "observation/image_1", "steps/observation/image_1"):
        log = read(BRIDGE, [payload], camera=name)
        check(log, [{**truth, "pictures": truth["pictures"][:, ::-1]}], ["terminate", *SEVEN])


def test_jpeg(read):
    smooth = np.linspace(0, 200, 4 * 8 * 8 * 3).reshape(4, 8, 8, 3).astype(np.uint8)
    payload, truth = bridge(kind="JPEG", pictures=smooth)
    check(read(BRIDGE, [payload]), [truth], ["terminate", *SEVEN], exact=False)


def test_grey_pictures_and_pictures_with_alpha_become_rgb(read):
    grey, alpha = np.arange(64, dtype=np.uint8).reshape(8, 8), np.full((8, 8, 4), 7, np.uint8)
    payload, _ = bridge(2, **{"steps/observation/image_0": strings([encoded(grey), encoded(alpha)])})
    log = read(BRIDGE, [payload])
    assert (log.picture(0) == grey[:, :, None]).all() and (log.picture(1) == 7).all() and log.picture(1).shape == (8, 8, 3)


@pytest.mark.parametrize("one_hot", [True, False])
def test_rt1(read, one_hot):
    """the action is a dict; of terminate_episode [1, 0, 0] is terminate; the text is a Tensor"""
    rng = np.random.default_rng(0)
    move, turn, grip = (rng.normal(size=(3, n)).astype(np.float32) for n in (3, 3, 1))
    stop = integers([[0, 1, 0], [0, 1, 0], [1, 0, 0]]) if one_hot else floats([0, 0, 1])
    steps = {"action": {"base_displacement_vector": tensor("float32", 2), "gripper_closedness_action": tensor("float32", 1),
                        "rotation_delta": tensor("float32", 3), "world_vector": tensor("float32", 3),
                        "terminate_episode": tensor("int32", 3) if one_hot else tensor("float32")},
             "is_first": tensor("bool"), "observation": {"image": IMAGE, "natural_language_instruction": tensor("string")}}
    pictures = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    a = "steps/action/"
    log = read(steps, [example({
        a + "gripper_closedness_action": floats(grip), a + "rotation_delta": floats(turn), a + "world_vector": floats(move),
        a + "terminate_episode": stop, a + "base_displacement_vector": floats(np.ones(6)), "steps/is_first": integers([1, 0, 0]),
        "steps/observation/image": strings(map(encoded, pictures)),
        "steps/observation/natural_language_instruction": strings([b"pick apple"] * 3)})])
    check(log, [{"actions": np.concatenate([move, turn, grip], 1), "words": ["pick apple"] * 3, "pictures": pictures}],
          ["terminate", *SEVEN])


def test_language_table(read):
    """the text is an array of 512 integers, UTF-8 with zeros after it; an action is two numbers; T is told by is_first"""
    rng, words = np.random.default_rng(0), "push the 月 to the café"
    actions, pictures = rng.normal(size=(3, 2)).astype(np.float32), rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    text = np.zeros((3, 512), int)
    text[:, :len(words.encode())] = list(words.encode())
    steps = {"action": tensor("float32", 2), "is_first": tensor("bool"),
             "observation": {"goal": IMAGE, "rgb": IMAGE, "instruction": tensor("int32", 512), "effector": tensor("float32", 2)}}
    payload = {"steps/action": floats(actions), "steps/is_first": integers([1, 0, 0]),
               "steps/observation/rgb": strings(map(encoded, pictures)), "steps/observation/instruction": integers(text)}
    log = read(steps, [example(payload)])
    check(log, [{"actions": actions, "words": [words] * 3, "pictures": pictures}], ["terminate", "dx", "dy"])
    with pytest.raises(ValueError, match="no bytes"):
        read(steps, [example({**payload, "steps/observation/instruction": integers(text - 1)})])


def test_other_keys_many_numbers_and_no_is_first(read):
    """26 numbers in two keys, in the order asked for; their names are a0 .. a25 or those given"""
    rng = np.random.default_rng(0)
    left, right, pictures = rng.normal(size=(2, 16)), rng.normal(size=(2, 10)), rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    steps = {"command": {"right": tensor("float64", 10), "left": tensor("float32", 4, 4)}, "task": TEXT, "eye": IMAGE}
    payload = example({"steps/command/left": floats(left), "steps/command/right": floats(right),
                       "steps/task": strings([b"wave"] * 2), "steps/eye": strings(map(encoded, pictures))})
    truth = {"actions": np.concatenate([right, left], 1).astype(np.float32), "words": ["wave"] * 2, "pictures": pictures}
    asked = {"action": ["command/right", "steps/command/left"], "instruction": "task"}
    check(read(steps, [payload], **asked), [truth], ["terminate", *(f"a{d}" for d in range(26))])
    names = [f"joint {d}" for d in range(25)] + ["gripper"]
    log = read(steps, [payload], names=names, camera="eye", **asked)
    check(log, [truth], ["terminate", *names])
    low, high = log.bounds
    assert len(low) == len(high) == 27
    with pytest.raises(ValueError, match="26 numbers"):
        read(steps, [payload], names=names[1:], **asked)
    with pytest.raises(ValueError, match="a name of its own"):
        read(steps, [payload], names=["gripper"] * 26, **asked)


def test_a_terminate_of_its_own_comes_first_wherever_it_is(read):
    actions = np.float32([[.1, 0, .2], [.3, 1, .4], [.5, 0, .6]])
    steps = {**BRIDGE, "action": tensor("float32", 3)}
    log = read(steps, [bridge(3, **{"steps/action": floats(actions)})[0]], names=["x", "terminate", "y"])
    assert log.names == ("terminate", "x", "y") and (log.actions == actions[:, [1, 0, 2]]).all()


def test_two_files_are_read_in_two_processes_in_their_order(tmp_path, monkeypatch):
    monkeypatch.undo()
    made = [bridge(2, f"task {i}", i) for i in range(5)]
    folder = write(tmp_path / "robots", BRIDGE, [[p for p, _ in made[:3]], [p for p, _ in made[3:]]], split="val")
    log = opened(folder, tmp_path / "cache", split="val")
    check(log, [t for _, t in made], ["terminate", *SEVEN])


def test_few_files_are_kept_open(tmp_path):
    made = [bridge(1, seed=i) for i in range(80)]
    log = opened(write(tmp_path / "robots", BRIDGE, [[p] for p, _ in made]), tmp_path / "cache")
    before = len(os.listdir("/dev/fd"))
    for i in range(80):
        assert (log.picture(i) == made[i][1]["pictures"][0]).all()
    assert len(os.listdir("/dev/fd")) <= before + 64


def test_pictures_are_the_same_in_processes_forked_from_one_that_had_read_some(tmp_path):
    """as the workers of a DataLoader are: a shared descriptor must not share a position"""
    made = [bridge(40, seed=i) for i in range(2)]
    log = opened(write(tmp_path / "robots", BRIDGE, [[p] for p, _ in made]), tmp_path / "cache")
    log.picture(0), log.picture(79)
    order = np.random.default_rng(0).permutation(80)
    want = np.concatenate([t["pictures"] for _, t in made])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for i, picture in zip(order, pool.map(log.picture, order, chunksize=1)):
            assert (picture == want[i]).all()


# -- what is dropped, counted and told

def test_first_steps_that_do_nothing_are_dropped_and_counted(read):
    """a gripper that is open at rest does not make a movement; a step at rest in the middle stays"""
    actions = np.zeros((6, 7), np.float32)
    actions[:, 6] = 1
    actions[[2, 3, 5], 0] = .01
    payload, truth = bridge(6, actions=actions + np.float32(1e-7))
    log = read(BRIDGE, [payload, bridge(2, actions=actions[:2])[0]])
    check(log, [{k: v[2:] for k, v in truth.items()}], ["terminate", *SEVEN])
    assert log.counts["skipped"] == {"first steps that do nothing": 4, "episodes without a movement": 1}


def test_a_gripper_that_moves_is_a_movement(read):
    actions = np.zeros((4, 7), np.float32)
    actions[:2, 6] = 1
    assert len(read(BRIDGE, [bridge(4, actions=actions)[0]])) == 2


def test_episodes_without_words_pictures_or_finite_numbers_are_dropped_and_counted(read):
    camera, png = "steps/observation/image_0", encoded(np.zeros((8, 8, 3), np.uint8))
    log = read(BRIDGE, [bridge(words="")[0], bridge(words=" \n")[0], bridge(**{"steps/language_instruction": None})[0],
                        bridge(**{"steps/language_instruction": strings([])})[0], bridge(3, words=" go \n", seed=5)[0],
                        bridge(**{camera: None})[0], bridge(**{camera: b""})[0], bridge(**{camera: strings([b""] * 4)})[0],
                        *(bridge(**{camera: strings([png if t != missing else b"" for t in range(4)])})[0] for missing in (0, 1, 3)),
                        bridge(actions=np.full((4, 7), np.nan))[0], bridge(actions=np.full((4, 7), -np.inf))[0], bridge(0)[0]])
    assert log.counts == {"episodes": 1, "steps": 3, "skipped": {
        "episodes without an instruction": 4, "episodes without pictures": 7, "episodes with an action that is not finite": 2}}
    assert log.instructions == ["go"]


def test_steps_without_words_are_dropped(read):
    log = read(BRIDGE, [bridge(4, **{"steps/language_instruction": strings([b"a", b"", b"b", b"\xff"])})[0]])
    assert [log.instruction(i) for i in range(len(log))] == ["a", "b", "\ufffd"]
    assert log.summary() == "1 episodes, 3 steps (skipped: 1 steps without an instruction; 1 episodes have words that are not UTF-8)"


def test_nothing_left_is_an_error(read):
    with pytest.raises(ValueError, match="no episode is left.*without an instruction"):
        read(BRIDGE, [bridge(words="")[0]])


def test_bounds_are_percentiles(read):
    made = [bridge(50, seed=i) for i in range(4)]
    for _, truth in made:
        truth["actions"][:, 5] = .25                # never changes
    log = read(BRIDGE, [bridge(50, seed=i, actions=t["actions"])[0] for i, (_, t) in enumerate(made)])
    a = np.concatenate([t["actions"] for _, t in made]).astype(float)
    low, high = log.bounds
    for d in (0, 1, 2, 3, 4, 6):
        assert (low[d + 1], high[d + 1]) == pytest.approx((np.quantile(a[:, d], .01), np.quantile(a[:, d], .99)), abs=1e-5)
    assert (low[0], high[0]) == (0, 1) and low[6] < .25 < high[6] and high[6] - low[6] < 3e-5


# -- the index

def test_the_index_is_made_once_and_made_again_when_a_file_changes(tmp_path, monkeypatch):
    made = [bridge(2, seed=i) for i in range(2)]
    folder = write(tmp_path / "robots", BRIDGE, [[made[0][0]]])
    scans, scan = [], RLDS.scan
    monkeypatch.setattr(RLDS, "scan", lambda self, file: scans.append(file) or scan(self, file))

    def again(**options):
        return opened(folder, tmp_path / "cache", **options)

    first, second = again(), again()
    assert len(scans) == 1 and (first.actions[:] == second.actions).all() and first.fingerprint == second.fingerprint
    check(second, [made[0][1]], ["terminate", *SEVEN])
    again(camera="image_1")
    assert len(scans) == 2
    (folder / scans[0]).unlink()
    write(folder, BRIDGE, [[made[1][0]]])
    check(again(), [made[1][1]], ["terminate", *SEVEN])                    # the files of the old index are not kept open
    os.utime(folder / "features.json", ns=(1, 1))
    again()
    assert len(scans) == 4
    assert not [p for p in (tmp_path / "cache").iterdir() if "." in p.name]       # nothing half made is left


def test_a_damaged_index_is_one_line_that_names_the_folder_to_delete(tmp_path):
    folder = write(tmp_path / "robots", BRIDGE, [[bridge()[0]]])
    index = opened(folder, tmp_path / "cache").index
    for file in sorted(index.iterdir()):
        whole = file.read_bytes()
        for damage in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole + b" ", None):
            file.unlink() if damage is None else file.write_bytes(damage)
            with pytest.raises(ValueError, match=f"{index} is damaged; delete this folder"):
                opened(folder, tmp_path / "cache")
            file.write_bytes(whole)
    assert len(opened(folder, tmp_path / "cache")) == 4


def test_the_fingerprint_is_that_of_the_records_and_options_but_not_of_the_place_or_time(tmp_path):
    def fingerprint(*made, name="robots", **options):
        return opened(write(tmp_path / name, BRIDGE, [[p for p, _ in made]]), tmp_path / "cache", **options).fingerprint
    first = fingerprint(bridge(), name="somewhere else")
    os.utime(tmp_path / "somewhere else/features.json", ns=(1, 1))
    assert first == fingerprint(bridge()) == opened(tmp_path / "somewhere else", tmp_path / "cache").fingerprint
    picture = bridge()[1]["pictures"]
    picture[2, 3, 3, 0] ^= 1
    others = [fingerprint(bridge(words="go")), fingerprint(bridge(pictures=picture)), fingerprint(bridge(), camera="image_1"),
              fingerprint(bridge(actions=np.ones((4, 7), np.float32)))]
    assert len({first, *others}) == 5


def test_a_folder_around_one_version_will_do(tmp_path):
    folder = write(tmp_path / "robots/1.0.0", BRIDGE, [[bridge()[0]]])
    assert len(opened(folder.parent, tmp_path / "cache")) == 4
    write(tmp_path / "robots/2.0.0", BRIDGE, [[bridge()[0]]])
    with pytest.raises(ValueError, match="one version.*1.0.0.*2.0.0"):
        opened(folder.parent, tmp_path / "cache")


def test_files_of_other_names_are_found_by_the_template(tmp_path):
    payload, truth = bridge()
    folder = write(tmp_path / "robots", BRIDGE, [[payload]], template="{SPLIT}/{DATASET}.{FILEFORMAT}.{SHARD_X_OF_Y}")
    (folder / "train").mkdir()
    (folder / "robots-train.tfrecord-00000-of-00001").rename(folder / "train/robots.tfrecord.00000-of-00001")
    check(opened(folder, tmp_path / "cache"), [truth], ["terminate", *SEVEN])


@pytest.mark.parametrize("template, name", [
    ("{DATASET}-{SPLIT}-{SHARD_INDEX}.{FILEFORMAT}", "robots-train-0000{}.tfrecord"),
    ("{SHARD_INDEX}/{NUM_SHARDS}", "0000{}/00002"), ("all/{SHARD_X_OF_Y}", "all/0000{}-of-00002")])
def test_every_name_of_a_template_is_filled_in(tmp_path, template, name):
    made = [bridge(2, seed=i) for i in range(2)]
    folder = write(tmp_path / "robots", BRIDGE, [[p] for p, _ in made], template=template)
    for i in range(2):
        (folder / name.format(i)).parent.mkdir(exist_ok=True)
        (folder / f"robots-train.tfrecord-0000{i}-of-00002").rename(folder / name.format(i))
    check(opened(folder, tmp_path / "cache"), [t for _, t in made], ["terminate", *SEVEN])


@pytest.mark.parametrize("template", ["../{SHARD_X_OF_Y}", "/tmp/{SHARD_X_OF_Y}", "a/../../{SPLIT}"])
def test_a_template_that_leaves_the_folder_is_refused(tmp_path, template):
    folder = write(tmp_path / "robots", BRIDGE, [[bridge()[0]]], template=template)
    with pytest.raises(ValueError, match="which is outside of its folder"):
        opened(folder, tmp_path / "cache")
    if template == "../{SHARD_X_OF_Y}":
        (folder / "robots-train.tfrecord-00000-of-00001").rename(tmp_path / "00000-of-00001")
        assert len(opened(folder, tmp_path / "cache", outside=True)) == 4


# -- a terminate of its own

@pytest.mark.parametrize("stops, want", [
    ([0, 0, 0, 0], [0, 0, 0, 1]), ([1, 1, 1, 1], [0, 0, 0, 1]), ([0, 0, 1, 1], [0, 0, 1, 1]), ([1, 0, 0, 1], None),
    ([1, 1, 1, 0], None), ([0], [1]), ([1], [1])])
def test_a_terminate_that_never_changes_is_not_believed(read, stops, want):
    """RoboTurk's is 0 in every step, and a policy that learnt from it would never stop"""
    actions = np.column_stack((np.arange(len(stops)) + .5, stops)).astype(np.float32)
    good = bridge(2, seed=7, **{"steps/action": floats([.1, 0, .2, 1])})[0]
    log = read({**BRIDGE, "action": tensor("float32", 2)},
               [bridge(len(stops), **{"steps/action": floats(actions)})[0], good], names=["x", "terminate"])
    assert log.actions[:, 0].tolist() == [*(want or []), 0, 1]
    mended = want and want != stops
    assert ("1 episodes whose terminate never changes: their last step stops" in log.summary()) == bool(mended)
    assert log.counts["skipped"] == ({} if want else {"episodes that begin with terminate = 1, which means stop": 1})


# -- errors that say what to do

def test_keys_that_are_not_there_are_answered_with_those_that_are(read):
    payload = bridge()[0]
    for option, name, answer in (("camera", "image_7", "observation/image_0, .*image_1$"), ("split", "test", "train"),
                                 ("action", "joints", "steps/action.*state"), ("instruction", "words", "language_instruction$"),
                                 ("instruction", "episode_metadata/file_path", "language_instruction$")):
        with pytest.raises(ValueError, match=f"{name}.*{answer}"):
            read(BRIDGE, [payload], **{option: [name] if option == "action" else name})
    two = {"left": IMAGE, "right": IMAGE}
    for steps, answer in (({**BRIDGE, "observation": two}, "set camera to one of: .*observation/left, .*right"),
                          ({**BRIDGE, "action": {"joints": tensor("float32", 6)}}, "set action to one of: .*steps/action/joints"),
                          ({k: v for k, v in BRIDGE.items() if k != "language_instruction"}, "no instruction .* text")):
        with pytest.raises(ValueError, match="features.json.*" + answer):
            read(steps, [payload])


def test_features_of_the_wrong_type_are_refused(read):
    for steps, key in (({**BRIDGE, "action": tensor("int32", 7)}, "steps/action"),
                       ({**BRIDGE, "action": tensor("float32", 7, encoding="zlib")}, "steps/action"),
                       ({**BRIDGE, "action": sequence(tensor("float32"))}, "steps/action"),
                       ({**BRIDGE, "observation": {"image_0": tensor("uint8", 8, 8, 3)}}, "steps/observation/image_0"),
                       ({**BRIDGE, "observation": {"image_1": IMAGE, "image_0": tensor("string")}}, "steps/observation/image_0"),
                       ({**BRIDGE, "language_instruction": tensor("float32", 512)}, "steps/language_instruction"),
                       ({**BRIDGE, "language_instruction": sequence(TEXT)}, "steps/language_instruction")):
        with pytest.raises(ValueError, match=f"features.json: {key} is .* must be"):
            read(steps, [bridge()[0]])


@pytest.mark.parametrize("key, feature", [
    ("steps/action", floats(np.ones(27))), ("steps/action", floats([])), ("steps/action", integers(np.ones(28))),
    ("steps/action", strings([b"1"] * 28)), ("steps/is_first", integers([1, 0, 0])), ("steps/is_first", b""),
    ("steps/observation/image_0", strings([b"1"] * 3)), ("steps/observation/image_0", floats(np.ones(4))),
    ("steps/language_instruction", strings([b"go"])), ("steps/language_instruction", integers(np.ones(4)))])
def test_lists_of_the_wrong_length_or_type_are_refused_by_file_record_and_key(read, key, feature):
    with pytest.raises(ValueError, match=f"robots-train.tfrecord-00000-of-00001: record 1, .*{key}.* should have"):
        read(BRIDGE, [bridge()[0], bridge(**{key: feature})[0]])


def test_folders_that_are_not_whole_are_refused(tmp_path):
    def refused(match, folder=tmp_path / "robots"):
        with pytest.raises(ValueError, match=match):
            opened(folder, tmp_path / "cache")

    refused("no such folder")
    (tmp_path / "robots").mkdir()
    refused("no features.json")
    payload = bridge()[0]
    folder = write(tmp_path / "robots", BRIDGE, [[payload]] * 3)
    shard = folder / "robots-train.tfrecord-00001-of-00003"
    data = shard.read_bytes()
    shard.unlink()
    refused("tfrecord-00001-of-00003 is missing")
    for damage, match in ((b"", "has 0 records.* says 1"), (data * 2, "has 2 records.* says 1"), (gzip.compress(data), "gzip"),
                          (data[:-1], "record 0.*cut off"), (data + b"\0", "record 1.*cut off"),
                          (data + struct.pack("<Q", 2**62) + masked(struct.pack("<Q", 2**62)) + data, "record 1.*cut off")):
        shard.write_bytes(damage)
        refused("00001-of-00003.*" + match)
    for kind in ("array_record", "riegeli"):
        write(folder, BRIDGE, [[payload]], kind=kind)
        refused(f"{kind}.*as tfrecord")
    write(folder, BRIDGE, [[payload]], lengths=[])
    refused("no shardLengths")
    for name in ("dataset_info.json", "features.json"):
        for text in ("", "{", "[]", "{}", '{"splits": 1}', '{"splits": [{}]}', '{"featuresDict": {"features": {"steps": 1}}}'):
            write(folder, BRIDGE, [[payload]])
            (folder / name).write_text(text)
            refused(name)
    write(folder, BRIDGE, [[payload]])
    (folder / "dataset_info.json").unlink()
    refused("dataset_info.json")


@pytest.mark.parametrize("dimension", [str(10 ** 12), "9" * 400, "9" * 5000, "x", 7.5, True, None])
def test_sizes_that_claim_too_much_or_make_no_sense_are_one_line_at_once(tmp_path, dimension):
    folder = write(tmp_path / "robots", BRIDGE, [[bridge()[0]]])
    file = folder / "features.json"
    file.write_text(file.read_text().replace('["7"]', json.dumps([dimension])))
    with pytest.raises(ValueError, match=f"{file} is not as TFDS writes it"):
        opened(folder, tmp_path / "cache")


def test_an_action_of_many_numbers_and_deep_nesting_are_refused(tmp_path, monkeypatch):
    folder = write(tmp_path / "robots", {**BRIDGE, "action": tensor("float32", 1000, 1000, 1000)}, [[bridge()[0]]])
    with pytest.raises(ValueError, match="features.json: an action of 1000000000 numbers; it has at most 1000"):
        opened(folder, tmp_path / "cache")
    deep = sequence(TEXT)
    for _ in range(300):
        deep = sequence(deep)
    write(folder, {**BRIDGE, "deep": deep}, [[bridge()[0]]])
    assert len(opened(folder, tmp_path / "cache")) == 4
    for text in ('{"sequence": {"feature": ' * 990 + "{}" + "}}" * 990, "[" * 100_000):
        (folder / "features.json").write_text(text)
        with pytest.raises(ValueError, match="features.json (cannot be read|is not as TFDS writes it)"):
            opened(folder, tmp_path / "cache")
    deep = TEXT
    for _ in range(3000):                                   # newer Pythons read JSON that is nested so deeply
        deep = {"sequence": {"feature": deep}}
    monkeypatch.setattr("formats.rlds.read_json", lambda path: deep)
    with pytest.raises(ValueError, match="features.json is not as TFDS writes it"):
        opened(folder, tmp_path / "cache")


@pytest.mark.parametrize("change", [{"name": 7}, {"splits": [{"name": 7, "shardLengths": ["1"]}]}, {"fileFormat": ["tfrecord"]},
                                    {"splits": [{"name": "train", "shardLengths": ["1"], "filepathTemplate": 7}]},
                                    {"splits": [{"name": "train", "shardLengths": [1.5]}]},
                                    {"splits": [{"name": "train", "shardLengths": "1"}]}])
def test_texts_and_sizes_of_dataset_info_are_checked_and_not_converted(tmp_path, change):
    folder = write(tmp_path / "robots", BRIDGE, [[bridge()[0]]])
    file = folder / "dataset_info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    if change.get("splits", [{}])[0].get("shardLengths") == "1":
        assert len(opened(folder, tmp_path / "cache")) == 4
    else:
        with pytest.raises(ValueError, match=f"{file} is not as TFDS writes it"):
            opened(folder, tmp_path / "cache")


@pytest.mark.parametrize("odd", ["a\nb", "a\u2028b", "a" * 5000], ids=["break", "separator", "long"])
@pytest.mark.parametrize("key", ["name", "fileFormat"])
def test_an_error_is_one_line_whatever_a_data_set_is_called(tmp_path, key, odd):
    folder = write(tmp_path / "robots", BRIDGE, [[bridge()[0]]])
    about = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(about | {key: odd}))
    with pytest.raises(ValueError) as e:
        opened(folder, tmp_path / "cache")
    assert len(str(e.value).splitlines()) == 1 and len(str(e.value)) <= 1000 and str(folder) in str(e.value)


def test_pictures_that_8_bits_cannot_hold_are_refused_at_once_and_exif_is_heeded(read):
    deep, turned = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(deep, "PNG")
    with pytest.raises(ValueError, match="the picture in the .* bytes from byte .* more than 8 bits"):
        read(BRIDGE, [bridge(1, **{"steps/observation/image_0": strings([deep.getvalue()])})[0]])
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:, :8] = 255                                    # light on the left; shown a quarter turn clockwise: on top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(turned, "JPEG", exif=exif)
    shown = read(BRIDGE, [bridge(1, **{"steps/observation/image_0": strings([turned.getvalue()])})[0]]).picture(0)
    assert shown[:8].mean() > 250 and shown[8:].mean() < 5


# -- damage

@pytest.fixture
def short(tmp_path):
    """a log of two short records, the path of its one file, and what scan says of it"""
    made = [bridge(2, "go", i, pictures=np.full((2, 1, 1, 3), i, np.uint8)) for i in range(2)]
    log = opened(write(tmp_path / "robots", BRIDGE, [[p for p, _ in made]]), tmp_path / "cache")
    return log, log.path / log.shards[0], said(log)


def said(log):
    return [json.dumps({k: np.asarray(v).tolist() for k, v in e.items()}) for e in log.scan(log.shards[0])]


@contextlib.contextmanager
def flipped(path, at, bit):
    """one bit of a file is another for a while"""
    with open(path, "r+b", buffering=0) as f:
        byte = os.pread(f.fileno(), 1, at)
        os.pwrite(f.fileno(), bytes([byte[0] ^ 1 << bit]), at)
        yield
        os.pwrite(f.fileno(), byte, at)


def test_a_file_cut_off_at_any_byte_is_refused(short):
    log, path, _ = short
    for n in reversed(range(path.stat().st_size)):
        os.truncate(path, n)
        with pytest.raises(ValueError, match="cut off|has . records") as error:
            said(log)
        assert path.name in str(error.value)


@pytest.mark.parametrize("verify", [True, False])
def test_flipped_bits_are_refused(short, verify):
    """every one, by the CRC; without it, what comes is an error or other values, never another exception"""
    log, path, good = short
    log.settings["verify"] = verify
    data, rng, outcomes = path.read_bytes(), np.random.default_rng(0), Counter()
    assert len(data) < 2000
    for i in range(2000):
        with flipped(path, i if i < len(data) else rng.integers(len(data)), rng.integers(8)):
            try:
                outcomes["same" if said(log) == good else "other"] += 1
            except ValueError as error:
                assert path.name in str(error)
                outcomes["refused"] += 1
    assert path.read_bytes() == data and said(log) == good
    assert outcomes["refused"] == 2000 if verify else min(outcomes["refused"], outcomes["same"], outcomes["other"]) > 50


def test_lengths_that_lie_are_refused_before_memory_is_taken(short):
    log, path, _ = short
    log.settings["verify"] = False
    huge, data = 2**40, path.read_bytes()
    lie = struct.pack("<Q", huge)
    path.write_bytes(data + lie + masked(lie) + data)
    tracemalloc.start()
    with pytest.raises(ValueError, match="cut off"):
        said(log)
    length = varint(1 << 3 | 2) + varint(huge)
    for payload in (length, message(1, length), message(1, message(1, length)),
                    *(example({"steps/action": message(kind, length)}) for kind in (1, 2, 3))):
        with pytest.raises(ValueError, match="no field of a message"):
            parse_example(payload, ["steps/action"])
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_picture_is_a_picture_or_an_error_that_names_its_place(read, kind):
    log = read(BRIDGE, [bridge(1, kind=kind)[0]])
    path, (_, at, length), rng, refused = log.path / log.shards[0], log.where[0, 0], np.random.default_rng(0), 0
    for i in range(300):
        with flipped(path, at + rng.integers(length), rng.integers(8)):
            try:
                picture = log.picture(0)
                assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
            except ValueError as error:
                assert f"{path}: the picture in the {length} bytes from byte {at} cannot be read" in str(error)
                refused += 1
    assert refused > 30
    os.truncate(path, at + length - 1)
    with pytest.raises(ValueError, match="is cut off, since the file ends before"):
        log.picture(0)


# -- the real robot logs that lie beside the repository

@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    if not SAMPLE.exists():
        pytest.skip("no sample of Bridge here")
    cache = tmp_path_factory.mktemp("cache")
    return {camera: opened(SAMPLE, cache, camera=camera) for camera in ("image_0", "image_1", "image_2", "image_3")}


def test_sample_of_bridge(sample):
    log = sample["image_0"]
    assert log.names == ("terminate", *SEVEN)
    assert log.counts == {"episodes": 25, "steps": 225, "skipped": {"first steps that do nothing": 25}} and len(log) == 225
    moves = np.array(log.actions[:, 1:])
    assert moves.min(0) == pytest.approx([-.019, -.029, -.021, -.160, -.117, -.254, 0], abs=6e-4)
    assert moves.max(0) == pytest.approx([.018, .012, .033, .133, .072, .067, 1], abs=6e-4)
    assert (log.actions[:, 0] == np.tile(np.arange(9) == 8, 25)).all()
    firsts = [i for i in range(225) if i == 0 or log.episode[i] != log.episode[i - 1]]
    assert Counter(log.instruction(i) for i in firsts) == {
        "put carrot on plate": 8, "put cup from counter or drying rack into sink": 6, "turn lever vertical to front": 6,
        "flip pot upright which is in sink": 5}


def test_sample_has_three_cameras_and_a_black_one(sample):
    for camera, log in sample.items():
        pictures = np.stack([log.picture(i) for i in range(225)])
        assert pictures.shape == (225, 64, 64, 3)
        if camera == "image_3":
            assert (pictures == 0).all()
        else:
            assert pictures.std((1, 2, 3)).min() > 20 and len({p.tobytes() for p in pictures}) == 225


def test_sample_in_both_splits_is_the_same(sample, tmp_path):
    """so that no one takes val for episodes that were not seen in training"""
    val = opened(SAMPLE, tmp_path, split="val")
    assert sorted(a.tobytes() for a in val.actions[:]) == sorted(a.tobytes() for a in sample["image_0"].actions[:])
