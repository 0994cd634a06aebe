"""a robot log and a VQA folder of one's own, what all indexed logs share, and the way from such logs to the policy"""
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import data
import eval as evaluation
import tiny
import train
from formats import held_out
from formats.index import is_choice, read_picture
from test_weights import write_gpt2_files


def write_robot(folder, D=2, episodes=6, steps=5, words="push the block", change=None):
    """a log whose action is in the picture: a grey of 50 + 3 * (number of the step) and numbers that grow with it"""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for n in range(episodes * steps):
        Image.new("RGB", (40, 30), (50 + 3 * n,) * 3).save(folder / f"pictures/{n}.png")
        lines.append({"episode": n // steps, "instruction": f"{words} {n // steps % 2}", "image": f"pictures/{n}.png",
                      "action": [n / 10 + d + 1 for d in range(D)]})
    return write_lines(folder / "steps.jsonl", change(lines) if change else lines).parent


def write_actions(folder, actions, episode=None):
    """a log of these actions, one picture for all, in episodes of six steps"""
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    return write_lines(folder / "steps.jsonl", [
        {"episode": n // 6 if episode is None else episode[n], "instruction": "go", "image": "0.png", "action": list(a)}
        for n, a in enumerate(actions)]).parent


def write_vqa(folder, lines=None):
    folder.mkdir(parents=True)
    for n in range(3):
        Image.new("RGB", (20, 20), (80 * n,) * 3).save(folder / f"{n}.jpg")
    return write_lines(folder / "questions.jsonl", lines or [
        *({"image": f"{n}.jpg", "question": f"How bright is it? {k}", "answer": f"level {n}"} for n in range(3) for k in range(2)),
        {"image": "0.jpg", "answer": "a dark wall"}]).parent


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def robot(folder, quiet=True, **options):
    return data.open_log("robot", {"format": "folder", "path": str(folder), **options}, folder.parent / "cache", quiet=quiet)


def web(folder, **options):
    return data.open_log("web", {"format": "vqa", "path": str(folder), **options}, folder.parent / "cache", quiet=True)


def round_trip(log, actions):
    """what the policy would do after learning these numbers by heart, and half a bin of each"""
    tokenizer = data.ActionTokenizer(data.Tokenizer.train(["a b"]), *log.bounds, names=log.names, categories=log.categories)
    return tokenizer.decode(tokenizer.encode(actions, quiet=True)), (tokenizer.high - tokenizer.low) / 512


# -- a folder

def test_a_folder_log_gives_back_what_was_written(tmp_path):
    log = robot(write_robot(tmp_path / "robot", D=3), names=["x", "y", "z"])
    assert len(log) == 30 and log.names == ("terminate", "x", "y", "z") and log.summary() == "6 episodes, 30 steps"
    for i in (0, 7, 29):
        assert log.actions[i].tolist() == pytest.approx([float(i % 5 == 4), i / 10 + 1, i / 10 + 2, i / 10 + 3])
        assert (log.picture(i) == 50 + 3 * i).all() and log.picture(i).shape == (30, 40, 3) and log.episode[i] == i // 5
        prompt = f"Q: what action should the robot take to push the block {i // 5 % 2}? A:"
        assert log.request(i, None) == (prompt, "") and log.ask(i, None) is None
    assert len(list(log.texts())) == 2


def test_a_line_may_carry_a_thought_and_questions(tmp_path):
    def change(lines):
        for n, line in enumerate(lines):
            if n % 2:
                line |= {"thought": f" Plan: push {n}. ", "questions": [["How many cups?", "two"], ["Is it step ? ", f" {n}"]]}
        return lines
    log, rng = robot(write_robot(tmp_path / "robot", change=change)), np.random.default_rng(0)
    for i in (3, 4, 29):
        assert log.request(i, rng)[1] == (f" Plan: push {i}." if i % 2 else "") and (log.picture(i) == 50 + 3 * i).all()
        asked = {log.ask(i, rng) for _ in range(20)}
        assert asked == ({("Q: How many cups? A:", " two"), ("Q: Is it step ? A:", f" {i}")} if i % 2 else {None})
    texts = " ".join(log.texts())
    assert "push the block 1?" in texts and " Plan: push 29." in texts and "Q: How many cups? A: two" in texts


def replaced(**changes):
    return lambda lines: lines[:2] + [{**lines[2], **changes}] + lines[3:]


@pytest.mark.parametrize("change, message", [
    (replaced(action=[1]), "line 3 (episode 0): its action is [1]; it must be 2 numbers"), (replaced(action=[1, "a"]), "must be 2 numbers"),
    (replaced(action=[1, True]), "must be 2 numbers"), (replaced(action=[1, 10 ** 400]), "must be 2 numbers"),
    (replaced(instruction=3), "line 3: it must be an object with 'instruction' of type str"),
    (replaced(instruction=["go"]), "'instruction' of type str"), (replaced(episode="0"), "line 3: it must be an object with 'episode' of type int"),
    (replaced(episode=True), "'episode' of type int"), (replaced(thought=7), "'thought' of type str"),
    (replaced(thought="Plan. Action: go"), "its thought has 'Action:'"), (replaced(questions=[["a"]]), "each must be [question, answer]"),
    (replaced(questions=[["a", " "]]), "each must be"), (replaced(questions={"a": "b"}), "'questions' of type list"),
    (replaced(image="pictures"), "line 3 (episode 0): its picture 'pictures' is not there"),
    (replaced(image="a" * 5000), "is not there"), (replaced(image="a\0b"), "is not there"),
    (lambda lines: [{**line, "action": [1, float("nan")]} for line in lines], "{'episodes with an action that is not finite': 6}"),
    (lambda lines: [{**line, "action": [1, 1e300]} for line in lines], "{'episodes with an action that is not finite': 6}"),
    (lambda lines: [{**line, "action": []} for line in lines], "has no action"),
    (lambda lines: [{**line, "action": [0] * 1001} for line in lines], "an action of 1001 numbers; it has 1 to 1000"),
    (lambda lines: [{**line, "instruction": " "} for line in lines], "{'episodes without an instruction': 6}"),
    (lambda lines: [{**line, "instruction": " ... "} for line in lines], "{'episodes without an instruction': 6}"),
    (lambda lines: [], "its first line has no action; it is empty")])
def test_a_bad_line_of_a_folder_log_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        robot(write_robot(tmp_path / "robot", change=change))


@pytest.mark.parametrize("line, message", [
    (b'{"episode": 0, "instr', "it is not JSON"), (b"[" * 100_000, "nested too deeply"), (b"[1, 2]", "it must be an object"), (b"7", "must be an object"),
    (b'{"image": "\xff"}', "it is not JSON"), (b'{"image": "\\ud800"}', "it is not JSON"),
    (b'{"episode": 1' + b"0" * 5000 + b"}", "it is not JSON"), (b"\0", "it is not JSON")])
def test_a_line_that_is_not_json_is_named(tmp_path, line, message):
    folder = write_robot(tmp_path / "robot")
    (folder / "steps.jsonl").write_bytes((folder / "steps.jsonl").read_bytes() + line)
    (write_vqa(tmp_path / "vqa") / "questions.jsonl").write_bytes(b"\n" + line)
    for opened, name in ((lambda: robot(folder), "steps.jsonl, line 31"), (lambda: web(tmp_path / "vqa"), "questions.jsonl, line 2")):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            opened()


def test_an_instruction_of_full_stops_is_none_and_its_step_is_left_out(tmp_path):
    """the prompt of such a step would be an error in the middle of a run"""
    log = robot(write_robot(tmp_path / "robot", change=replaced(instruction=" ?! ")))
    assert len(log) == 29 and log.counts["skipped"] == {"steps without an instruction": 1}
    assert all(log.request(i, None)[0] for i in range(29)) and len(list(log.texts())) == 2


def test_byte_order_marks_empty_lines_and_line_separators_of_unicode_are_no_trouble(tmp_path):
    folder, vqa = write_robot(tmp_path / "robot", words="push\u2028\x85"), write_vqa(tmp_path / "vqa")
    for file in (folder / "steps.jsonl", vqa / "questions.jsonl"):
        lines = [json.dumps(json.loads(line), ensure_ascii=False) for line in file.read_text().split("\n") if line]
        file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    assert robot(folder).instructions[0] == "push\u2028\x85 0" and robot(folder).picture(7)[0, 0, 0] == 71 and len(web(vqa)) == 3


def test_missing_and_broken_pictures_of_a_folder_are_named(tmp_path):
    folder = write_robot(tmp_path / "robot")
    log = robot(folder)
    (folder / "pictures/3.png").unlink()
    (folder / "pictures/4.png").write_bytes(b"no picture")
    for i, message in ((3, "3.png: this picture is named in the log, but is not there"), (4, "4.png cannot be read as a picture")):
        with pytest.raises(ValueError, match=re.escape(message)):
            log.picture(i)
    (folder / "steps.jsonl").write_text("\n" * 9999)        # and lines that have changed under a run
    for call in (lambda: log.picture(5), lambda: robot(folder)):
        with pytest.raises(ValueError, match="steps.jsonl(, | has changed since it was indexed|: its first line)"):
            call()


def test_pictures_that_are_not_there_are_missed_at_once_and_names_must_fit(tmp_path):
    folder, vqa = write_robot(tmp_path / "robot"), write_vqa(tmp_path / "vqa")
    for names in (["x"], ["x", "terminate"]):
        with pytest.raises(ValueError, match="but an action has 2 numbers"):
            robot(folder, names=names)
    (folder / "pictures/3.png").unlink()
    (vqa / "1.jpg").unlink()
    for opened in (lambda: robot(folder), lambda: web(vqa)):
        with pytest.raises(ValueError, match="line [34].*picture '.*' is not there"):
            opened()


def test_an_episode_that_returns_is_named(tmp_path):
    """else each step would be an episode, and each would say stop"""
    with pytest.raises(ValueError, match="steps.jsonl: episode 0 returns after it has ended; put its steps together"):
        robot(write_actions(tmp_path / "robot", [[1, 2]] * 6, episode=[0, 1, 0, 1, 0, 1]))


# -- bounds, choices, and what is left out

def test_a_number_that_never_changes_comes_back_as_it_is(tmp_path):
    log = robot(write_actions(tmp_path / "robot", [[5.0, 0.0, 1e6]] * 12), skip_idle=False)
    np.testing.assert_allclose(round_trip(log, [0, 5.0, 0.0, 1e6])[0], [0, 5.0, 0.0, 1e6], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("noise, rest", [(0, 0), (1e-9, 0), (1e-6, .5), (1e-4, 1000)])
def test_a_movement_of_a_number_that_is_constant_but_for_noise_comes_back(tmp_path, noise, rest):
    actions = np.random.default_rng(0).normal(rest, noise, (288, 2))
    actions[:, 0] = np.arange(288) % 6 / 10
    actions[242, 1] = rest + .3
    log = robot(write_actions(tmp_path / "robot", actions.tolist()))
    back, half = round_trip(log, [0, .2, rest + .3])
    assert abs(back[2] - rest - .3) <= half[2] + 1e-4 and log.bounds[0][2] <= rest + 1e-3 and log.bounds[1][2] >= rest + .2999


def test_a_wild_value_does_not_make_all_bins_wide_but_it_is_told_and_can_be_kept(tmp_path):
    actions = np.random.default_rng(0).normal(0, .05, (600, 2))
    actions[77] = 1, 9
    folder = write_actions(tmp_path / "robot", actions.tolist())
    log = robot(folder)
    assert log.bounds[1][1] < .2 and log.bounds[1][2] < .2
    assert re.search(r'a1 goes from -0.\d+ to 9, its bins go from .*set full_range = \["a1"\]', log.summary()) and "a0" not in log.summary()
    log = robot(folder, full_range=["a1"])
    assert log.bounds[1][1] < .2 and log.bounds[1][2] == 9 and log.summary() == "100 episodes, 600 steps"
    with pytest.raises(ValueError, match="full_range = .'a7'.; the numbers are terminate, a0, a1"):
        robot(folder, full_range=["a7"])


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 1], [-1, 1], range(200)])
def test_every_value_of_a_number_that_chooses_comes_back_however_rare(tmp_path, values):
    actions = [[values[n % len(values)], .1] for n in range(1200)]
    actions[601][0] = max(values) + 1
    log = robot(write_actions(tmp_path / "robot", actions))
    back, _ = round_trip(log, np.array(log.actions))
    assert back[:, 1].tolist() == [a[0] for a in actions]


def test_the_table_says_what_chooses_and_what_its_bounds_are(tmp_path):
    """values that are not whole: -.5 = left, .25 = right; each comes back exactly, and 0 is a choice, not rest"""
    turn = [0, .25, -.5, .25, .25, 0]
    folder = write_actions(tmp_path / "robot", [[turn[n % 6], n % 6 * .01] for n in range(60)])
    log = robot(folder, names=["turn", "speed"], categories="turn", bounds={"speed": [-1, 1]})
    assert log.categories == {"turn": [-.5, 0, .25]} and len(log) == 60 and np.array_equal(log.bounds, [[0, -.5, -1], [1, .25, 1]])
    assert round_trip(log, np.array(log.actions))[0][:, 1].tolist() == turn * 10
    assert robot(folder).categories == {} and len(robot(folder)) == 50      # a ruler, at rest in the first step of each
    noisy = robot(write_actions(tmp_path / "noisy", [[n % 3 + 1e-7 * (n % 2)] for n in range(60)]))
    assert noisy.categories == {"a0": [0, 1, 2]} and set(noisy.actions[:, 1]) == {0, 1, 2}
    counted = write_actions(tmp_path / "counted", [[n % 6] for n in range(60)])
    assert list(robot(counted).categories) == ["a0"] and robot(counted, full_range="a0").categories == {}
    assert robot(counted, bounds={"a0": [-10, 10]}).bounds[0][1] == -10
    for option, message in (({"categories": "x"}, "categories = .'x'.; the numbers are terminate, a0, a1"),
                            ({"bounds": {"x": [0, 1]}}, "bounds = .'x': .0, 1..; the numbers are terminate, a0, a1")):
        with pytest.raises(ValueError, match=message):
            robot(folder, **option)
    many = write_actions(tmp_path / "many", [[n / 1000] for n in range(600)])
    with pytest.raises(ValueError, match="a0 is one of categories, but it has 600 different values; a category has 2 to 256"):
        robot(many, categories="a0")


# -- what terminate means

class Replayed:
    """a Policy whose model answers with the log's own actions, step by step"""
    def __init__(self, log, actions, steps):
        self.policy = object.__new__(evaluation.Policy)
        robot = data.Robot(actions, last_action_counts=log.last_action_counts)
        steps, config = iter(steps), {"image_size": 16, "pictures": 1}
        self.policy.__dict__.update(
            robot=robot, execute=1, seed=0, begun=0, config={"frames": 1}, model=type("M", (), {"config": type("C", (), config)}),
            decide=lambda pictures, prompts, rngs: (actions.decode(actions.encode(log.actions[[next(steps)]]))[None], [""]))


@pytest.mark.parametrize("names", [["x"], ["terminate", "x"]])
def test_a_demonstration_replayed_through_the_loop_ends_where_it_ended(tmp_path, names):
    """
    with a terminate of its own, whose step carries nothing out, as in the paper; and without, where the last action is one that
    was carried out, often the one that finishes the task
    """
    moves = [3, 1, 2, 2, 1, 3]
    own = [[0, m] for m in moves[:-1]] + [[1, 7]]
    log = robot(write_actions(tmp_path / "robot", 2 * (own if len(names) == 2 else [[m] for m in moves])), names=names)
    assert log.last_action_counts == (len(names) == 1)
    tokenizer = data.ActionTokenizer(data.Tokenizer.train(["go"]), *log.bounds, names=log.names, categories=log.categories)
    episode, place, picture = Replayed(log, tokenizer, range(6)).policy.episode(), 0, np.zeros((16, 16, 3), np.uint8)
    while True:                                             # the loop of README.md
        stop, *action = episode.act(picture, "go")
        if stop:
            break
        place += action[0]
    assert place == (sum(moves) if len(names) == 1 else sum(moves[:-1]))


def test_what_chooses_and_what_measures():
    assert is_choice(np.array([0, 2, 2, 1])) and is_choice(np.float32([1.000001, 0])) and is_choice(np.array([-1., 1.]))
    for values in ([0, 0], [3], [0, .5], [0, 300], [1e-9, 2e-9], [0, 1e30]):
        assert not is_choice(np.array(values))


def test_a_first_step_of_value_0_is_kept_where_the_number_chooses_or_the_table_says_so(tmp_path):
    left = [[0], [0], [2], [2], [2], [1], *[[0]] * 6, *[[1]] * 6]
    assert robot(write_actions(tmp_path / "choice", left)).summary() == "3 episodes, 18 steps"
    still = [[0, .5, 1], [0, 0, 1], [.1, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 1]]
    mixed = write_actions(tmp_path / "mixed", [[*a[:2], n % 3] for n, a in enumerate(still)])
    assert len(robot(mixed)) == 6                           # 0 in the first two, but 0 chooses in the third
    resting = write_actions(tmp_path / "resting", [[0, 0, 1], [0, 1e-7, 1], *still[2:]])
    assert len(robot(resting, names=["x", "y", "gripper"])) == 4 and len(robot(resting, names=["x", "y", "z"])) == 6
    assert len(robot(resting, names=["x", "y", "gripper"], skip_idle=False)) == 6


def test_a_terminate_of_ones_own_that_is_always_0_is_not_believed(tmp_path):
    log = robot(write_actions(tmp_path / "robot", [[0, .5], [0, .6]] * 6), names=["terminate", "x"])
    assert np.flatnonzero(log.actions[:, 0]).tolist() == [5, 11]
    assert log.summary() == "2 episodes, 12 steps (2 episodes whose terminate never changes: their last step stops)"


# -- pictures

def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def raw_png(side, body, depth=8):
    """a PNG of `side` x `side` colours that says so, whatever its pixels are"""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    size = struct.pack(">IIBBBBB", side, side, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def damaged_exif():
    """a JPEG that is to be turned, of which a number of EXIF calls itself a text"""
    exif = Image.Exif()
    exif[0x0112], exif[0x0100] = 6, 8
    return encoded(Image.new("L", (8, 8)), "JPEG", exif=exif).replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x02")


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("name, picture, message", [
    ("exif.jpg", damaged_exif(), "cannot be read as a picture"),
    ("deep.png", encoded(Image.fromarray(np.full((8, 8), 3000, np.uint16)), "PNG"), "more than 8 bits"),
    ("colours.png", raw_png(8, bytes(8 * 49), depth=16), "more than 8 bits"),
    ("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "cannot be read as a picture"),
    ("x.gif", encoded(Image.new("L", (8, 8)), "GIF"), "cannot be read as a picture"),
    ("wide.png", raw_png(8000, bytes(99)), "it has 8000 x 8000 pixels"), ("large.png", raw_png(20_000, bytes(99)), "pixels")],
    ids=["damaged EXIF", "16 bit grey", "16 bit colours", "EPS", "GIF", "64 million pixels", "400 million pixels"])
def test_pictures_of_other_kinds_or_sizes_are_refused_when_the_log_is_opened(tmp_path, name, picture, message):
    folder, vqa = write_actions(tmp_path / "robot", [[.1]]), write_vqa(tmp_path / "vqa", [{"image": name, "answer": "a"}])
    write_lines(folder / "steps.jsonl", [{"episode": 0, "instruction": "go", "image": name, "action": [.1]}])
    for opened in (lambda: robot(folder), lambda: web(vqa)):
        (folder / name).write_bytes(picture), (vqa / name).write_bytes(picture)
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            opened()


def test_a_png_of_which_any_byte_has_changed_is_refused(tmp_path):
    """all of it has checksums, of which Pillow looks at those that are not of pixels"""
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)), "PNG")
    assert read_picture(whole, "a.png").shape == (6, 5, 3)
    for i in range(len(whole)):
        for bad in (whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1:], whole[:i]):
            with pytest.raises(ValueError, match="^a.png cannot be read as a picture"):
                read_picture(bad, "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_exif_says_the_picture_is_read_or_refused_by_name():
    whole, refusals = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", 0
    for n in range(1, len(whole)):
        for exif in (whole, whole[:n], whole[:n] + b"\xff" + whole[n + 1:]):
            try:
                assert read_picture(encoded(Image.new("RGB", (8, 8)), "PNG", exif=exif), "a.png").shape == (8, 8, 3)
            except ValueError as e:
                assert str(e).startswith("a.png cannot be read as a picture") and exif != whole
                refusals += 1
    assert refusals > 2


def test_a_picture_is_shown_as_its_exif_says(tmp_path):
    sideways, exif = np.zeros((16, 16, 3), np.uint8), Image.Exif()
    sideways[:, :8] = 255                                   # light on the left; a quarter turn clockwise: on top
    exif[0x0112] = 6
    folder, vqa = write_actions(tmp_path / "robot", [[.1]]), write_vqa(tmp_path / "vqa", [{"image": "0.jpg", "answer": "a"}])
    for path in (folder / "0.png", vqa / "0.jpg"):
        path.write_bytes(encoded(Image.fromarray(sideways), "JPEG", exif=exif))
    for log in (robot(folder), web(vqa)):
        assert log.picture(0)[:8].mean() > 250 and log.picture(0)[8:].mean() < 5


def test_pictures_outside_of_the_folder_are_refused_unless_the_table_says_so(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    for n, name in enumerate(["../secret.png", str(tmp_path / "secret.png"), "a/../../secret.png"]):
        folder, vqa = write_actions(tmp_path / f"robot {n}", [[.1]]), write_vqa(tmp_path / f"vqa {n}", [{"image": name, "answer": "a"}])
        (folder / "a").mkdir(), (vqa / "a").mkdir()
        write_lines(folder / "steps.jsonl", [{"episode": 0, "instruction": "go", "image": name, "action": [.1]}])
        for opened in (lambda **options: robot(folder, **options), lambda **options: web(vqa, **options)):
            with pytest.raises(ValueError, match=f"{re.escape(repr(name))}, which is outside of its folder; .*outside = true"):
                opened()
            assert opened(outside=True).picture(0).shape == (8, 8, 3)
            with pytest.raises(ValueError, match="which is outside of its folder"):     # although its index is there now
                opened()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")           # made here, by who downloaded the log
    write_lines(folder / "steps.jsonl", [{"episode": 0, "instruction": "go", "image": "a/../link.png", "action": [.1]}])
    assert len(robot(folder)) == 1


# -- VQA

def test_vqa_has_several_turns_a_picture_and_captions(tmp_path):
    vqa, rng = web(write_vqa(tmp_path / "vqa")), np.random.default_rng(0)
    assert len(vqa) == 3 and vqa.summary() == "3 pictures, 7 questions"
    said = {vqa.ask(0, rng) for _ in range(50)}
    assert said == {("Q: How bright is it? 0 A:", " level 0"), ("Q: How bright is it? 1 A:", " level 0"),
                    ("Q: What is happening in the image? A:", " a dark wall")}
    assert vqa.picture(2).shape == (20, 20, 3) and abs(int(vqa.picture(2)[0, 0, 0]) - 160) < 4
    texts = list(vqa.texts())
    assert len(texts) == 3 and texts == list(vqa.texts()) and all(re.fullmatch("Q: .* A: (level .|a dark wall)", t) for t in texts)


@pytest.mark.parametrize("lines, message", [
    ([{"image": "0.jpg"}], "line 1: it must be an object with 'answer' of type str"), ([{"image": "0.jpg", "answer": 7}], "'answer' of type str"),
    ([{"image": "0.jpg", "question": " ", "answer": "a"}], "line 1: the question or answer about '0.jpg' is empty"),
    ([{"image": "0.jpg", "question": ["a"], "answer": "a"}], "is empty, or not a text"), ([7], "line 1: it must be an object")])
def test_a_bad_line_of_a_vqa_folder_is_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        web(write_vqa(tmp_path / "vqa", lines))


# -- options, index, fingerprint

@pytest.mark.parametrize("half, table, message", [
    ("robot", {"format": "tar"}, "format = 'tar' under [[robot]]; use one of: world, folder, rlds, lerobot"),
    ("web", {"format": "rlds"}, "format = 'rlds' under [[web]]; use one of: world, vqa"), ("robot", {"path": "x"}, "needs a format"),
    ("robot", {"format": "rlds"}, "needs path = ... of type str"), ("robot", {"format": "rlds", "path": ["x"]}, "path = ['x'] must be of type str"),
    ("robot", {"format": "rlds", "path": "", "camra": "x"}, "of format 'rlds' has no key 'camra'; there are: name, weight"),
    ("robot", {"format": "rlds", "path": "", "verify": "no"}, "verify = 'no' must be of type bool"),
    ("robot", {"format": "rlds", "path": "", "action": 3}, "action = 3 must be of type list of texts"),
    ("robot", {"format": "lerobot", "path": "", "camera": ["top", "top"]}, "camera = ['top', 'top'] names one of them twice"),
    ("robot", {"format": "folder", "path": "", "bounds": {"x": [1, 0]}}, "bounds of x are [1, 0]; they must be [low, high]"),
    ("robot", {"format": "folder", "path": "", "bounds": {"x": ["0", "1"]}}, "bounds of x are ['0', '1']; they must be"),
    ("robot", {"format": "folder", "path": "", "bounds": {"x": [0, 1]}, "categories": "x"}, "x is one of categories = ['x'], which have no"),
    ("robot", {"format": "folder", "path": "", "chunk": 0}, "chunk = 0; it must be from 1 to 100"),
    ("robot", {"format": "lerobot", "path": "", "names": [1, 2]}, "names = [1, 2] must be of type list of texts"),
    ("robot", {"format": "folder", "path": "", "names": ["x", "x"]}, "give each number of an action a name of its own"),
    ("robot", {"format": "folder", "path": "", "names": [""]}, "a name of its own"),
    ("robot", {"format": "folder", "path": "", "skip_idle": 1}, "skip_idle = 1 must be of type bool"),
    ("web", {"format": "vqa", "path": "", "outside": "yes"}, "outside = 'yes' must be of type bool")])
def test_tables_of_a_preset_are_checked_when_it_is_read(half, table, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        data.settings_of(half, table)


@pytest.mark.parametrize("half, format, message", [
    ("robot", "folder", "there is no steps.jsonl in it"), ("web", "vqa", "it must have one file of JSON lines"),
    ("robot", "rlds", "no features.json"), ("robot", "lerobot", "no meta/info.json")])
def test_empty_and_missing_folders_are_one_line_errors(tmp_path, half, format, message):
    if format == "lerobot":
        pytest.importorskip("pyarrow")
    for path, said in ((tmp_path, message), (tmp_path / "nowhere", "there is no such folder" if half == "robot" else message)):
        with pytest.raises(ValueError, match=f"{path}.*{said}"):
            data.open_log(half, {"format": format, "path": str(path)}, tmp_path / "cache", quiet=True)


@pytest.mark.parametrize("opened, write", [(robot, write_robot), (web, write_vqa)])
def test_the_fingerprint_is_that_of_lines_and_pictures_but_not_of_the_place(tmp_path, opened, write):
    def edit(file, old, new):
        before = file.read_bytes()
        file.write_bytes(before.replace(old, new, 1))
        assert file.read_bytes() != before
        return opened(tmp_path / "log").fingerprint
    write(tmp_path / "elsewhere")
    found = [opened(tmp_path / "elsewhere").fingerprint]
    (tmp_path / "elsewhere").rename(tmp_path / "log")
    assert opened(tmp_path / "log").fingerprint == found[0]
    lines, = (tmp_path / "log").glob("*.jsonl")
    found.append(edit(lines, b"block" if opened is robot else b"bright", b"BLACK" if opened is robot else b"BRIGHT"))
    picture = sorted((tmp_path / "log").rglob("*.png" if opened is robot else "*.jpg"))[1]
    size = picture.stat().st_size
    Image.new("RGB", Image.open(picture).size, "red").save(picture)
    found.append(opened(tmp_path / "log").fingerprint)
    assert len({*found}) == 3 and size


def test_the_fingerprint_is_that_of_thoughts_and_questions_too(tmp_path):
    """they are read from the file when they are asked for, and stand in no array of the index"""
    made = {"thought": "Plan: push.", "questions": [["How many?", "two"]]}
    found = [robot(write_robot(tmp_path / f"{n}", change=replaced(**made | other))).fingerprint for n, other in enumerate(
        [{}, {}, {"thought": "Plan: pull."}, {"questions": [["How many?", "six"]]}, {"questions": [["How much?", "two"]]}])]
    assert found[0] == found[1] and len({*found}) == 4


def test_an_index_inside_the_log_is_not_a_part_of_it(tmp_path):
    folder = write_robot(tmp_path / "robot")
    logs = [data.open_log("robot", {"format": "folder", "path": str(folder)}, folder / "cache", quiet=True) for _ in range(3)]
    assert len({log.index for log in logs}) == 1


@pytest.mark.parametrize("opened, write, kind", [(robot, write_robot, "folder"), (web, write_vqa, "vqa")])
def test_a_cache_that_is_damaged_or_cannot_be_written_is_one_line(tmp_path, opened, write, kind):
    folder = write(tmp_path / "log")
    opened(folder)
    index, = (tmp_path / "cache").glob(f"{kind}-*")
    for file in index.iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=f"{index} is damaged; delete this folder"):
            opened(folder)
        file.write_bytes(whole)
    index.rename(tmp_path / "away")
    (tmp_path / "cache").rmdir(), (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(ValueError, match=f"the index {index} cannot be made"):
        opened(folder)


# -- from a log to the robot

ROBOT_ONLY = ["--robot_fraction", "1", "--pretrain_steps", "0"]


def config(tmp_path, *more):
    return train.read_config([*tiny.ARGS, "--data_dir", str(tmp_path / "cache"), "--out_dir", str(tmp_path / "out"), *more])


def source(format, path, **keys):
    return ", ".join([f'format="{format}"', f'path="{path}"', *(f"{k}={json.dumps(v)}" for k, v in keys.items())])


@pytest.mark.parametrize("D, frames", [(2, 1), (26, 2)])
def test_an_action_of_any_width_trains_acts_and_is_measured(tmp_path, D, frames):
    """the numbers of the log are the numbers of the policy: their count, their bounds, and no padding; one picture or two"""
    table = source("folder", write_robot(tmp_path / "robot", D), hold_out=3, augment=True, n_bins=21)
    path = train.train(config(tmp_path, "--robot", table, *ROBOT_ONLY, "--text_len", "60", "--frames", str(frames)))
    policy = evaluation.Policy(path, "cpu")
    for size in ((30, 40), (16, 16)):
        action = policy.episode().act(np.full((*size, 3), 90, np.uint8), "push the block 1")
        inside = (action[1:] >= policy.actions.low[1:]) & (action[1:] <= policy.actions.high[1:])
        assert action.shape == (1 + D,) and action[0] in (0, 1) and inside.all()
    assert policy.actions.n_bins == 21                      # as in the paper's Language-Table runs
    log = robot(tmp_path / "robot")
    found = held_out.evaluate(policy, log, 3, quiet=True)
    assert found["episodes"] == 2 and found["steps"] == 10
    test = data.RobotData(log, policy.robot, text_len=60, hold_out=3, held_out=True)
    known = np.setdiff1d(np.arange(30), test.index)
    firsts = [abs(log.actions[i, 1] - log.actions[known, 1].mean()) for i in test.index if test.previous(i) == i]
    want = ((10 - len(firsts)) * .1 + sum(firsts)) / 10
    assert found["drivers"]["action of the step before"]["l1"]["a0"] == pytest.approx(want, rel=1e-3)


def test_two_frames_are_the_step_before_and_this_one_and_a_web_picture_twice(tmp_path):
    log = robot(write_robot(tmp_path / "robot"))
    actions = data.ActionTokenizer(data.Tokenizer.train(["push the block 0 1"]), *log.bounds, names=log.names)
    every = data.RobotData(log, data.Robot(actions), size=30, frames=2, hold_out=0)
    for i, grey in ((0, (50, 50)), (7, (68, 71)), (5, (65, 65))):
        pictures, _ = every.sample(np.random.default_rng(0), i)
        assert pictures.shape == (2, 30, 30, 3) and (pictures[0] == grey[0]).all() and (pictures[1] == grey[1]).all()
    pictures, _ = data.WebData(web(write_vqa(tmp_path / "vqa")), actions.tokenizer, size=30, frames=2).sample(np.random.default_rng(0))
    assert pictures.shape == (2, 30, 30, 3) and (pictures[0] == pictures[1]).all()


def test_several_cameras_of_a_folder_train_and_act(tmp_path):
    def change(lines):
        for n, line in enumerate(lines):
            Image.new("RGB", (20, 20), (3 * n,) * 3).save(tmp_path / f"robot/{n}.png")
            line["image"] = {"front": line["image"], "wrist": f"{n}.png"}
        return lines
    folder = write_robot(tmp_path / "robot", change=change)
    log = robot(folder)
    assert log.cameras == ("front", "wrist") and [p[0, 0, 0] for p in log.picture(7)] == [71, 21]
    table = source("folder", folder, hold_out=3, augment=True)
    path = train.train(config(tmp_path, "--robot", table, "--web", source("vqa", write_vqa(tmp_path / "vqa")), "--text_len", "60",
                              "--frames", "2", "--pretrain_steps", "2", "--robot_fraction", "0.5"))
    policy, grey = evaluation.Policy(path, "cpu"), np.full((30, 40, 3), 90, np.uint8)
    assert policy.model.config.pictures == 4 and policy.robot.cameras == ("front", "wrist")
    assert policy.episode().act({"front": grey, "wrist": grey}, "push the block 1").shape == (3,)
    assert held_out.evaluate(policy, log, 3, quiet=True)["steps"] == 10
    Image.new("RGB", (20, 20)).save(folder / "7.png")
    assert robot(folder).fingerprint != log.fingerprint     # a picture of the second camera that is exchanged is noticed
    for n, (image, message) in enumerate((({"front": "7.png"}, "in every line a table of the same cameras"),
                                          ({"front": "7.png", "wrist": 3}, "its image is .*'wrist': 3"),
                                          ({"front": "7.png", "wrist": "no.png"}, "picture 'no.png' is not there"))):
        lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        lines[4]["image"] = image
        other = tmp_path / f"other{n}"
        other.mkdir()
        for name in ("pictures", *(f"{i}.png" for i in range(30))):
            (other / name).symlink_to(folder / name)
        write_lines(other / "steps.jsonl", lines)
        with pytest.raises(ValueError, match=f"line 5 .episode 0.: .*{message}"):
            robot(other)


@pytest.mark.parametrize("execute", [1, 2])
def test_answers_of_several_actions_train_act_and_are_measured(tmp_path, execute):
    table = source("folder", write_robot(tmp_path / "robot"), hold_out=3, chunk=3)
    path = train.train(config(tmp_path, "--robot", table, *ROBOT_ONLY, "--text_len", "60"))
    policy, calls = evaluation.Policy(path, "cpu", execute=execute), []
    policy.generate = lambda *args: calls.append(1) or evaluation.Policy.generate(policy, *args)
    assert policy.robot.chunk == 3 and len(policy.slots) == 9
    episode = policy.episode()
    for _ in range(4):
        assert episode.act(np.zeros((16, 16, 3), np.uint8), "push the block 1").shape == (3,)
        episode.to_do = [a for a in episode.to_do if not a[0]]
    assert len(calls) >= 4 // execute and policy.episode().to_do == []
    assert held_out.evaluate(policy, robot(tmp_path / "robot"), 3, quiet=True)["steps"] == 10
    line = json.loads((path.parent / "log.jsonl").read_text().splitlines()[-1])
    assert set(line["l1"]) == {"terminate", "a0", "a1"}
    with pytest.raises(ValueError, match="execute = 4; an answer holds 3 actions"):
        evaluation.Policy(path, "cpu", execute=4)
    with pytest.raises(ValueError, match="a resumed run cannot change robot"):
        train.read_config(["--resume", "--out_dir", str(path.parent), "--robot", table.replace("chunk=3", "chunk=2")])


def test_thoughts_and_questions_of_a_log_are_learnt_and_said(tmp_path):
    def change(lines):
        return [{**line, "thought": "Plan: push.", "questions": [["Is it dark?", "yes"]]} for line in lines]
    table = source("folder", write_robot(tmp_path / "robot", change=change), hold_out=3)
    c = config(tmp_path, "--robot", table, *ROBOT_ONLY, "--text_len", "60", "--thought_len", "5")
    logs = data.open_logs(c, quiet=True)
    tokenizer = data.make_tokenizer(logs, c.n_vocab)
    mix, held_out = data.make_mix(c, logs, data.make_robots(c, logs, tokenizer, {}), tokenizer)
    batch = mix[0, 0]
    for tokens, label, segment in zip(batch["tokens"].tolist(), batch["label"].tolist(), batch["segment"].tolist()):
        said = tokenizer.decode([t for t, what, s in zip(tokens, label, segment) if what == data.SAID and s == 1])
        assert said == " Plan: push. Action:<eos>" and label.count(data.ACTION) == 3 and max(segment) == 2
        assert tokenizer.decode([t for t, s in zip(tokens, segment) if s == 2]) == "Q: Is it dark? A: yes<eos>"
    policy = evaluation.Policy(train.train(c), "cpu")
    assert policy.episode().act(np.zeros((16, 16, 3), np.uint8), "push the block 0").shape == (3,)
    with pytest.raises(ValueError, match="thought .* takes . tokens; raise thought_len = 0"):
        train.train(config(tmp_path / "again", "--robot", table, *ROBOT_ONLY))


def test_robots_and_webs_mix_by_weight_and_each_robot_keeps_its_own_numbers(tmp_path):
    """logs of two and of four numbers, and VQA folders, in one run; the checkpoint acts for both robots"""
    robots = ["--robot", source("folder", write_robot(tmp_path / "two"), name="pusher", weight=3.0, hold_out=3),
              source("folder", write_robot(tmp_path / "four", D=4), hold_out=3)]
    webs = ["--web", source("vqa", write_vqa(tmp_path / "vqa")), source("vqa", write_vqa(tmp_path / "more"), name="more", weight=2.0)]
    c = config(tmp_path, *robots, *webs, "--batch_size", "32", "--pretrain_steps", "0")
    logs = data.open_logs(c, quiet=True)
    tokenizer = data.make_tokenizer(logs, c.n_vocab)
    mix, _ = data.make_mix(c, logs, data.make_robots(c, logs, tokenizer, {}), tokenizer)
    batches = [mix[step, 0] for step in range(30)]
    share = [np.mean([(b["source"] == k).float().mean() for b in batches]) for k in (0, 1, -1)]
    assert share == pytest.approx([.375, .125, .5], abs=.05)
    for b in batches[:5]:
        for row, label in zip(b["source"].tolist(), b["label"]):
            assert int((label == data.ACTION).sum()) == (3, 5, 0)[row]
    path = train.train(c)
    for name, D in (("pusher", 3), ("folder", 5)):
        assert evaluation.Policy(path, "cpu", robot=name).episode().act(np.zeros((16, 16, 3), np.uint8), "pick apple").shape == (D,)
    line = json.loads((tmp_path / "out/log.jsonl").read_text().splitlines()[-1])
    assert {"pusher a0", "folder a3"} <= set(line["l1"])


def test_another_robot_does_not_inherit_bounds_by_its_name(tmp_path):
    wide = write_robot(tmp_path / "far", change=lambda lines: [{**n, "action": [10 * x for x in n["action"]]} for n in lines])
    near = source("folder", write_robot(tmp_path / "near"), hold_out=3)
    path = train.train(config(tmp_path, "--robot", near, *ROBOT_ONLY))
    far = source("folder", wide, hold_out=3)
    with pytest.raises(ValueError, match="robot 'folder': .* outside the checkpoint's bounds"):
        train.train(config(tmp_path / "b", "--robot", far, *ROBOT_ONLY, "--init_from", str(path)))
    far += ', name="far"'
    path = train.train(config(tmp_path / "c", "--robot", far, *ROBOT_ONLY, "--init_from", str(path)))
    assert evaluation.Policy(path, "cpu", robot="far").actions.high[1] > 30


def test_a_checkpoint_learns_a_second_robot_whose_numbers_are_measured_by_its_own_names(tmp_path):
    """the first robot stays known, but is not in this run; the one without held-out episodes shifts nothing"""
    two = source("folder", write_robot(tmp_path / "two"), name="two", hold_out=3)
    four = source("folder", write_robot(tmp_path / "four", D=4), name="four", hold_out=3)
    idle = source("folder", write_robot(tmp_path / "idle"), name="idle", hold_out=0)
    path = train.train(config(tmp_path, "--robot", two, *ROBOT_ONLY))
    train.train(config(tmp_path / "more", "--robot", idle, four, *ROBOT_ONLY, "--init_from", str(path)))
    line = json.loads((tmp_path / "more/out/log.jsonl").read_text().splitlines()[-1])
    assert set(line["l1"]) == {"terminate", "a0", "a1", "a2", "a3"}


def test_a_run_on_a_log_resumes_bit_for_bit_and_not_on_another_log(tmp_path):
    table = ["--robot", source("folder", write_robot(tmp_path / "robot"), hold_out=3, augment=True), *ROBOT_ONLY]
    whole = train.load(train.train(config(tmp_path, *table, "--steps", "5")))
    half = config(tmp_path, *table, "--steps", "5", "--out_dir", str(tmp_path / "half"))
    save = train.save
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        def stop_after_two(path, **state):
            save(path, **state)
            if state["step"] == 2:
                raise KeyboardInterrupt
        patch.setattr(train, "save", stop_after_two)
        train.train(half)
    again = train.read_config(["--resume", "--out_dir", str(tmp_path / "half")])
    lines = tmp_path / "robot/steps.jsonl"
    before = lines.read_text()
    lines.write_text(before.replace("block", "apple"))
    with pytest.raises(ValueError, match="the logs are not those"):
        train.train(again, resume=True)
    lines.write_text(before)
    two = train.load(train.train(again, resume=True))
    assert two["step"] == whole["step"] == 5 and all(torch.equal(whole["model"][k], two["model"][k]) for k in whole["model"])


@pytest.mark.filterwarnings("ignore:.*tokens now mean bins", "ignore:.*tokens now mean bins")
@pytest.mark.parametrize("scheme", ["integer", "overwrite"])
def test_gpt2s_words_carry_the_actions_in_both_schemes(tmp_path, scheme):
    """published weights and their words, with a log of one's own, from training to the policy"""
    from test_weights import gpt2, gpt2_files, published_folder
    folder = published_folder(tmp_path / "gpt2", gpt2(n_layer=1, width=16, rows=len(gpt2_files()[0]) + 1, length=160), n_head=2)
    write_gpt2_files(tmp_path / "gpt2")
    table = source("folder", write_robot(tmp_path / "robot"), hold_out=3)
    path = train.train(config(tmp_path, "--robot", table, *ROBOT_ONLY, "--pretrained", f'gpt2 = "{folder}"', "--scheme", scheme,
                              "--text_len", "160", "--steps", "2"))
    policy = evaluation.Policy(path, "cpu")
    assert policy.episode().act(np.zeros((16, 16, 3), np.uint8), "push the block 0").shape == (3,) and policy.model.config.gelu == "tanh"
    assert policy.tokenizer.kind == "gpt2"
