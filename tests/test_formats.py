"""logs: a folder of one's own, a folder of VQA, and the whole way from such logs through training to the policy and its measure"""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data
import eval as evaluation
import train
from formats.log import VQA, Folder, open_log
from test_tokenizer import gpt2_files

ROOT = Path(__file__).parent.parent
TINY = ["--config", str(ROOT / "configs/cpu.toml"), "--image_size", "32", "--vit_layer", "1", "--n_layer", "1", "--vit_embd", "32", "--n_embd",
        "32", "--batch_size", "4", "--pretrain_steps", "0", "--warmup", "2", "--steps", "4", "--log_every", "2", "--device", "cpu",
        "--no-evaluate", "--robot_episodes", "30", "--web_pictures", "40"]


def write_robot(folder, D=2, episodes=6, steps=5, words="push the block", bad=None):
    """a log whose action is in the picture: a grey of 50 + 3 * (number of the step in all) and numbers that grow with it"""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for e in range(episodes):
        for t in range(steps):
            n = e * steps + t
            Image.new("RGB", (40, 30), (50 + 3 * n,) * 3).save(folder / f"pictures/{n}.png")
            lines.append({"episode": e, "instruction": f"{words} {e % 2}", "action": [n / 10 + d + 1 for d in range(D)],
                          "image": f"pictures/{n}.png"})
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (bad(lines) if bad else lines)))
    return folder


def write_vqa(folder, lines=None):
    folder.mkdir(parents=True)
    for n in range(3):
        Image.new("RGB", (20, 20), (80 * n,) * 3).save(folder / f"{n}.jpg")
    lines = lines or [{"image": f"{n}.jpg", "question": f"How bright is it? {k}", "answer": f"level {n}"} for n in range(3) for k in range(2)] + [
        {"image": "0.jpg", "answer": "a dark wall"}]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def config(tmp_path, *more):
    return train.read_config([*TINY, "--data_dir", str(tmp_path / "cache"), "--out_dir", str(tmp_path / "out"), *more])


def source(format, path, **keys):
    return ", ".join([f'format="{format}"', f'path="{path}"', *(f"{k}={json.dumps(v)}" for k, v in keys.items())])


# -- formats

def test_a_folder_log_gives_back_what_was_written(tmp_path):
    log = open_log("robot", "folder", write_robot(tmp_path / "robot", D=3), tmp_path / "cache", True, names=["x", "y", "z"])
    assert len(log) == 30 and log.names == ["terminate", "x", "y", "z"] and log.counts["episodes"] == 6
    for i in (0, 7, 29):
        assert log.actions[i].tolist() == pytest.approx([float(i % 5 == 4), i / 10 + 1, i / 10 + 2, i / 10 + 3])
        assert (log.picture(i) == 50 + 3 * i).all() and log.picture(i).shape == (30, 40, 3)
        assert log.instruction(i) == f"push the block {i // 5 % 2}" and log.previous(i) == (i if i % 5 == 0 else i - 1)
    assert log.statistics["x"]["min"] == pytest.approx(1) and log.statistics["x"]["q99"] == pytest.approx(1 + 2.9 * .99, abs=.01)


def replaced(key, value):
    return lambda lines: lines[:2] + [{**lines[2], key: value}] + lines[3:]


@pytest.mark.parametrize("bad, message", [
    (replaced("action", [1]), "action of episode 0 is [1]; it must be 2 numbers"), (replaced("action", [1, "a"]), "must be 2 numbers"),
    (replaced("instruction", 3), "line 3: it must be an object with 'instruction' of type str"),
    (replaced("episode", "0"), "line 3: it must be an object with 'episode' of type int"),
    (lambda lines: [{**line, "action": [1, float("nan")]} for line in lines], "{'episodes with an action that is not finite': 6}"),
    (lambda lines: [], "it is empty")])
def test_a_bad_line_of_a_folder_log_is_named(tmp_path, bad, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        open_log("robot", "folder", write_robot(tmp_path / "robot", bad=bad), tmp_path / "cache", True)


def test_missing_and_broken_pictures_of_a_folder_are_named(tmp_path):
    folder = write_robot(tmp_path / "robot")
    log = open_log("robot", "folder", folder, tmp_path / "cache", True)
    (folder / "pictures/3.png").unlink()
    (folder / "pictures/4.png").write_bytes(b"no picture")
    for i, message in ((3, "3.png: this picture is named in the log, but is not there"), (4, "4.png cannot be read as a picture")):
        with pytest.raises(ValueError, match=re.escape(message)):
            log.picture(i)


def test_pictures_that_are_not_there_are_missed_at_once_and_names_must_fit(tmp_path):
    folder, vqa = write_robot(tmp_path / "robot"), write_vqa(tmp_path / "vqa")
    for names in (["x"], ["x", "terminate"]):
        with pytest.raises(ValueError, match="but an action has 2 numbers"):
            Folder(folder, tmp_path / "cache", True, names=names)
    (folder / "pictures/3.png").unlink()
    (vqa / "1.jpg").unlink()
    for make in (lambda: Folder(folder, tmp_path / "cache", True), lambda: VQA(vqa)):
        with pytest.raises(ValueError, match="is not there"):
            make()


def test_a_rare_button_can_still_be_pressed(tmp_path):
    bad = lambda lines: [{**line, "action": [1.0, float(n == 7)]} for n, line in enumerate(lines * 10)]             # noqa: E731
    log = Folder(write_robot(tmp_path / "robot", bad=bad), tmp_path / "cache", True, names=["x", "button"])
    assert log.bounds()[0][2] == 0 and log.bounds()[1][2] == 1


def test_another_robot_does_not_inherit_bounds_by_its_name(tmp_path):
    wide = lambda lines: [{**line, "action": [10 * x for x in line["action"]]} for line in lines]                   # noqa: E731
    near = config(tmp_path, "--robot", source("folder", write_robot(tmp_path / "near"), hold_out=3), "--robot_fraction", "1")
    path = train.train(near)
    far = source("folder", write_robot(tmp_path / "far", bad=wide), hold_out=3)
    with pytest.raises(ValueError, match="robot 'folder': .* outside the checkpoint's bounds"):
        train.train(config(tmp_path, "--robot", far, "--robot_fraction", "1", "--init_from", str(path)))
    far += ', name="far"'
    two = train.load(train.train(config(tmp_path, "--robot", far, "--robot_fraction", "1", "--init_from", str(path))))
    assert two["robots"]["far"]["high"][1] > 30


def test_vqa_has_several_turns_a_picture_and_captions(tmp_path):
    vqa = open_log("web", "vqa", write_vqa(tmp_path / "vqa"), None, True)
    assert len(vqa) == 3 and vqa.summary() == "3 pictures, 7 questions"
    rng = np.random.default_rng(0)
    said = {vqa.ask(0, rng) for _ in range(50)}
    assert said == {("Q: How bright is it? 0 A:", " level 0"), ("Q: How bright is it? 1 A:", " level 0"),
                    ("Q: What is happening in the image? A:", " a dark wall")}
    assert vqa.picture(2).shape == (20, 20, 3) and abs(int(vqa.picture(2)[0, 0, 0]) - 160) < 4


@pytest.mark.parametrize("lines, message", [
    ([{"image": "0.jpg"}], "line 1: it must be an object with 'answer' of type str"),
    ([{"image": "0.jpg", "question": " ", "answer": "a"}], "question or answer about 0.jpg is empty"), ([7], "line 1: it must be an object")])
def test_a_bad_line_of_a_vqa_folder_is_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VQA(write_vqa(tmp_path / "vqa", lines))


@pytest.mark.parametrize("half, format, keys, message", [
    ("robot", "tar", {}, "format = 'tar' under [[robot]]; use one of: world, rlds, lerobot, folder"),
    ("web", "rlds", {}, "format = 'rlds' under [[web]]; use one of: world, vqa"),
    ("robot", "rlds", {"camra": "x"}, "unknown key 'camra' of format 'rlds'; there are: split, camera, action"),
    ("robot", "folder", {}, "there is no steps.jsonl in it"), ("web", "vqa", {}, "it must have one file of JSON lines")])
def test_unknown_formats_keys_and_empty_folders_are_one_line_errors(tmp_path, half, format, keys, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        open_log(half, format, tmp_path, tmp_path / "cache", True, **keys)


def test_a_number_that_never_changes_comes_back_as_it_is(tmp_path):
    log = Folder(write_robot(tmp_path / "robot", bad=lambda lines: [{**line, "action": [5.0, 0.0]} for line in lines]), tmp_path / "cache", True)
    actions = data.ActionTokenizer(data.Tokenizer.train(["a b"]), *log.bounds(), names=log.names)
    np.testing.assert_allclose(actions.decode(actions.encode([0, 5.0, 0.0])), [0, 5.0, 0.0], atol=1e-4)


# -- from a log to the arm

@pytest.mark.parametrize("D, frames", [(2, 1), (26, 2)])
def test_an_action_of_any_width_trains_acts_and_is_measured(tmp_path, D, frames, capsys):
    """the numbers of the log are the numbers of the policy: their count, their bounds, and no padding; one picture or two"""
    c = config(tmp_path, "--robot", source("folder", write_robot(tmp_path / "robot", D), hold_out=3, augment=True, n_bins=21), "--robot_fraction",
               "1", "--frames", str(frames))
    path = train.train(c)
    policy = evaluation.Policy(path, "cpu")
    for size in ((30, 40), (32, 32)):
        action = policy.act(np.full((*size, 3), 90, np.uint8), "push the block 1")
        assert action.shape == (1 + D,) and action[0] in (0, 1) and ((action[1:] >= policy.actions.low[1:]) & (action[1:] <= policy.actions.high[1:])).all()
    assert policy.actions.n_bins == 21                      # as in the paper's Language-Table runs
    found, = evaluation.report(path, device="cpu")["offline"]
    assert found["episodes"] == 2 and found["steps"] == 10 and found["replay"]["most_bins_off"] <= .5001
    before = found["drivers"]["action of the step before"]["l1"]
    assert before["a0"] == pytest.approx((8 * .1 + sum(abs(n / 10 + 1 - (np.mean([*range(10), *range(15, 25)]) / 10 + 1)) for n in (10, 25))) / 10, rel=1e-4)
    assert "action of the step before" in capsys.readouterr().out


def test_two_frames_are_the_step_before_and_this_one_and_a_web_picture_twice(tmp_path):
    log = Folder(write_robot(tmp_path / "robot"), tmp_path / "cache", True)
    actions = data.ActionTokenizer(data.Tokenizer.train(["push the block 0 1"]), *log.bounds(), names=log.names)
    robot = data.RobotData(log, actions, size=30, frames=2, hold_out=3)
    for i, grey in ((0, (50, 50)), (7, (68, 71)), (5, (65, 65))):
        pictures, _ = robot.sample(np.random.default_rng(0), i)
        assert pictures.shape == (2, 30, 30, 3) and (pictures[0] == grey[0]).all() and (pictures[1] == grey[1]).all()
    pictures, _ = data.WebData(VQA(write_vqa(tmp_path / "vqa")), actions.tokenizer, size=30, frames=2).sample(np.random.default_rng(0))
    assert pictures.shape == (2, 30, 30, 3) and (pictures[0] == pictures[1]).all()


def test_the_policy_remembers_the_picture_before_until_reset(tmp_path):
    path = train.train(config(tmp_path, "--robot", source("folder", write_robot(tmp_path / "robot"), hold_out=3), "--robot_fraction", "1",
                              "--frames", "2"))
    policy = evaluation.Policy(path, "cpu", temperature=0)
    dark, light = (np.full((32, 32, 3), g, np.uint8) for g in (0, 255))
    policy.act(dark, "push the block 0")
    policy.act(light, "push the block 0")
    assert [int(p[0, 0, 0]) for p in policy.seen] == [0, 255]
    policy.reset()
    policy.act(light, "push the block 0")
    assert [int(p[0, 0, 0]) for p in policy.seen] == [255, 255]


def test_robots_and_webs_mix_by_weight_and_each_robot_keeps_its_own_numbers(tmp_path):
    """a log of two numbers, the world of eight, a VQA folder and the world's web in one run; the checkpoint acts for both robots"""
    robots = ["--robot", source("folder", write_robot(tmp_path / "robot"), name="pusher", weight=3.0, hold_out=3), 'format="world"']
    webs = ["--web", source("vqa", write_vqa(tmp_path / "vqa")), 'format="world", weight=1.0']
    c = config(tmp_path, *robots, *webs, "--robot_fraction", "0.5", "--batch_size", "32")
    found = data.open_sources(c, 0, quiet=True)
    tokenizer = data.make_tokenizer(c, *found)
    actions = data.make_actions(c, found[0], tokenizer)
    mix, _ = data.make_data(c, *found, actions, tokenizer, 0)
    batches = [mix[step, 0] for step in range(30)]
    share = [np.mean([(b["source"] == k).float().mean() for b in batches]) for k in (0, 1, -1)]
    assert share == pytest.approx([.375, .125, .5], abs=.05)
    for b in batches[:5]:
        for row, tokens, segment, target in zip(b["source"].tolist(), b["tokens"], b["segment"], b["target"]):
            if row >= 0:
                assert (target & (segment == 1)).sum() == (3, 8)[row] + 1
    path = train.train(c)
    for name, D in (("pusher", 3), ("world", 8)):
        assert evaluation.Policy(path, "cpu", robot=name).act(np.zeros((32, 32, 3), np.uint8), "pick apple").shape == (D,)
    with pytest.raises(ValueError, match="several robots; say which: robot = one of pusher, world"):
        evaluation.Policy(path, "cpu")
    with pytest.raises(ValueError, match="no robot 'arm'; it has learnt to act for: pusher, world"):
        evaluation.Policy(path, "cpu", robot="arm")
    line = json.loads((tmp_path / "out/log.jsonl").read_text().splitlines()[-1])
    assert {"pusher a0", "world dx"} <= set(line["l1"])


@pytest.mark.parametrize("table, message", [
    ({"name": "world", "format": "folder"}, "two sources of [[robot]] are called 'world'"), ({"format": "folder", "hold_out": 50}, "no episode of")])
def test_sources_that_cannot_be_used_are_refused(tmp_path, table, message):
    folder = write_robot(tmp_path / "robot")
    with pytest.raises(ValueError, match=re.escape(message)):
        train.train(config(tmp_path, "--robot", source(**{**table, "path": str(folder)}), *(['format="world"'] if "name" in table else [])))


def test_a_run_on_a_log_resumes_bit_for_bit(tmp_path):
    robot = ["--robot", source("folder", write_robot(tmp_path / "robot"), hold_out=3, augment=True), "--robot_fraction", "1", "--save_every", "2"]
    whole = train.load(train.train(config(tmp_path, *robot)))
    half = tmp_path / "half"
    c = config(tmp_path, *robot)
    save, train.save = train.save, lambda path, **state: (save(half / path.name, **state) if state["step"] == 2 else None)
    try:
        half.mkdir()
        train.train(c)
    finally:
        train.save = save
    train.train(train.read_config(["--resume", "--out_dir", str(half)]))
    two = train.load(half / "checkpoint.pt")
    assert two["step"] == whole["step"] == 4 and all(torch.equal(whole["model"][k], two["model"][k]) for k in whole["model"])


@pytest.mark.filterwarnings("ignore:.*tokens now mean bins")
def test_gpt2s_words_carry_the_actions_in_both_schemes(tmp_path):
    """its vocabulary from its files, with a log of one's own, from training to the policy"""
    for name, text in zip(("vocab.json", "merges.txt"), gpt2_files()[1:]):
        (tmp_path / name).write_text(text, "utf-8")
    for scheme in ("integer", "overwrite"):
        path = train.train(config(tmp_path / scheme, "--robot", source("folder", write_robot(tmp_path / scheme / "robot"), hold_out=3),
                                  "--robot_fraction", "1", "--tokenizer_from", str(tmp_path), "--scheme", scheme,
                                  "--text_len", "160"))
        assert evaluation.Policy(path, "cpu").act(np.zeros((32, 32, 3), np.uint8), "push the block 0").shape == (3,)
