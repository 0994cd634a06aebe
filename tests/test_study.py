"""the study: its runs, how it goes on after a stop, and what it shows of what was measured"""
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation
import train
from study import __main__ as command
from study import ask, measure, runs, suites, tables
from world import record
from world.scene import World

ROOT = Path(__file__).parent.parent
TINY = """
image_size = 32
vit_layer = 1
vit_embd = 16
n_layer = 1
n_embd = 16
pretrain_steps = 3
steps = 4
robot_fraction = 0.5
batch_size = 8
warmup = 2
log_every = 2
device = "cpu"
data_dir = "DATA"

[[robot]]
format = "world"
vocabulary = "medium"
episodes = 50
days = true

[[web]]
format = "world"
vocabulary = "medium"
pictures = 50
questions = {locate = 1, way = 1, "where sum" = 1, translation = 1, go = 1}
"""
FEW = ("seen", "objects, hard", "sums", "a wish")   # a line of each kind, for speed


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    path = folder / "tiny.toml"
    path.write_text(TINY.replace("DATA", str(folder / "data")))
    return path


@pytest.fixture(scope="module")
def few_lines(fork):
    with pytest.MonkeyPatch.context() as patch:
        for module in (runs, measure):
            patch.setattr(module, "suites", lambda config: [s for s in suites.suites(config) if s.name in FEW])
        patch.setattr(runs, "THOUGHT_STEPS", 2)
        patch.setattr(measure, "N_WEB", 2)
        patch.setattr(runs, "get_context", lambda kind: fork)      # forks know these patches, and the words of the world
        record.corpus("medium")
        patch.setattr(measure, "EMERGENT", {group: lines for group, lines in measure.EMERGENT.items() if "sums" in lines})
        yield


# ----------------------------------------------------------------------------------------------------------
# which runs there are

def changed(settings):
    """the configuration of a run of configs/study.toml"""
    return train.Config(**{**tomllib.loads((ROOT / "configs/study.toml").read_text()), **settings})


def test_all_recipes_have_the_same_number_of_robot_samples_and_valid_settings():
    preset = changed({})
    found = runs.runs(preset, [0, 1, 2])
    for name, (settings, _) in found.items():
        config = changed(settings)
        part = .25 if "quarter" in name else .5 if "half" in name else 1
        if "plan" not in name:
            samples = config.steps * config.robot_fraction
            assert samples == pytest.approx(preset.steps * preset.robot_fraction * part, abs=2), name
    assert sum(name.startswith("large/cofine/") for name in found) == 3
    both, first = (changed(found[f"large/{name}/0"][0]) for name in ("cofine", "web first"))
    assert [both.n_pretrain + both.steps, (1 - both.robot_fraction) * both.steps + both.n_pretrain] == pytest.approx(
        [first.n_pretrain + first.steps, first.n_pretrain], abs=1)


def test_a_run_starts_from_one_that_comes_before_it():
    before = set()
    for name, (settings, _) in runs.runs(changed({}), [0, 1]).items():
        assert not settings.get("init_from") or settings["init_from"].rpartition("/")[0] in before, name
        before.add(name)


def test_only_what_a_recipe_is_about_differs_from_the_preset():
    found = {name: changed(settings) for name, (settings, _) in runs.runs(changed({}), [0]).items()}
    of = {name: (suites.world_table(vars(config)), runs.the_web(config)) for name, config in found.items()}
    robot, web = of["large/cofine/0"]
    where = of["large/where/0"]
    assert where == (robot, {**web, "questions": where[1]["questions"]}) and {"locate", "way", "where sum"} <= set(where[1]["questions"])
    assert {name for name in web["questions"] if name not in where[1]["questions"]} == {n for n in web["questions"] if "go" in n.split()}
    assert {name: config.thought_len for name, config in found.items() if config.thought_len} == {"large/plan/0": runs.PLAN_LEN}
    assert of["large/words/0"] == (robot, {**web, "questions": runs.WORDS})
    assert of["large/plan/0"] == ({**robot, "wishes": True}, {**web, "questions": runs.NAMES})
    assert of["large/no plan/0"][0] == {**robot, "wishes": True, "plans": False}


def test_a_preset_is_written_as_toml_that_reads_the_same():
    for settings, _ in runs.runs(changed({}), [0]).values():
        settings = {**settings, "path": 'C:\\a "b" é', "empty": [], "off": False, "small": 1e-5}
        text = "".join(f"{key} = {runs.toml(value)}\n" for key, value in settings.items())
        assert tomllib.loads(text) == settings


# ----------------------------------------------------------------------------------------------------------
# the study on a tiny preset

def stop_the_study():
    """Ctrl-C, as the process that trains or measures sees it: its parent is told, and tells it"""
    told, before = [], signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    os.kill(os.getppid(), signal.SIGINT)
    for _ in range(6000):
        if told:
            break
        time.sleep(.01)
    signal.signal(signal.SIGTERM, before)
    os.kill(os.getpid(), signal.SIGTERM)            # and now it comes as it would have come


ONLY = ("large/cofine/", "large/plan/", "large/scratch/0")


@pytest.fixture(scope="module")
def stopped(preset, few_lines):
    """a study, two jobs at a time, that was stopped as it trained and as it measured: folder, results, calls, steps"""
    folder, calls, steps = preset.parent, preset.parent / "calls", []
    train_step, measure_line = train.train_step, evaluation.measure

    def count(what, out_dir):
        """the process that trains or measures stops the study; returns how often that was done"""
        name = "/".join(Path(out_dir).parts[-3:])
        with open(calls, "a") as f:
            f.write(f"{what} {name}\n")
        return calls.read_text().split("\n").count(f"{what} large/cofine/0") if "cofine" in name else 0

    def step(model, micro_batches, optimizers, scale, config, ranks):
        if count("step of", config.out_dir) == 2:
            stop_the_study()
        return train_step(model, micro_batches, optimizers, scale, config, ranks)

    def line(policy, *more):
        if count("line of", policy.config["out_dir"]) == 3:
            stop_the_study()
        return measure_line(policy, *more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_step", step)
        patch.setattr(evaluation, "measure", line)
        signal.signal(signal.SIGINT, signal.default_int_handler)        # a shell's background job would not hear it
        for stops in (True, True, False):
            with pytest.raises(KeyboardInterrupt) if stops else contextlib.nullcontext():
                results = runs.study(preset, folder / "out", folder / "results.json", [0], 2, ONLY, 2)
            steps.append(train.load(folder / "out/large/cofine/0/checkpoint.pt")["step"])
    return folder, json.loads(json.dumps(results)), calls.read_text().split("\n"), steps


def test_a_stopped_study_does_nothing_twice_and_keeps_every_number(stopped):
    folder, results, calls, steps = stopped
    assert steps == [2, 7, 7] and set(results["runs"]) == {"large/cofine/0", "large/plan/0", "large/scratch/0"}
    assert json.loads((folder / "results.json").read_text()) == results
    assert [calls.count(f"step of large/{name}/0") for name in ("cofine", "scratch", "plan")] == [7, 2, 2]
    # 1 + 4 lines of controls, 3 of its own, and the one in which it was stopped
    assert [calls.count(f"line of large/{name}/0") for name in ("cofine", "plan")] == [9, 1]
    whole = results["runs"]["large/cofine/0"]
    asked = [(line, driver) for line in FEW[:3] for driver in evaluation.DRIVERS[:3]]
    assert [(row["line"], row["driver"]) for row in whole["rows"]] == asked
    assert {"training", "web", "web before", "links", "measured at"} <= whole.keys()
    assert list(results["runs"]["large/plan/0"]["plans"]) == ["a wish"]
    controls = [(row["line"], row["driver"]) for row in results["controls"]["0"]["drivers"]]
    assert controls == [(line, driver) for line in FEW for driver in ("random", "expert")]
    experts = [row["success"] for row in results["controls"]["0"]["drivers"] if row["driver"] == "expert"]
    assert sum(experts) >= 7                                # 2 trials of 4 lines


def without_times(results):
    for run in results["runs"].values():
        run["training"].update(minutes=0, samples_per_s=0)
    return {**results, "device": ""}


def test_one_job_at_a_time_without_a_stop_gives_the_same_numbers(stopped, preset, few_lines, tmp_path, capsys):
    _, results, _, _ = stopped
    straight = runs.study(preset, tmp_path / "out", tmp_path / "results.json", [0], 2, ONLY, 1)
    assert without_times(json.loads(json.dumps(straight))) == without_times(results)
    said = capsys.readouterr().out.split("\n")
    assert "6 jobs, 1 at a time" in said[-8] and [line.split(",")[0][7:] for line in said[-7:-1]] == [
        f"{what} {name}/0" for name in ("large/cofine", "large/plan", "large/scratch") for what in ("train", "measure")]
    assert "all done at about" not in said[-7] and all("all done at about" in line for line in said[-6:-2])
    # what is measured is not measured again, and a new line alone is
    runs.study(preset, tmp_path / "out", tmp_path / "results.json", [0], 2, ONLY, 1)
    assert "0 jobs" in capsys.readouterr().out


def test_a_run_with_wishes_starts_from_one_without_and_may_think_longer(stopped):
    folder = stopped[0]
    policy = evaluation.Policy(folder / "out/large/plan/0/checkpoint.pt")
    assert suites.world_table(policy.config)["wishes"] and policy.config["thought_len"] == runs.PLAN_LEN
    assert policy.config["init_from"].endswith("out/large/cofine/0/checkpoint.pt")


def test_other_settings_are_refused_in_one_line(stopped, preset):
    folder, results = stopped[:2]
    path = folder / "results.json"
    with pytest.raises(ValueError, match="was measured with other settings"):
        runs.study(preset, folder / "out", path, [0], 3)
    with pytest.raises(ValueError, match="was measured with other settings"):
        runs.study(ROOT / "configs/study.toml", folder / "out", ROOT / "study/earlier/results.json", [0], 70)
    with pytest.raises(ValueError, match="no run begins with 'cofine'; with these seeds there are large/"):
        runs.study(preset, folder / "out", path, [1], 2, ("cofine",))


def test_an_error_in_one_run_is_told_in_the_end_by_name(stopped, preset, tmp_path):
    """in a process that begins anew, as all do without few_lines; what needs the run that failed is not begun"""
    shutil.copytree(stopped[0] / "out/large/cofine/0", tmp_path / "out/large/scratch/0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "get_context", multiprocessing.get_context)
        with pytest.raises(ValueError) as error:
            runs.study(preset, tmp_path / "out", tmp_path / "results.json", [0], 2, ("large/scratch/0",))
    first, trained, measured = str(error.value).splitlines()
    assert first == "some jobs failed; all others are done"
    assert trained.startswith("train large/scratch/0: error: ") and "was trained with " in trained
    assert trained.endswith("large/scratch/0/train.log)")
    assert measured == "measure large/scratch/0: not begun, it needs one that failed"
    assert "training" not in json.loads((tmp_path / "results.json").read_text())["runs"]["large/scratch/0"]


def test_jobs_run_as_soon_as_they_can_and_never_too_many(fork):
    """b, c and d need a; e needs c, which fails; f needs nothing, and is begun beside a; g needs a job that is done"""
    waiting = {"a": None, "b": "a", "c": "a", "d": "b", "e": "c", "f": None, "g": "not here"}
    order, running, most = [], set(), 0

    def start(job):
        nonlocal most
        order.append(job)
        running.add(job)
        most = max(most, len(running))
        process = fork.Process(target=lambda: sys.exit(job == "c"))
        process.start()
        return process

    def ended(job, well):
        running.remove(job)
        assert well == (job != "c")
    failed = runs.in_turn(waiting, 2, start, lambda job: None, ended)
    assert failed == ["c", "e"] and most == 2 and not waiting and not running
    assert order[:2] == ["a", "f"] and sorted(order) == list("abcdfg") and order.index("d") > order.index("b")


def test_the_study_says_when_it_will_be_done(preset, few_lines, tmp_path, monkeypatch):
    """two jobs at a time: 4 steps of 10 s and 2 measurements of 100 s take 120 s"""
    work = runs.Study(preset, tmp_path, tmp_path / "results.json", [0], 2, ("large/cofine/", "large/scratch/"), 2)
    work.results["runs"]["large/cofine/0"] = {"training": {}}
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert work.when() == ""
    work.units, work.seconds = {"train": 7, "measure": 0}, {"train": 70, "measure": 0}
    assert work.when() == ""                                # nothing is known of measuring yet
    work.units["measure"], work.seconds["measure"] = 3, 300
    steps = work.configs["large/scratch/0"].steps
    ends = time.localtime(1e9 + (10 * steps + 200) / 2)
    assert work.when() == time.strftime("; all done at about %H:%M on %A", ends)
    log = tmp_path / "large/scratch/0/log.jsonl"            # what a running training has done is no longer to do
    log.parent.mkdir(parents=True)
    log.write_text('{"step": 1}\n{"step"')
    assert runs.last_line(log.parent) == {"step": 1}
    work.seconds["train"] = 70_000
    ends = time.localtime(1e9 + (10_000 * (steps - 1) + 200) / 2)
    assert work.when() == time.strftime("; all done at about %H:%M on %A", ends)


def test_there_are_as_many_jobs_as_cores_and_runs(preset, tmp_path, monkeypatch):
    at_once = lambda only, jobs=None: runs.Study(preset, tmp_path, tmp_path / "r.json", [0], 2, only, jobs).at_once
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(3), raising=False)
    four = [f"large/{name}/" for name in ("cofine", "fine", "scratch", "words")]
    assert at_once(four) == 3 and at_once(four, 5) == 4 and at_once(four[:1]) == 1
    monkeypatch.setattr(train, "pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(evaluation, "device_name", str)
    assert at_once(four) == 1 and at_once(four, 2) == 2     # a GPU is shared only if asked for


def test_tables_and_figures_show_what_is_there_and_say_what_is_missing(stopped):
    results = stopped[1]
    shown = tables.tables(results)
    assert "large, co-fine-tuning |" in shown["recipes"] and "PaLM-E-like" not in shown["recipes"]
    assert "| sums |" in shown["emergent"] and "| a wish |" in shown["thought"]
    half = {"0": {"untrained": results["controls"]["0"]["untrained"]}}      # stopped before random and expert
    assert tables.tables({**results, "controls": half})["emergent"] != shown["emergent"]
    nothing = tables.tables({"runs": {}, "controls": {}})
    assert nothing.keys() == shown.keys() and "not yet run" in nothing["thought"] and "not yet run" in nothing["recipes"]
    assert tables.recipes_figure(results).startswith("<svg") and tables.samples_figure(results) == ""
    part = {**results["runs"]["large/cofine/0"], "training": {"robot_samples": 9}}
    assert ">9</text>" in tables.samples_figure({"runs": {**results["runs"], "large/cofine-half/0": part}})


def test_a_checkpoint_can_be_asked_any_line(stopped, monkeypatch, capsys):
    folder = stopped[0]
    checkpoint = folder / "out/large/cofine/0/checkpoint.pt"
    asked = ["study", "--checkpoint", str(checkpoint), "--trials", "1", "--lines"]
    monkeypatch.setattr(sys, "argv", [*asked, "sums"])
    command.main()
    assert "sums" in capsys.readouterr().out and (checkpoint.parent / "lines.json").exists()
    with Image.open(checkpoint.parent / "lines.png") as picture:
        assert picture.width == 6 * 200
    monkeypatch.setattr(sys, "argv", [*asked, "sum"])
    with pytest.raises(SystemExit, match="error: no line 'sum'"):
        command.main()


# ----------------------------------------------------------------------------------------------------------
# numbers

def row(group, line, k, n=10):
    return {"table": "emergent", "group": group, "line": line, "driver": "policy", "success": k, "n": n,
            "outcomes": {"success": k}, "counts": {"right first": 1}}


def test_averages_are_those_of_the_paper_and_seeds_add_up():
    rows = tables.pool([row("a", "x", 10), row("a", "x", 6), row("a", "y", 0), row("b", "z", 5)])
    assert [(r["line"], r["success"], r["n"]) for r in rows] == [("x", 16, 20), ("y", 0, 10), ("z", 5, 10)]
    assert rows[0]["outcomes"] == {"success": 16} and rows[0]["counts"] == {"right first": 2}
    mean, (low, high) = tables.average(rows, "emergent")
    assert mean == pytest.approx(((.8 + 0) / 2 + .5) / 2) and low < mean < high
    assert tables.average(rows, "generalisation") is None
    assert tables.cell(.9, (.85, .934)) == "90 [85, 93]" and tables.share([(3, 10), (4, 10)]) == "35"


# ----------------------------------------------------------------------------------------------------------
# thoughts

@pytest.mark.parametrize("thought, plan", [
    (" Plan: pick red can.", "pick red can"), ("", ""), (" Plan: move 3 near", "move 3 near"), (" 7", ""),
    (" Plan: move 3 near 4. 12 20", "move 3 near 4")])
def test_a_plan_is_read_from_a_thought(thought, plan):
    assert measure.plan_in(thought) == plan


class Thinker:
    """a policy that thinks what it is told to; said(picture number) -> its answer to any question"""
    def __init__(self, thoughts=(), said=""):
        table = {"format": "world", "vocabulary": "medium", "wishes": True}
        self.config, self.thoughts, self.said = {"robot": [table], "image_size": 32}, thoughts, said

    def decide(self, pictures, prompts, rngs):
        assert all(prompt.startswith("Instruction: ") for prompt in prompts)
        return None, self.thoughts

    def answer(self, pictures, questions, n_new=8):
        return [self.said] * len(pictures)


def test_a_printed_plan_is_right_where_it_means_the_same_things(monkeypatch):
    """two things put together may be named in either order; another skill or thing is wrong"""
    line = next(line for line in suites.suites(Thinker().config) if line.name == "a colour together")
    worlds = measure.scenes(line, 10_000, 4)
    a, b = zip(*((world.task.a.name, world.task.b.name) for world in worlds))
    plans = [f"move {a[0]} near {b[0]}", f"move {b[1]} near {a[1]}", f"pick {a[2]}", ""]
    thoughts = [f" Plan: {plan}. 1 2 3 4" if plan else "" for plan in plans]
    monkeypatch.setattr(measure, "Policy", lambda checkpoint, temperature: Thinker(thoughts, f" {a[0]}"))
    monkeypatch.setattr(measure, "wishes_on_the_web", lambda policy, name, n: [0, n])
    found = measure.printed_plans("checkpoint.pt", [line], 10_000, 4)["a colour together"]
    assert found["plan"] == [2, 4] and found["name"] == [a.count(a[0]), 4] and found["web"] == [0, 4]
    meant = World.describe("move near", *worlds[1].things[:2])
    assert found["said"][1] == [worlds[1].instruction, plans[1], meant]


def test_a_plan_on_the_web_is_right_where_it_means_the_same_things(monkeypatch):
    meant = [" Plan: move red cup near red can.", " Plan: move red can near red bag."]
    monkeypatch.setattr(measure.trials, "questions", lambda *args, fits, tries: ([None] * 2, [""] * 2, meant))
    thinker = Thinker(said=" Plan: move red can near red cup.")
    assert measure.wishes_on_the_web(thinker, "a colour together", 2) == [1, 2]


# ----------------------------------------------------------------------------------------------------------
# what is shown

@pytest.mark.parametrize("folder", ["study", "study/thought", "study/earlier"])
def test_the_tables_and_figures_of_results_md_are_those_of_the_results_file(folder):
    text = (ROOT / folder / "RESULTS.md").read_text()
    results = json.loads((ROOT / folder / "results.json").read_text())
    for name, table in tables.tables(results).items():
        assert table in text, f"{name} is not that of results.json; paste it from: python -m study --tables"
    for figure, draw in (("recipes.svg", tables.recipes_figure), ("samples.svg", tables.samples_figure)):
        if drawn := draw(results):
            assert (ROOT / folder / figure).read_text() == drawn and f"]({figure})" in text


@pytest.mark.parametrize("folder", ["study", "study/thought", "study/earlier"])
def test_the_results_file_says_with_which_code_it_was_measured(folder):
    results = json.loads((ROOT / folder / "results.json").read_text())
    assert results["measured at"] and all(run["measured at"] for run in results["runs"].values())
