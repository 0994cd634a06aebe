"""train.py and eval.py as a person runs them: resume, stop, bad input, and the README's commands"""
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import eval as evaluation
import train
from study.suites import Suite
from tokenizer import prompt
from world.scene import World

ROOT = Path(__file__).parent.parent
FULL = dict(vocabulary="full", skills=train.SKILLS, image_size=32)
TINY = ["--robot_episodes", "30", "--web_pictures", "40", "--image_size", "32", "--vit_layer", "1", "--n_layer", "1", "--vit_embd", "32",
        "--n_embd", "32", "--batch_size", "4", "--pretrain_steps", "3", "--steps", "5", "--warmup", "2", "--log_every", "2",
        "--save_every", "2", "--device", "cpu", "--no-evaluate", "--skills", "pick", "move near", "--vocabulary", "small",
        "--text_len", "64", "--vit_head", "4", "--n_head", "4", "--robot_fraction", "0.5", "--no-compile", "--workers", "0",
        "--web_questions", "locate", "way", "what at", "caption"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def config(folder, out, *more):
    return train.read_config([*TINY, "--data_dir", str(folder / "data"), "--out_dir", str(folder / out), *more])


def only(skill):
    return Suite("basic", "seen", skill, skills=(skill,))


class Stop(Exception):
    pass


@pytest.fixture(scope="session")
def run(folder):
    """one tiny run, from the web to the end: the path of its checkpoint"""
    return train.train(config(folder, "run"))


def weights(path):
    return train.load(path)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def script(*args, **kwargs):
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, cwd=ROOT, timeout=120, **kwargs)


# -- the loop

@pytest.mark.parametrize("stop", [2, 4, 6])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(folder, run, monkeypatch, stop):
    """stopped after a checkpoint in the web stage and in the robot stage: weights, optimisers and log end as if it had not been"""
    original, out = train.save, f"stopped{stop}"

    def save(path, **state):
        original(path, **state)
        if Path(path).name == "checkpoint.pt" and state["step"] == stop:
            raise Stop
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train, "save", save)
        train.train(config(folder, out))
    assert train.load(folder / out / "checkpoint.pt")["step"] == stop
    torch.manual_seed(999)                                  # what a new process would find
    train.train(config(folder, out, "--resume"))
    one, two = train.load(folder / out / "checkpoint.pt"), train.load(run)
    assert same(one["model"], two["model"]) and one["step"] == two["step"]
    for name in ("muon", "adam"):
        for a, b in zip(one["optimizers"][name]["state"].values(), two["optimizers"][name]["state"].values()):
            assert same(a, b)
    steps = [[json.loads(line)["step"] for line in (folder / o / "log.jsonl").read_text().splitlines()] for o in (out, "run")]
    assert steps[0] == steps[1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder, run):
    assert same(weights(train.train(config(folder, "twin"))), weights(run))
    assert not same(weights(train.train(config(folder, "other", "--seed", "1"))), weights(run))


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(folder, monkeypatch):
    """the norm that the loop sees for three micro-batches of four rows is that of the same twelve rows at once"""
    args = ["--batch_size", "12", "--dtype", "float32", "--log_every", "1", "--steps", "1", "--pretrain_steps", "0"]
    train.train(config(folder, "parts", *args, "--micro_batches", "3"))
    seen = train.data.Mix.__getitem__

    def all_parts(mix, item):
        parts = [seen(mix, (item[0], part)) for part in range(3)]
        return {k: torch.cat([part[k] for part in parts]) for k in parts[0]}

    def of_three(*args):
        mix, held_out = make(*args)
        mix.n_parts = 3
        return mix, held_out
    make = train.data.make_data
    monkeypatch.setattr(train.data, "make_data", of_three)
    monkeypatch.setattr(train.data.Mix, "__getitem__", lambda mix, item: all_parts(mix, item) if mix.n_parts == 3 else seen(mix, item))
    train.train(config(folder, "whole", *args))
    norms = [json.loads((folder / out / "log.jsonl").read_text())["norm"] for out in ("parts", "whole")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(folder, run):
    args = [sys.executable, "train.py", *TINY, "--steps", "60", "--data_dir", str(folder / "data"), "--out_dir", str(folder / "ctrl")]
    process = subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not ((folder / "ctrl/log.jsonl").exists() and (folder / "ctrl/log.jsonl").read_text().count("\n") > 3):
        assert process.poll() is None
        time.sleep(.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    step = train.load(folder / "ctrl/checkpoint.pt")["step"]
    assert f"stopped after step {step}; go on with" in said and 6 < step < 63
    train.train(config(folder, "ctrl", "--steps", "60", "--resume"))
    train.train(config(folder, "straight", "--steps", "60"))
    assert same(weights(folder / "ctrl/checkpoint.pt"), weights(folder / "straight/checkpoint.pt"))


@pytest.mark.parametrize("after", [.2, 1.1])
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(folder, after):
    """kill -9, which no process sees coming, while a checkpoint is written after every step: weights and log are those of a straight run"""
    more, out = ["--steps", "60", "--save_every", "1"], folder / f"killed{after}"
    process = subprocess.Popen([sys.executable, "train.py", *TINY, *more, "--data_dir", str(folder / "data"), "--out_dir", str(out)], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(.01)
    time.sleep(after)
    process.kill()
    process.wait()
    train.train(config(folder, out.name, *more, "--resume"))
    train.train(config(folder, "straight", "--steps", "60"))
    assert same(weights(out / "checkpoint.pt"), weights(folder / "straight/checkpoint.pt"))
    steps = [[json.loads(line)["step"] for line in (folder / o / "log.jsonl").read_text().splitlines()] for o in (out.name, "straight")]
    assert steps[0] == steps[1]


def test_the_web_model_is_saved_and_other_arms_start_from_it(folder, run):
    web = folder / "run/web.pt"
    assert train.load(web)["step"] == 3
    arm = train.train(config(folder, "fine", "--init_from", str(web), "--robot_fraction", "1", "--steps", "2"))
    assert train.load(arm)["step"] == 2 and not same(weights(arm), weights(web))
    scratch = train.train(config(folder, "scratch", "--pretrain_steps", "0", "--robot_fraction", "1"))
    assert train.load(scratch)["step"] == 5 and not (folder / "scratch/web.pt").exists()


def test_a_run_learns(folder):
    """150 steps on 30 episodes, from a loss of log(n_vocab) = 7: the one episode held out is mostly understood"""
    train.train(config(folder, "learns", "--pretrain_steps", "0", "--steps", "150", "--robot_fraction", "1", "--batch_size", "16",
                       "--log_every", "150", "--save_every", "150"))
    log = json.loads((folder / "learns/log.jsonl").read_text())
    assert log["action"] < 1.2 and log["accuracy"] > .6
    assert set(log["l1"]) == {"terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"}


def test_both_schemes_and_both_attentions_train_and_act(folder):
    for scheme, attention in (("overwrite", "prefix"), ("integer", "causal")):
        path = train.train(config(folder, scheme + attention, "--scheme", scheme, "--attention", attention, "--steps", "2"))
        action = evaluation.Policy(path, "cpu").act(np.zeros((32, 32, 3), np.uint8), "pick apple")
        assert action.shape == (8,) and np.isfinite(action).all()


def test_the_full_vocabulary_with_all_skills_and_questions_trains_and_acts(folder):
    path = train.train(config(folder, "full", "--vocabulary", "full", "--steps", "2", "--text_len", "96",
                              "--skills", *train.SKILLS, "--web_questions", *train.web.QUESTIONS))
    policy = evaluation.Policy(path, "cpu")
    worlds = evaluation.make_worlds(policy.config, 3, only("put into"))
    results = evaluation.rollouts(worlds, evaluation.follow(policy))
    assert len(results) == 3 and all(r["steps"] >= 1 for r in results)
    table = evaluation.evaluate(policy, 2, quiet=True)
    assert {r["suite"] for r in table["rows"]} >= {f"seen: {skill}" for skill in train.SKILLS} and evaluation.table(table)


def test_resume_reads_the_configuration_of_the_checkpoint(folder, run):
    c = train.read_config(["--resume", "--out_dir", str(Path(run).parent), "--steps", "7"])
    assert (c.steps, c.batch_size, c.image_size) == (7, 4, 32) and c.resume


def test_learning_rate_rises_stays_and_falls_to_zero():
    c = train.Config(warmup=10, cooldown=.5)
    rates = [train.lr_scale(s, 100, c) for s in range(101)]
    assert rates[0] == .1 and rates[9] == 1 and rates[49] == 1 and rates[75] == .5 and rates[100] == 0


def test_muon_gets_the_matrices_of_the_blocks_and_adamw_the_rest(folder, run):
    model = evaluation.Policy(run, "cpu").model
    optimizers = train.make_optimizers(model, train.Config())
    ids = {k: [id(p) for g in o.param_groups for p in g["params"]] for k, o in optimizers.items()}
    assert sorted(ids["muon"] + ids["adam"]) == sorted(id(p) for p in model.parameters())
    assert set(ids["muon"]) == {id(p) for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2}


# -- checkpoints

def test_a_checkpoint_is_written_whole_or_not_at_all(folder, run, monkeypatch):
    before = Path(run).read_bytes()

    def broken(state, f):
        f.write(b"half")
        raise OSError("disk full")
    def killed(*_):
        raise OSError("killed just before the rename")
    for module, name, fault in ((torch, "save", broken), (train.os, "replace", killed)):
        with monkeypatch.context() as patch, pytest.raises(OSError):
            patch.setattr(module, name, fault)
            train.save(run, model={})
        assert Path(run).read_bytes() == before


@pytest.mark.parametrize("spoil, message", [
    (lambda p: p.unlink(), "no checkpoint"), (lambda p: p.write_bytes(p.read_bytes()[:5000]), "cannot be read"),
    (lambda p: p.write_bytes(b""), "cannot be read"), (lambda p: torch.save({"a": 1}, p), "is no checkpoint of this project")])
def test_missing_truncated_and_foreign_checkpoints_are_one_line_errors(folder, run, tmp_path, spoil, message):
    path = tmp_path / "c.pt"
    path.write_bytes(Path(run).read_bytes())
    spoil(path)
    with pytest.raises(ValueError, match=message):
        evaluation.Policy(path)


def test_a_checkpoint_of_another_shape_is_refused(folder, run):
    for key, value in (("n_embd", "48"), ("n_head", "2"), ("scheme", "overwrite"), ("text_len", "80")):
        with pytest.raises(ValueError, match=f"the checkpoint has {key}"):
            train.train(config(folder, "misfit", "--init_from", str(run), f"--{key}", value))


# -- configuration

@pytest.mark.parametrize("text, message", [
    ("stesp = 3", "unknown key 'stesp'"), ('steps = "3"', "steps = '3' must be of type int"), ("steps = ", "cpu.toml"),
    ('scheme = "words"', "scheme = 'words'"), ("robot_fraction = 2.0", "robot_fraction = 2.0"), ('skills = ["fly"]', "'fly'"),
    ("batch_size = 5\nmicro_batches = 6", "a batch has only 5"), ("micro_batches = 0", "micro_batches = 0; it must be at least 1"),
    ("robot = 3", "robot must be tables"), ('[[robot]]\nformat = "rlds"', "needs a format, and a path"),
    ('[[web]]\nformat = "world"\nweight = "a"', "weight = 'a' must be of type float"),
    ('[[robot]]\nformat = "world"\nhold_out = 1', "hold_out of at least 2"),
    ("skills = []", "need at least one entry"), ("seed = -1", "seed = -1")])
def test_bad_presets_are_one_line_errors(tmp_path, text, message):
    path = tmp_path / "cpu.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        train.read_config(["--config", str(path)])


def test_sources_may_be_given_on_the_command_line():
    c = train.read_config(["--robot", 'format="rlds", path="/a", weight=2.0', 'format="world"'])
    assert c.robot == [{"format": "rlds", "path": "/a", "weight": 2.0}, {"format": "world"}]
    said = script("train.py", "--robot", "rlds")
    assert said.returncode == 2 and "is no inline TOML table" in said.stderr and "Traceback" not in said.stderr


def test_command_line_beats_preset_beats_default(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text("steps = 7\nrobot_fraction = 1\ncompile = true")
    c = train.read_config(["--config", str(path), "--steps", "9", "--no-compile"])
    assert (c.steps, c.robot_fraction, c.compile, c.n_head) == (9, 1.0, False, train.Config().n_head)


def test_every_preset_is_valid_and_every_key_explained():
    for path in (ROOT / "configs").glob("*.toml"):
        train.read_config(["--config", str(path)])
    said = script("train.py", "--help")
    assert said.returncode == 0 and all(f"--{name}" in said.stdout for name in vars(train.Config()))


@pytest.mark.parametrize("args, message", [
    (["train.py", "--stesp", "3"], "unrecognized arguments: --stesp"), (["train.py", "--steps", "many"], "invalid int value: 'many'"),
    (["train.py", "--config", "nowhere.toml"], "error: no preset nowhere.toml"), (["train.py", "--device", "cuda:77"], "device = 'cuda:77'"),
    (["train.py", "--resume", "--out_dir", "/nowhere/x"], "error: no checkpoint /nowhere/x"),
    (["eval.py", "--checkpoint", "nowhere.pt"], "error: no checkpoint nowhere.pt")])
def test_the_scripts_end_with_one_line_not_a_traceback(args, message):
    said = script(*args)
    assert said.returncode != 0 and message in said.stderr and "Traceback" not in said.stderr


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_what_to_do(folder):
    with pytest.raises(FloatingPointError, match="lower lr_muon"):
        train.train(config(folder, "nan", "--lr_adam", "1e30", "--lr_muon", "1e30", "--warmup", "1", "--dtype", "float32", "--steps", "60"))


# -- the policy

def test_policy_takes_pictures_of_any_size_and_refuses_other_things(run):
    policy = evaluation.Policy(run, "cpu")
    policy.reset()
    for size in ((32, 32), (100, 60)):
        action = policy.act(np.zeros((*size, 3), np.uint8), "pick apple")
        assert action.shape == (8,) and action[0] in (0, 1) and (np.abs(action[1:4]) <= .08).all()
    with pytest.raises(ValueError, match="instruction is ' '"):
        policy.act(np.zeros((32, 32, 3), np.uint8), " ")
    for bad in (np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3)), np.zeros((32, 32, 4), np.uint8)):
        with pytest.raises(ValueError, match="convert it to RGB"):
            policy.act(bad, "pick apple")


def test_the_policy_sees_what_training_saw(folder, run):
    """a logged picture through the policy gives the tokens that the training pass gives: one way for pictures and prompts"""
    policy = evaluation.Policy(run, "cpu", temperature=0)
    world = World("small", ("pick",), 32)
    obs, _ = world.reset(5)
    said = policy.actions.encode(policy.act(obs["image"], obs["instruction"]))
    ask = policy.tokenizer.encode(prompt(obs["instruction"]))
    tokens = torch.tensor([[*ask, *said.tolist()]])
    target = torch.tensor([[False] * len(ask) + [True] * 8])
    logits, _ = policy.model(torch.from_numpy(obs["image"])[None], tokens, torch.ones_like(tokens), target)
    logits = logits.masked_fill(~policy.allowed, -torch.inf)
    assert logits.argmax(-1).tolist() == said.tolist()


def test_reset_begins_the_draws_anew(run):
    policy, picture = evaluation.Policy(run, "cpu", temperature=5.0), np.zeros((32, 32, 3), np.uint8)
    one = [policy.act(picture, "pick apple") for _ in range(3)]
    policy.reset()
    two = [policy.act(picture, "pick apple") for _ in range(3)]
    assert np.array_equal(one, two) and not np.array_equal(one[0], one[1])


def test_rollouts_end_and_count(run):
    results = evaluation.rollouts(evaluation.make_worlds(FULL, 10, only("pick"), draws=False), evaluation.expert)
    assert all(r["success"] and r["terminated"] for r in results)
    results = evaluation.rollouts(evaluation.make_worlds(FULL, 10, only("pick"), draws=False), evaluation.random_actions)
    assert sum(r["success"] for r in results) <= 2


@pytest.mark.parametrize("skill", train.SKILLS)
def test_the_swapped_instruction_asks_for_something_else_in_the_scene(skill):
    for world in evaluation.make_worlds(FULL, 20, only(skill), draws=False):
        other = evaluation.swapped(world)
        if other is None:
            assert not [t for t in world.things if t not in (world.task.a, world.task.b) and t.noun in evaluation.KINDS]
            continue
        assert other != prompt(world.task.instruction)
        if world.task.a:
            first = next(t for t in world.things if other.split(" to ", 1)[1].split(" ", 1)[1].startswith(t.name))
            assert first not in (world.task.a, world.task.b)


@pytest.mark.parametrize("k, n, low, high", [(180, 200, .850, .934), (0, 10, 0, .278), (10, 10, .722, 1), (0, 0, 0, 1)])
def test_wilson_interval_against_known_values(k, n, low, high):
    assert evaluation.wilson(k, n) == pytest.approx((low, high), abs=1e-3)


def test_eval_gives_the_same_numbers_twice_and_writes_pictures(folder, run):
    first = script("eval.py", "--checkpoint", run, "--trials", 4, "--json", "--device", "cpu")
    assert first.returncode == 0, first.stderr
    one = json.loads(first.stdout)
    two = evaluation.report(run, 4, device="cpu")
    for part in ("rows", "web"):
        assert json.loads(json.dumps(two[part])) == one[part]
    assert {r["policy"] for r in one["rows"]} == {"policy", "blank instruction", "swapped instruction", "random", "expert"}
    assert (Path(run).parent / "rollouts.gif").stat().st_size < 1e6 and (Path(run).parent / "rollouts.png").exists()


def test_the_readmes_commands_and_files_exist():
    """every python command of the README is understood by its script, and every file it names is there"""
    text = (ROOT / "README.md").read_text()
    commands = {c.strip() for c in re.findall(r"python ((?:train|eval)\.py[^`\n&#]*)", text)}
    assert len(commands) >= 5
    for command in commands:
        name, *args = shlex.split(command)
        if name == "train.py" and "--help" not in args and "--resume" not in args:
            train.read_config(args)
        elif name == "eval.py":
            known = script("eval.py", "--help").stdout
            assert all(a in known for a in args if a.startswith("--"))
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / link).exists(), link
    assert "python -m pytest -q" in text and "python -m pytest -q" in (ROOT / ".ci/run").read_text()
