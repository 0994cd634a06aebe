"""train.py: one step, resume, stop, checkpoints and bad input; on logs of a few lines (tiny.py)"""
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import data
import eval as evaluation
import tiny
import train
import world.film

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def formats(monkeypatch):
    tiny.install(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def config(folder, out, *more):
    return train.read_config([*tiny.ARGS, *tiny.SOURCES, "--out_dir", str(folder / out), *more])


@pytest.fixture(scope="module")
def run(folder):
    """one tiny run, from the web to the end: the path of its checkpoint"""
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.install(monkeypatch)
        return train.train(config(folder, "run"))


def weights(path):
    return train.load(path)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def log_of(path):
    return [json.loads(line) for line in (Path(path) / "log.jsonl").read_text().splitlines()]


# -- one step

def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(folder):
    """the norm of three micro-batches of four rows is that of the same twelve rows at once"""
    c = config(folder, "-", "--batch_size", "12", "--micro_batches", "3", "--dtype", "float32", "--pretrain_steps", "0")
    ranks, norms = train.Ranks(c), []
    logs = data.open_logs(c, quiet=True)
    tokenizer = data.make_tokenizer(logs, c.n_vocab)
    mix, _ = data.make_mix(c, logs, data.make_robots(c, logs, tokenizer, {}), tokenizer)
    parts = [mix[0, k] for k in range(3)]
    whole = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
    for micro_batches in (parts, [whole]):
        torch.manual_seed(0)
        model = train.VLA(train.ModelConfig(n_vocab=tokenizer.n_vocab, image_size=16, patch_size=4, n_embd=16, vit_embd=16, max_text=40))
        norm, logits, losses, batch = train.train_step(model, micro_batches, train.make_optimizers(model, c), 1.0, c, ranks)
        norms.append(norm)
        assert len(logits) == len(losses) == int((batch["label"] != data.ASKED).sum())
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_the_gradient_is_clipped_to_norm_one(folder, monkeypatch):
    """an update by plain gradient descent with rate 1 is never longer than 1, whatever the gradient"""
    c = config(folder, "-", "--dtype", "float32")
    model = train.VLA(train.ModelConfig(n_vocab=300, image_size=16, patch_size=4, n_embd=16, vit_embd=16, max_text=20))
    with torch.no_grad():
        model.wte.weight.mul_(100)                          # a large loss
    sgd = torch.optim.SGD(model.parameters(), lr=1)
    before = [p.clone() for p in model.parameters()]
    label = torch.tensor([[0, 0, 1, 1]] * 2)
    batch = {"images": torch.zeros(2, 16, 16, 3, dtype=torch.uint8), "tokens": torch.randint(0, 300, (2, 4)), "label": label,
             "segment": torch.ones_like(label)}
    norm, *_ = train.train_step(model, [batch], {"muon": sgd, "adam": sgd}, 1 / c.lr_adam, c, train.Ranks(c))
    moved = torch.stack([(p - q).norm() for p, q in zip(model.parameters(), before)]).norm().item()
    assert norm > 2 and moved == pytest.approx(1.0, rel=1e-3)


def test_learning_rate_rises_stays_and_falls_to_zero():
    c = train.Config(warmup=10, cooldown=.5)
    rates = [train.lr_scale(s, 100, c) for s in range(101)]
    assert rates[0] == .1 and rates[9] == 1 and rates[49] == 1 and rates[75] == .5 and rates[100] == 0


def test_muon_is_the_muon_of_pytorch_bit_for_bit():
    torch.manual_seed(0)
    mine = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 8), (24, 8), (8, 32), (8, 8))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    how = dict(lr=3e-3, weight_decay=.01)
    a, b = train.Muon(mine, {**how, "momentum": .95}), torch.optim.Muon(theirs, **how, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for p, q in zip(mine, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step(), b.step()
    assert all(torch.equal(p, q) for p, q in zip(mine, theirs)) and not torch.equal(mine[0], mine[3])


def test_muon_gets_the_matrices_of_the_blocks_and_adamw_the_rest_without_decay_on_vectors(run):
    model = evaluation.Policy(run, "cpu").model
    optimizers = train.make_optimizers(model, train.Config())
    ids = {k: [id(p) for g in o.param_groups for p in g["params"]] for k, o in optimizers.items()}
    assert sorted(ids["muon"] + ids["adam"]) == sorted(id(p) for p in model.parameters())
    assert set(ids["muon"]) == {id(p) for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2}
    for group in optimizers["adam"].param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"]) and group["betas"] == (0.9, 0.98)


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_what_to_do(folder):
    with pytest.raises(FloatingPointError, match="lower lr_muon"):
        train.train(config(folder, "nan", "--lr_adam", "2e9", "--lr_muon", "2e9", "--warmup", "1", "--dtype", "float32", "--steps", "60"))


def test_metrics_of_a_model_that_is_always_right(folder):
    """accuracy counts the action's tokens and nothing else, thought or not; words about the robot's picture are "view" """
    for thought in (False, True):
        log = data.open_log("robot", {"format": "tiny", "thought": thought}, size=16)
        web = data.open_log("web", {"format": "tiny"}, size=16)
        tokenizer = data.Tokenizer.train([*log.texts(), *web.texts()])
        actions = data.ActionTokenizer(tokenizer, *log.bounds, names=log.names)
        robot = data.RobotData(log, data.Robot(actions), 40, 16, thought_len=8 * thought)
        mix = data.Mix([(robot, {"weight": 1})], [(data.WebData(web, tokenizer, 40, 16), {"weight": 1})], 8, .5, 40)
        batch = mix[5, 0]
        truth = batch["tokens"][batch["label"] != data.ASKED]
        logits = torch.nn.functional.one_hot(truth, tokenizer.n_vocab).float() * 50
        m = train.metrics(logits, torch.ones(len(logits)), batch, mix)
        assert m["accuracy"] == 1 and set(m["l1"].values()) == {0.0} and set(m["right"]) == {"terminate", "dx"}
        assert m["view"] == m["web"] == m["action"] == 1
        logits[(batch["label"] == data.ACTION)[batch["label"] != data.ASKED]] = 0          # now every action is bin 0
        assert train.metrics(logits, torch.ones(len(logits)), batch, mix)["accuracy"] < .8


# -- a whole run

def test_a_run_learns(folder):
    """250 steps on 29 episodes: the one held out is mostly understood"""
    train.train(config(folder, "learns", "--pretrain_steps", "0", "--steps", "250", "--robot_fraction", "1", "--batch_size", "16",
                       "--log_every", "250", "--n_embd", "32", "--vit_embd", "32", "--lr_muon", "1e-2", "--lr_adam", "1e-2"))
    last, = log_of(folder / "learns")
    assert last["action"] < .5 and last["accuracy"] > .8 and set(last["l1"]) == {"terminate", "dx"}


def test_a_first_film_of_the_robot_comes_with_its_first_checkpoint_and_changes_nothing(folder, run, monkeypatch):
    """once, when it has learnt a little; and none without a table in the end"""
    monkeypatch.setattr(tiny.Robot, "lines", staticmethod(lambda settings, size: [("go", tiny.Env)]), raising=False)
    filmed, film = [], world.film.film_of
    monkeypatch.setattr(world.film, "film_of", lambda path, device: filmed.append(train.load(path)["step"]) or film(path, device))
    path = train.train(config(folder, "filmed", "--trials", "4"))
    begin = train.load(run)["config"]["pretrain_steps"]
    assert len(filmed) == 1 and begin < filmed[0] <= begin + 2 < train.load(path)["step"]
    assert path.with_name("rollouts.gif").exists() and not run.with_name("rollouts.gif").exists()
    assert same(weights(path), weights(run))


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(folder, run, monkeypatch, stop):
    """stopped after a checkpoint in the web stage and in the robot stage: weights, optimizers and log end as if it had not been"""
    class Stop(Exception):
        pass
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
    train.train(train.read_config(["--resume", "--out_dir", str(folder / out)]), resume=True)
    one, two = train.load(folder / out / "checkpoint.pt"), train.load(run)
    assert same(one["model"], two["model"]) and one["step"] == two["step"]
    for name in ("muon", "adam"):
        for a, b in zip(one["optimizers"][name]["state"].values(), two["optimizers"][name]["state"].values()):
            assert same(a, b)
    assert [m["step"] for m in log_of(folder / out)] == [m["step"] for m in log_of(folder / "run")]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder, run):
    assert same(weights(train.train(config(folder, "twin"))), weights(run))
    assert not same(weights(train.train(config(folder, "other", "--seed", "1"))), weights(run))


def test_helper_processes_change_no_number(folder, run):
    assert same(weights(train.train(config(folder, "workers", "--workers", "2"))), weights(run))


def test_the_web_model_is_saved_and_other_recipes_start_from_it(folder, run):
    web = folder / "run/web.pt"
    assert train.load(web)["step"] == 3
    fine = train.train(config(folder, "fine", "--init_from", str(web), "--robot_fraction", "1", "--steps", "2"))
    assert train.load(fine)["step"] == 2 and not same(weights(fine), weights(web))
    scratch = train.train(config(folder, "scratch", "--pretrain_steps", "0", "--robot_fraction", "1"))
    assert train.load(scratch)["step"] == 5 and not (folder / "scratch/web.pt").exists()


@pytest.mark.parametrize("scheme, attention", [("overwrite", "prefix"), ("integer", "causal")])
def test_both_schemes_and_both_attentions_train_and_act(folder, scheme, attention):
    path = train.train(config(folder, scheme + attention, "--scheme", scheme, "--attention", attention, "--steps", "2"))
    action = evaluation.Policy(path, "cpu").episode().act(np.zeros((16, 16, 3), np.uint8), "go to the square")
    assert action.shape == (2,) and action[0] in (0, 1) and abs(action[1]) <= 1


def test_several_robots_keep_their_own_numbers(folder):
    """one of two numbers, one of four, in one run: the checkpoint acts for both, and says which it knows"""
    robots = ["--robot", 'format="tiny", name="narrow"', 'format="tiny", name="wide", numbers=3']
    path = train.train(config(folder, "robots", *robots))
    for name, D in (("narrow", 2), ("wide", 4)):
        assert evaluation.Policy(path, "cpu", robot=name).episode().act(np.zeros((16, 16, 3), np.uint8), "go").shape == (D,)
    assert {"narrow dx", "wide n2"} <= set(log_of(folder / "robots")[-1]["l1"])
    with pytest.raises(ValueError, match="several robots; say which: robot = one of narrow, wide"):
        evaluation.Policy(path, "cpu")
    with pytest.raises(ValueError, match="no robot 'arm'; it has learnt to act for: narrow, wide"):
        evaluation.Policy(path, "cpu", robot="arm")


# -- stopped, killed, started twice

@pytest.fixture
def start(script, folder):
    """train.py in a process of its own, which saves and logs each step; what it says is in the file said"""
    return lambda out: script(train.main, ["train.py", *tiny.ARGS, *tiny.SOURCES, "--out_dir", str(folder / out), "--steps", "40",
                                           "--log_every", "1", "--save_every", "1"], folder / f"{out} said")


@pytest.fixture(scope="module")
def straight(folder):
    """the run that nobody stopped"""
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.install(monkeypatch)
        return train.train(config(folder, "straight", "--steps", "40", "--log_every", "1", "--save_every", "1")).parent


def go_on(out):
    return train.train(train.read_config(["--resume", "--out_dir", str(out)]), resume=True)


def test_ctrl_c_saves_and_a_resumed_run_ends_as_if_nothing_had_happened(folder, straight, start):
    process = start("ctrl")
    while not ((folder / "ctrl/log.jsonl").exists() and (folder / "ctrl/log.jsonl").read_text().count("\n") > 3):
        assert process.is_alive(), (folder / "ctrl said").read_text()
        time.sleep(.002)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    said = (folder / "ctrl said").read_text()
    assert process.exitcode == 1, said
    step = train.load(folder / "ctrl/checkpoint.pt")["step"]
    assert f"stopped after step {step}; go on with: python train.py --resume" in said and 3 < step < 43
    go_on(folder / "ctrl")
    assert same(weights(folder / "ctrl/checkpoint.pt"), weights(straight / "checkpoint.pt"))


@pytest.mark.parametrize("after", [.05, .4])
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(folder, straight, start, after):
    """kill -9, which no process sees coming, while a checkpoint is written after every step"""
    process, out = start(f"killed{after}"), folder / f"killed{after}"
    while not (out / "checkpoint.pt").exists():
        assert process.is_alive(), (folder / f"killed{after} said").read_text()
        time.sleep(.002)
    time.sleep(after)
    process.kill()
    process.join()
    go_on(out)
    assert same(weights(out / "checkpoint.pt"), weights(straight / "checkpoint.pt"))
    assert [m["step"] for m in log_of(out)] == [m["step"] for m in log_of(straight)]


def test_the_log_of_a_resumed_run_begins_with_the_lines_up_to_its_checkpoint_and_no_later_one(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1, 8)) + '{"step": 8, "min')
    train.begin_log(path, 4)
    assert [m["step"] for m in log_of(tmp_path)] == [1, 2, 3, 4]
    train.begin_log(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize("fault, message", [("raise ValueError('7.png is gone')", "7.png is gone"), ("os.kill(os.getpid(), 9)", "DataLoader worker")])
def test_a_worker_that_fails_or_dies_is_one_line_that_says_how_to_go_on(folder, monkeypatch, fault, message):
    monkeypatch.setattr(tiny.Web, "picture", lambda self, i: exec(fault, {"os": os}))
    patience = torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(patience, "__defaults__", (.2,))    # seconds between two looks whether the workers live
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", .2)
    with pytest.raises(ValueError, match=rf"^a process that prepares batches ended: [^\n]*{message}[^\n]*--resume[^\n]*$"):
        train.train(config(folder, f"worker {message[:4]}", "--workers", "1"))


def test_a_finished_run_is_not_written_over_and_a_running_one_is_left_alone(folder, run, tmp_path):
    with pytest.raises(ValueError, match="holds a run already; .*--resume --out_dir .*another --out_dir"):
        train.train(config(folder, "run"))
    assert log_of(folder / "run")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "lock").write_text(str(sleeper.pid))
    with pytest.raises(OSError, match=f"process {sleeper.pid} is training in"):
        train.train(config(tmp_path, "."))
    sleeper.kill()
    sleeper.wait()
    (tmp_path / "checkpoint.1.tmp").write_bytes(b"half")    # what a killed run leaves
    train.train(config(tmp_path, "."))                      # a lock whose process is gone holds nobody up
    assert not (tmp_path / "lock").exists() and not list(tmp_path.glob("*.tmp"))


def test_a_resume_on_other_data_says_so(folder, monkeypatch):
    path = train.train(config(folder, "data"))
    monkeypatch.setattr(tiny.Web, "fingerprint", "another web")
    again = train.read_config(["--resume", "--out_dir", str(folder / "data"), "--steps", "6"])
    with pytest.raises(ValueError, match="the logs are not those that .*another web.*--other_data"):
        train.train(again, resume=True)
    assert train.load(train.train(again, resume=True, other_data=True))["step"] == 9 and path.exists()


# -- checkpoints

def test_a_checkpoint_is_written_whole_or_not_at_all(run, monkeypatch):
    before = Path(run).read_bytes()

    def broken(state, f):
        f.write(b"half")
        raise OSError("disk full")

    def killed(*_):
        raise OSError("killed just before the rename")

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file")
    for module, name, fault in ((torch, "save", broken), (torch, "save", full), (train.os, "replace", killed)):
        with monkeypatch.context() as patch, pytest.raises(OSError, match=r"checkpoint.pt cannot be written .*make room"):
            patch.setattr(module, name, fault)
            train.save(run, model={})
        assert Path(run).read_bytes() == before and not list(Path(run).parent.glob("*.tmp"))


@pytest.mark.parametrize("part, change", [
    ("model_config", {"n_embd": 10 ** 7}), ("model_config", {"vit_layer": 10 ** 5}), ("model_config", {"n_head": -1}),
    ("model_config", {"vit_eps": {}}), ("config", {"thought_len": 10 ** 12}), ("config", {"thought_len": "x"}),
    ("config", {"frames": 2}), ("tokenizer", {"eos": 2 ** 63})])
def test_a_checkpoint_that_claims_other_sizes_is_damaged_and_takes_no_memory(run, tmp_path, part, change):
    state = train.load(run)
    torch.save({**state, part: {**state[part], **change}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"^.*a\.pt is damaged \([^\n]*\); use another one$"):
        evaluation.Policy(tmp_path / "a.pt", "cpu")


def test_a_checkpoint_that_unpacks_to_more_than_it_holds_is_refused_at_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10 ** 7))
    with pytest.raises(ValueError, match=r"a.pt is damaged or not a checkpoint \(ValueError\)"):
        train.load(tmp_path / "a.pt")


def test_a_clock_that_stands_still_stops_nothing(folder, monkeypatch):
    monkeypatch.setattr(train.time, "monotonic", lambda: 5.0)
    assert train.load(train.train(config(folder, "still")))["step"] > 0


@pytest.mark.parametrize("line", ["seed = " + "1" * 5000, "lr_adam = " + "1" * 400, "device = 7 # " + "x" * 5000,
                                  "scheme = '" + "x" * 5000 + "'", "robot = [{format = []}]"])
def test_a_preset_with_a_monstrous_value_is_one_short_line_that_names_the_file(tmp_path, line):
    (tmp_path / "a.toml").write_text(line)
    with pytest.raises(ValueError, match="a.toml: ") as e:
        train.read_config(["--config", str(tmp_path / "a.toml")])
    assert len(str(e.value)) < 1200


def test_no_flipped_bit_loads_as_other_weights(run, tmp_path):
    """one bit anywhere in the file: it is refused in one line, or nothing that was loaded differs"""
    whole, raw, rng = train.load(run), Path(run).read_bytes(), np.random.default_rng(0)
    for at in rng.integers(len(raw), size=60):
        spoilt = bytearray(raw)
        spoilt[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "c.pt").write_bytes(spoilt)
        try:
            assert same(train.load(tmp_path / "c.pt")["model"], whole["model"])
        except ValueError as e:
            assert str(tmp_path / "c.pt") in str(e)


@pytest.mark.parametrize("spoil, message", [
    (lambda p: p.unlink(), "no checkpoint"), (lambda p: p.write_bytes(p.read_bytes()[:5000]), "is damaged or not a checkpoint"),
    (lambda p: p.write_bytes(b""), "is damaged or not a checkpoint"), (lambda p: torch.save({"a": 1}, p), "is not a checkpoint of this"),
    (lambda p: torch.save({k: v for k, v in train.load(p).items() if k != "version"}, p), "is of an earlier version")])
def test_missing_truncated_foreign_and_old_checkpoints_are_one_line_errors(run, tmp_path, spoil, message):
    path = tmp_path / "c.pt"
    path.write_bytes(Path(run).read_bytes())
    spoil(path)
    with pytest.raises(ValueError, match=message):
        evaluation.Policy(path)


def test_a_checkpoint_whose_parts_are_missing_misshapen_or_not_finite_is_damaged(run, tmp_path):
    state, path = train.load(run), tmp_path / "c.pt"
    spoilt = [{**state, part: value} for part in ("tokenizer", "robots", "model_config", "model") for value in (None, 3, {"a": 1})]
    spoilt += [{k: v for k, v in state.items() if k != part} for part in ("tokenizer", "robots", "model_config")]
    spoilt += [{**state, "model": {**state["model"], "ln_f.weight": x}} for x in (torch.ones(3), torch.full((16,), torch.nan))]
    for parts in spoilt:
        train.save(path, **{k: v for k, v in parts.items() if k != "version"})
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            evaluation.Policy(path)


def test_a_checkpoint_of_another_shape_is_refused(folder, run):
    for key, value in (("n_embd", "48"), ("n_head", "4"), ("scheme", "overwrite"), ("text_len", "80")):
        with pytest.raises(ValueError, match=f"has {key}"):
            train.train(config(folder, "misfit", "--init_from", str(run), f"--{key}", value))


# -- configuration

@pytest.mark.parametrize("text, message", [
    ("stesp = 3", "unknown key 'stesp'"), ('steps = "3"', "steps = '3' must be of type int"), ("steps = ", "small.toml"),
    ('scheme = "words"', "scheme = 'words'; use one of: integer, overwrite"), ("robot_fraction = 2.0", "robot_fraction = 2.0"),
    ("batch_size = 5\nmicro_batches = 6", "a batch has only 5"), ("micro_batches = 0", "micro_batches = 0; it must be from 1"),
    ("robot = 3", "robot = 3 must be of type list"), ("robot = [3]", "each under a line [[robot]]"), ("seed = -1", "seed = -1"),
    ('[[web]]\nformat = "world"\nweight = "a"', "weight = 'a' must be of type float"), ("cooldown = -1.0", "cooldown = -1.0"),
    ("lr_adam = nan", "lr_adam = nan"), ("n_layer = 10000000", "n_layer = 10000000"), ("workers = 1000000", "workers = 1000000"),
    ("text_len = 1000000000000", "text_len = "), ("batch_size = 8\nrobot_fraction = 0.01", "is no sample; raise either"),
    ("seed = true", "seed = True must be of type int"), ("robot_fraction = 0", "no robot that could be measured; set trials = 0"),
    ("n_vocab = 1259", "n_vocab = 1259; it must be from 1260"), ("steps = " + "1" * 400, "small.toml")])
def test_bad_presets_are_one_line_errors_that_name_the_file(tmp_path, text, message):
    path = tmp_path / "small.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as e:
        train.read_config(["--config", str(path)])
    assert "small.toml" in str(e.value) and "\n" not in str(e.value)


def test_sources_may_be_given_on_the_command_line():
    c = train.read_config(["--robot", 'format="tiny", weight=2.0', 'format="world"'])
    assert c.robot == [{"format": "tiny", "weight": 2.0}, {"format": "world"}]


def test_command_line_beats_preset_beats_default(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text("steps = 7\nrobot_fraction = 1\ncompile = true")
    c = train.read_config(["--config", str(path), "--steps", "9", "--no-compile"])
    assert (c.steps, c.robot_fraction, c.compile, c.n_head) == (9, 1.0, False, train.Config().n_head)


def test_without_a_preset_it_is_the_small_one_with_or_without_a_gpu(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        assert vars(train.read_config([])) == vars(train.read_config(["--config", str(ROOT / "configs/small.toml")]))


def test_weights_alone_are_no_run_that_could_go_on(run, tmp_path):
    train.save(tmp_path / "checkpoint.pt", **{**{k: v for k, v in train.load(run).items() if k != "version"}, "optimizers": {}})
    with pytest.raises(ValueError, match="has weights alone; start a new run with --init_from"):
        train.read_config(["--resume", "--out_dir", str(tmp_path)])


def test_resume_takes_the_checkpoints_configuration_and_names_what_it_cannot_change(run):
    resume = ["--resume", "--out_dir", str(Path(run).parent)]
    c = train.read_config([*resume, "--steps", "7", "--lr_adam", "1e-4"])
    assert (c.steps, c.lr_adam, c.batch_size, c.image_size) == (7, 1e-4, 8, 16)
    for key, value in (("weight_decay", "5"), ("seed", "3"), ("batch_size", "16"), ("pretrain_steps", "1")):
        with pytest.raises(ValueError, match=f"a resumed run cannot change {key} from"):
            train.read_config([*resume, f"--{key}", value])
    with pytest.raises(ValueError, match="leave --config out"):
        train.read_config([*resume, "--config", "configs/small.toml"])


def test_every_preset_is_valid_and_every_key_explained(capsys):
    for path in (ROOT / "configs").glob("*.toml"):
        train.read_config(["--config", str(path)])
    with pytest.raises(SystemExit):
        train.read_config(["--help"])
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in vars(train.Config()))


@pytest.mark.parametrize("args, message", [
    (["--stesp", "3"], "unrecognized arguments: --stesp"), (["--steps", "many"], "invalid int value: 'many'"),
    (["--config", "nowhere.toml"], "error: no preset nowhere.toml"), (["--device", "cuda:77"], "device = 'cuda:77'"),
    (["--resume", "--out_dir", "/nowhere/x"], "error: no checkpoint /nowhere/x"), (["--robot", "rlds"], "is not an inline TOML table")])
def test_the_script_ends_with_one_line_not_a_traceback(monkeypatch, capsys, args, message):
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    with pytest.raises(SystemExit) as e:
        train.main()
    assert message in str(e.value) + capsys.readouterr().err


def test_too_little_gpu_memory_says_what_to_try(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    monkeypatch.setattr(train, "train", full)
    monkeypatch.setattr(sys, "argv", ["train.py", "--micro_batches", "2"])
    with pytest.raises(SystemExit, match="out of GPU memory; try --recompute, or, in a new run, --micro_batches 4"):
        train.main()


def test_compile_without_a_compiler_goes_on_without_it(folder, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("Failed to find C compiler")
    monkeypatch.setattr(torch, "compile", broken)
    train.train(config(folder, "compile", "--compile", "--steps", "1", "--pretrain_steps", "0"))
    assert "torch.compile does not work here (RuntimeError); going on without it" in capsys.readouterr().out
