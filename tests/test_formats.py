"""folder and VQA: what was written comes back, bad input is named, and such a log goes the whole way to the policy"""
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import data
import eval as evaluation
import tiny
import train
from test_tokenizer import gpt2_files


def write_robot(folder, D=2, episodes=6, steps=5, change=lambda lines: lines):
    """a log whose action is in the picture: a grey of 50 + 3 * (number of the step in all)"""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for n in range(episodes * steps):
        Image.new("RGB", (40, 30), ((50 + 3 * n) % 256,) * 3).save(folder / f"pictures/{n}.png")
        lines.append({"episode": n // steps, "instruction": f"push the block {n // steps % 2}",
                      "action": [n / 10 + d + 1 for d in range(D)], "image": f"pictures/{n}.png"})
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    return folder


def write_vqa(folder, lines=None):
    folder.mkdir(parents=True)
    for n in range(3):
        Image.new("RGB", (20, 20), (80 * n,) * 3).save(folder / f"{n}.jpg")
    lines = lines or [{"image": f"{n}.jpg", "question": f"How bright is it? {k}", "answer": f"level {n}"}
                      for n in range(3) for k in range(2)] + [{"image": "0.jpg", "answer": "a dark wall"}]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def folder_log(path, **options):
    return data.open_log("robot", {"format": "folder", "path": str(path), **options}, path.with_name("cache"), quiet=True)


def vqa_log(path):
    return data.open_log("web", {"format": "vqa", "path": str(path)}, path.with_name("cache"), quiet=True)


def replaced(key, value, n=2):
    return lambda lines: [*lines[:n], {**lines[n], key: value}, *lines[n + 1:]]


def test_a_folder_log_gives_back_what_was_written(tmp_path):
    log, rng = folder_log(write_robot(tmp_path / "robot", D=3), names=["x", "y", "z"]), np.random.default_rng(0)
    assert len(log) == 30 and tuple(log.names) == ("terminate", "x", "y", "z") and log.counts["episodes"] == 6
    for i in (0, 7, 29):
        assert log.actions[i].tolist() == pytest.approx([float(i % 5 == 4), i / 10 + 1, i / 10 + 2, i / 10 + 3])
        assert (log.picture(i) == 50 + 3 * i).all() and log.picture(i).shape == (30, 40, 3)
        assert log.request(i, rng) == (data_prompt(i), "") and log.ask(i, rng) is None


def data_prompt(i):
    return f"Q: what action should the robot take to push the block {i // 5 % 2}? A:"


def test_a_folder_log_may_carry_thoughts_and_questions(tmp_path):
    change = lambda lines: [{**line, "thought": f"Plan: step {n}.", "questions": [["How grey?", str(n)]]}           # noqa: E731
                            for n, line in enumerate(lines)]
    log, rng = folder_log(write_robot(tmp_path / "robot", change=change)), np.random.default_rng(0)
    assert log.request(7, rng) == (data_prompt(7), " Plan: step 7.") and log.ask(7, rng) == ("Q: How grey? A:", " 7")
    assert any("Plan: step 7" in text for text in log.texts())


@pytest.mark.parametrize("change, message", [
    (replaced("action", [1]), "its action is [1]; it must be 2 numbers"), (replaced("action", [1, "a"]), "must be 2 numbers"),
    (replaced("instruction", 3), "line 3: it must be an object with 'instruction' of type str"),
    (replaced("instruction", ["a"]), "line 3: it must be an object with 'instruction' of type str"),
    (replaced("episode", "0"), "line 3: it must be an object with 'episode' of type int"),
    (replaced("episode", 4), "returns after it has ended"), (replaced("image", "../../secret.png"), "outside of its folder"),
    (replaced("image", "gone.png"), "its picture 'gone.png' is not there"), (lambda lines: [], "it is empty"),
    (lambda lines: [{**line, "action": [1, float("nan")]} for line in lines], "'episodes with an action that is not finite': 6")])
def test_a_bad_line_of_a_folder_log_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        folder_log(write_robot(tmp_path / "robot", change=change))


def test_a_number_that_hardly_ever_moves_comes_back(tmp_path):
    """noise of 1e-9 about 0, but for one 0.3; a category that one step of many has; a constant"""
    def change(lines):
        rng = np.random.default_rng(0)
        for n, line in enumerate(lines):
            line["action"] = [n / 100, .3 if n == 37 else rng.normal() * 1e-9, 3 if n == 50 else n % 3, 5.0]
        return lines
    log = folder_log(write_robot(tmp_path / "robot", D=4, episodes=40, change=change))
    actions = data.ActionTokenizer(data.Tokenizer.train(["a b"]), *log.bounds, names=log.names)
    back, bin_width = actions.decode(actions.encode(log.actions, quiet=True)), (actions.high - actions.low) / 256
    for i in (37, 50):
        assert (np.abs(back[i] - log.actions[i])[2:] <= bin_width[2:] / 2 + 1e-6).all()
    assert back[0, 4] == pytest.approx(5.0, abs=1e-3)


def test_the_fingerprint_follows_what_the_log_says(tmp_path):
    folder = write_robot(tmp_path / "robot")
    first = folder_log(folder).fingerprint
    assert folder_log(folder).fingerprint == first
    (folder / "steps.jsonl").write_text((folder / "steps.jsonl").read_text().replace("push", "pull"))
    assert folder_log(folder).fingerprint != first


# -- pictures

def test_what_would_be_lost_without_a_word_is_refused(tmp_path):
    """16 bits a pixel, something that is neither JPEG nor PNG, and a small file that claims a billion pixels"""
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "depth.png")
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("1", (8000, 8000)).save(tmp_path / "bomb.png")
    for name, message in (("depth.png", "more than 8 bits"), ("x.jpg", "cannot identify"), ("bomb.png", "8000 x 8000 pixels"),
                          ("gone.png", "is not there")):
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            data.read_picture(tmp_path / name, tmp_path / name)


def test_a_picture_that_exif_says_is_turned_is_turned():
    picture, out = Image.new("RGB", (8, 16), "blue"), io.BytesIO()
    picture.paste("red", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6                        # the camera was turned a quarter to the right
    picture.save(out, "PNG", exif=exif)
    seen = data.read_picture(out.getvalue(), "x")
    assert seen.shape == (8, 16, 3) and (seen[:, -1] == (255, 0, 0)).all()


# -- VQA

def test_vqa_has_several_turns_a_picture_and_captions(tmp_path):
    vqa, rng = vqa_log(write_vqa(tmp_path / "vqa")), np.random.default_rng(0)
    assert len(vqa) == 3 and vqa.summary() == "3 pictures, 7 questions"
    assert {vqa.ask(0, rng) for _ in range(50)} == {
        ("Q: How bright is it? 0 A:", " level 0"), ("Q: How bright is it? 1 A:", " level 0"),
        ("Q: What is happening in the image? A:", " a dark wall")}
    assert vqa.picture(2).shape == (20, 20, 3) and abs(int(vqa.picture(2)[0, 0, 0]) - 160) < 4


@pytest.mark.parametrize("lines, message", [
    ([{"image": "0.jpg"}], "line 1: it must be an object with 'answer' of type str"), ([7], "line 1: it must be an object"),
    ([{"image": "0.jpg", "question": " ", "answer": "a"}], "the question or answer about '0.jpg' is empty"),
    ([{"image": "9.jpg", "answer": "a"}], "the picture '9.jpg' is not there"),
    ([{"image": "../x.jpg", "answer": "a"}], "outside of its folder")])
def test_a_bad_line_of_a_vqa_folder_is_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        vqa_log(write_vqa(tmp_path / "vqa", lines))


@pytest.mark.parametrize("half, format, message", [("robot", "folder", "there is no steps.jsonl"), ("web", "vqa", "one file of JSON lines")])
def test_an_empty_folder_is_a_one_line_error(tmp_path, half, format, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        data.open_log(half, {"format": format, "path": str(tmp_path)}, tmp_path / "cache", quiet=True)


# -- from a log to the policy

def config(tmp_path, *more):
    return train.read_config([*tiny.ARGS, "--pretrain_steps", "0", "--data_dir", str(tmp_path / "cache"),
                              "--out_dir", str(tmp_path / "out"), *more])


@pytest.mark.parametrize("D, frames", [(2, 1), (26, 2)])
def test_an_action_of_any_width_trains_acts_and_is_measured(tmp_path, D, frames):
    robot = f'format="folder", path="{write_robot(tmp_path / "robot", D)}", hold_out=3, augment=true, n_bins=21'
    path = train.train(config(tmp_path, "--robot", robot, "--robot_fraction", "1", "--frames", str(frames), "--text_len", "60"))
    policy = evaluation.Policy(path, "cpu")
    action = policy.act(np.full((30, 40, 3), 90, np.uint8), "push the block 1")
    assert action.shape == (1 + D,) and action[0] in (0, 1) and policy.actions.n_bins == 21
    found, = evaluation.report(path, device="cpu")["held_out"]
    assert found["episodes"] == 2 and found["steps"] == 10 and found["replay"]["most_bins_off"] <= .5001


def test_a_folder_and_vqa_mix_with_the_world(tmp_path):
    robots = [f'format="folder", path="{write_robot(tmp_path / "robot")}", name="pusher", hold_out=3', 'format="world", episodes=25']
    path = train.train(config(tmp_path, "--robot", *robots, "--web", f'format="vqa", path="{write_vqa(tmp_path / "vqa")}"', "--text_len", "60"))
    for name, D in (("pusher", 3), ("world", 8)):
        assert evaluation.Policy(path, "cpu", robot=name).act(np.zeros((16, 16, 3), np.uint8), "pick apple").shape == (D,)


@pytest.mark.filterwarnings("ignore:.*tokens now mean bins")
@pytest.mark.parametrize("scheme", ["integer", "overwrite"])
def test_gpt2s_words_and_weights_carry_the_actions(tmp_path, scheme):
    """its vocabulary and its weights from its folder, with a log of one's own, from training to the policy"""
    from test_weights import gpt2, write
    gpt2_folder = tmp_path / "gpt2"
    gpt2_folder.mkdir()
    for name, text in zip(("vocab.json", "merges.txt"), gpt2_files()[1:]):
        (gpt2_folder / name).write_text(text, "utf-8")
    rows = len(json.loads((gpt2_folder / "vocab.json").read_text("utf-8")))
    write(gpt2_folder / "model.safetensors", gpt2(n_layer=1, width=16, rows=rows, length=100))
    robot = f'format="folder", path="{write_robot(tmp_path / "robot")}", hold_out=3'
    path = train.train(config(tmp_path, "--robot", robot, "--robot_fraction", "1", "--scheme", scheme, "--text_len", "100",
                              "--pretrained", f'gpt2="{gpt2_folder}"'))
    policy = evaluation.Policy(path, "cpu")
    assert policy.tokenizer.kind == "gpt2" and policy.model.config.gelu == "tanh"
    assert policy.act(np.zeros((16, 16, 3), np.uint8), "push the block 0").shape == (3,)
    assert torch.isfinite(policy.model.wte.weight).all()
