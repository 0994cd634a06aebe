"""
The study: which runs there are, how one is trained, and how all are trained and measured, several at a time,
and go on after a stop. What is measured of a run stands in measure.py.

A run is size/recipe/seed; "small" is half the width. The recipes have the same number of robot samples:

    cofine           web, then web and robot together
    fine             the same web model, then robot alone
    scratch          robot alone
    web first        cofine's numbers of samples and its schedule, but all of the web before all of the robot
    fine, slow       fine-tuning of that longer web model, at a third of the learning rates
    cofine-half, fine-quarter ...   with a part of the samples, after the same web stage (seed 0 alone)
    palm-e           cofine as the paper's other instance: overwritten tokens, causal prompts, 66 % robot
    where            cofine where no instruction is put to the web: it is only asked where things are
    words            cofine where the web never tells a position or a way: two steps of transfer, not one
    plan, no plan    cofine, and 600 steps more with wishes, answered with a plan or without (section 4.4)

The results file holds every number:

    "settings"       the preset and the trials that it belongs to
    "runs"           run -> {"settings": what differs from the preset, "measured at": commit,
                             "training": how its log ends, "rows": as eval.measure has them,
                             "web before", "web": web_answers after the web stage and in the end,
                             "links": where_it_breaks, "plans": printed_plans}
    "again"          runs of study/results.json that were trained once more, elsewhere; in no table
    "controls"       seed -> {"drivers": rows of random and expert, "untrained": rows of wishes before "plan"}
"""
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from multiprocessing import connection, get_context
from pathlib import Path

import data
import eval as evaluation
import train
from study.measure import PLAN_LEN, brings_controls, keep, measure_run
from study.suites import suites, world_table

ROOT = Path(__file__).parent.parent
# questions that are answered in words alone; the model then learns places from the robot's pictures alone
WORDS = dict.fromkeys(
    ["caption", "relation", "what category", "what face", "what sum", "what size", "what same colour",
     "what different", "what es", "what fr", "what de", "sums", "translation", "kind of", "color"], 1)
# a plan says names: what the web is asked where the robot is told wishes
NAMES = {"wish": 4, "what at": 3, "what category": 2, "caption": 1, "locate": 1, "go": 2, "go category": 1,
         "where category": 1}
THOUGHT_STEPS = 600                                 # steps with wishes
PARTS = {1: "", .5: "-half", .25: "-quarter"}       # of the samples of the second stage
TABLES_4_5 = ("generalisation", "emergent")


# ----------------------------------------------------------------------------------------------------------
# which runs there are

def runs(config, seeds):
    """
    Every run, in order: name -> (settings that differ from the preset, tables that it is asked). A path of
    init_from is relative to the folder of the study.

    Example: "large/fine/0" -> ({"seed": 0, "init_from": "large/cofine/0/web.pt", "robot_fraction": 1.0,
        "steps": 5445}, ("generalisation", "emergent"))
    """
    found, pictures = {}, the_web(config)
    where = {name: n for name, n in pictures["questions"].items() if name.split()[0] != "go"}
    for seed in seeds:
        for some in three(config, "large", seed), thinking(config, seed), three(config, "small", seed):
            found.update(some)
        alone = found[f"large/scratch/{seed}"][0]
        found[f"large/web first/{seed}"] = {
            **alone, "pretrain_steps": config.n_pretrain + config.steps - alone["steps"]}, TABLES_4_5
        found[f"large/fine, slow/{seed}"] = {
            **found[f"large/fine/{seed}"][0], "init_from": f"large/web first/{seed}/web.pt",
            "lr_muon": config.lr_muon / 3, "lr_adam": config.lr_adam / 3}, TABLES_4_5
        found[f"large/palm-e/{seed}"] = {
            "seed": seed, "scheme": "overwrite", "attention": "causal", "robot_fraction": .66,
            "steps": round(config.steps * config.robot_fraction / .66)}, TABLES_4_5
        for name, questions, tables in (("where", where, TABLES_4_5), ("words", WORDS, ("emergent",))):
            found[f"large/{name}/{seed}"] = {
                "seed": seed, "web": [{**pictures, "questions": questions}]}, tables
    for part in (.25, .5) if 0 in seeds else ():
        found.update(three(config, "large", 0, part))
    return found


def the_web(config):
    """settings of the first table of the web's pictures"""
    tables = [data.settings_of("web", table) for table in config.web]
    found = [table for table in tables if table["format"] == "world"]
    if not found:
        raise ValueError("the study needs a table [[web]] with format = \"world\"")
    return found[0]


def three(config, size, seed, part=1):
    """the paper's recipes of table 6, as runs() has them; part: of the samples after the web stage"""
    narrow = {"vit_embd": config.vit_embd // 2, "n_embd": config.n_embd // 2} if size == "small" else {}
    base, start = {**narrow, "seed": seed}, {"init_from": f"{size}/cofine/{seed}/web.pt"}
    alone = {"robot_fraction": 1.0, "steps": round(config.steps * config.robot_fraction * part)}
    again = {} if part == 1 else start
    recipes = {"cofine": {**base, **again, "steps": round(config.steps * part)},
               "fine": {**base, **start, **alone},
               "scratch": {**base, "pretrain_steps": 0, **alone}}
    return {f"{size}/{name}{PARTS[part]}/{seed}": (settings, TABLES_4_5)
            for name, settings in recipes.items()}


def thinking(config, seed):
    """the runs of section 4.4"""
    robot = {**world_table(vars(config)), "wishes": True}
    base = {"seed": seed, "init_from": f"large/cofine/{seed}/checkpoint.pt", "steps": THOUGHT_STEPS,
            "web": [{**the_web(config), "questions": NAMES}]}
    plan = {**base, "robot": [robot], "thought_len": config.thought_len + PLAN_LEN}
    no_plan = {**base, "robot": [{**robot, "plans": False}]}
    return {f"large/plan/{seed}": (plan, ("thought",)), f"large/no plan/{seed}": (no_plan, ("thought",))}


# ----------------------------------------------------------------------------------------------------------
# training one run

def toml(value):
    """
    A value as TOML. Example: toml({"format": "world", "questions": {"what at": 1}})
        -> '{"format" = "world", "questions" = {"what at" = 1}}'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(x)}" for key, x in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)    # texts, numbers, true and false are the same in JSON


def train_run(folder, preset):
    """
    Trains one run, from its last checkpoint if it was stopped. Its complete preset is beside it, so that
    python train.py --config FOLDER/preset.toml is the same run.
    """
    preset, checkpoint = {**preset, "out_dir": str(folder), "trials": 0}, folder / "checkpoint.pt"
    path, done = folder / "preset.toml", 0
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in preset.items()), encoding="utf-8")
    config = train.read_config(["--config", str(path)])
    if checkpoint.exists():
        state = train.load(checkpoint)
        done = state["step"]
        for key, value in vars(config).items():
            if key != "out_dir" and state["config"].get(key) != value:
                raise ValueError(f"{folder} was trained with {key} = {state['config'][key]!r}, not "
                                 f"{value!r}; move it away, or give another --out_dir")
    if done < config.n_pretrain + config.steps:
        train.train(config, resume=done > 0)


def last_line(folder):
    """the last whole line of a run's log.jsonl, {"step": 0} if there is none"""
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1]) if lines else {"step": 0}


# ----------------------------------------------------------------------------------------------------------
# the study: jobs, which are ("train", run) or ("measure", run), several at a time

def study(preset_file, out, path, seeds, n_trials, only=(), jobs=None):
    """
    Trains and measures all runs, or those whose names begin as `only` says. out: the folder of the runs;
    path: the results file. What is in it already is not done again. jobs: how many at a time; None: as many
    as there are cores, or one on a GPU. Returns the results.
    """
    work = Study(preset_file, Path(out).resolve(), path, seeds, n_trials, only, jobs)
    if any(what == "train" for what, _ in work.waiting):
        data.open_logs(work.config)     # recordings are drawn now, once, and not by all runs at the same time
    print(f"{len(work.waiting)} jobs, {work.at_once} at a time; a run's folder has its train.log and "
          "measure.log", flush=True)
    failed = in_turn(work.waiting, work.at_once, work.start, work.collect, work.ended)
    keep(work.results, path)
    if failed:
        raise ValueError("some jobs failed; all others are done\n" + "\n".join(map(work.why, failed)))
    return work.results


def in_turn(waiting, n, start, collect, ended):
    """
    Does all jobs, n at a time, each in a process of its own. waiting: job -> the job that must end before it.
    start(job) gives its process, collect(job) takes what it has found so far, and ended(job, well) is told.
    Returns the jobs that failed, and those that waited for them. After Ctrl-C every process is told to stop.
    """
    running, failed = {}, []
    try:
        while waiting or running:
            for job, before in list(waiting.items()):
                if before in failed:
                    del waiting[job]
                    failed.append(job)
                elif before not in waiting and before not in running and len(running) < n:
                    del waiting[job]
                    running[job] = start(job)
            # until one ends, or a minute has passed
            connection.wait([process.sentinel for process in running.values()], 60 if running else 0)
            for job, process in list(running.items()):
                over = not process.is_alive()
                collect(job)
                if over:
                    del running[job]
                    failed += [job] if process.exitcode else []
                    ended(job, process.exitcode == 0)
    finally:
        for process in running.values():
            process.terminate()                     # a training saves its checkpoint first
        for job, process in running.items():
            process.join()
            collect(job)
    return failed


def in_child(log, function, *args):
    """how a process begins: what it prints goes to the end of a file, and an expected error is one line"""
    data.helper()
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        function(*args)
    except (ValueError, OSError, FloatingPointError) as e:
        sys.exit(f"error: {e}")


class Study:
    """
    What is to be done, and what was found. Only this class writes the results file; a process that measures
    writes its own part of it, measured.json in the folder of its run.
    """

    def __init__(self, preset_file, out, path, seeds, n_trials, only, jobs):
        self.out, self.path, self.n_trials = out, path, n_trials
        self.config = train.read_config(["--config", str(preset_file)])
        self.preset = tomllib.loads(Path(preset_file).read_text(encoding="utf-8"))
        self.results = open_results(path, {"preset": self.preset, "trials": n_trials})
        every = runs(self.config, seeds)
        for start in only:
            if not any(name.startswith(start) for name in every):
                raise ValueError(f"no run begins with {start!r}; with these seeds there are "
                                 f"{', '.join(every)}")
        self.runs = {name: every[name] for start in only or [""] for name in every if name.startswith(start)}
        self.configs = {name: train.Config(**{**self.preset, **settings})
                        for name, (settings, _) in self.runs.items()}
        self.waiting = {}
        for name, (settings, _) in self.runs.items():
            if not self.is_trained(name):
                self.waiting["train", name] = ("train", settings.get("init_from", "").rpartition("/")[0])
            if not self.is_measured(name):
                self.waiting["measure", name] = ("train", name)
        device = train.pick_device(self.config.device)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.at_once = min(jobs or (cores if device.type == "cpu" else 1), len(self.runs))
        if self.at_once > 1:            # two runs of one thread each are faster than one run of two threads
            os.environ["OMP_NUM_THREADS"] = "1"
        self.results["device"] = f"{evaluation.device_name(device)}, {self.at_once} runs at a time"
        self.began, self.units, self.seconds = {}, Counter(), Counter()

    def is_trained(self, name):
        return "training" in self.results["runs"].get(name, {})

    def is_measured(self, name):
        """are all lines of its tables there? (measure_run asks them last)"""
        run, tables = self.results["runs"].get(name, {}), self.runs[name][1]
        asked = {line.name for line in suites(vars(self.configs[name])) if line.table in tables}
        return "rows" in run and asked <= {row["line"] for row in run["rows"]}

    def start(self, job):
        (what, name), (settings, tables) = job, self.runs[job[1]]
        folder, seed = self.out / name, settings["seed"]
        folder.mkdir(parents=True, exist_ok=True)
        run = self.results["runs"].setdefault(name, {"settings": settings, "measured at": commit()})
        if what == "train":
            begin = {"init_from": str(self.out / settings["init_from"])} if "init_from" in settings else {}
            task = (train_run, folder, {**self.preset, **settings, **begin})
        else:
            controls = self.results["controls"].get(str(seed), {}) if brings_controls(name) else {}
            keep({"run": run, "controls": controls}, folder / "measured.json")
            task = (measure_run, name, folder, tables, seed, self.n_trials)
        self.began[job] = time.monotonic(), last_line(folder)["step"]
        process = get_context("spawn").Process(target=in_child, args=(folder / f"{what}.log", *task))
        # Ctrl-C reaches all processes of a terminal: this one inherits that it takes no notice of it
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.start()
        signal.signal(signal.SIGINT, handler)
        return process

    def collect(self, job):
        what, name = job
        if what == "measure":
            found = json.loads((self.out / name / "measured.json").read_text())
            self.results["runs"][name] = found["run"]
            if found["controls"]:
                self.results["controls"][str(self.runs[name][0]["seed"])] = found["controls"]
            keep(self.results, self.path)

    def ended(self, job, well):
        """one line for people, and what the log of a training says in the end"""
        (what, name), (began, step) = job, self.began[job]
        seconds, last, config = time.monotonic() - began, last_line(self.out / name), self.configs[job[1]]
        if what == "train" and well:
            self.results["runs"][name]["training"] = {
                "steps": last["step"],
                "robot_samples": config.steps * round(config.batch_size * config.robot_fraction),
                **{key: last[key] for key in ("minutes", "samples_per_s", "accuracy", "action")
                   if key in last}}
            keep(self.results, self.path)
        if well:
            self.units[what] += last["step"] - step if what == "train" else 1
            self.seconds[what] += seconds
        how = f"{what} {name}" if well else f"FAILED: {what} {name}"
        print(f"{time.strftime('%H:%M')}  {how}, {seconds / 60:.1f} minutes{self.when()}", flush=True)

    def when(self):
        """when all will be done, from the seconds of a step and of a measurement so far, if there are any"""
        left = {"train": sum(config.n_pretrain + config.steps - last_line(self.out / name)["step"]
                             for name, config in self.configs.items() if not self.is_trained(name)),
                "measure": sum(not self.is_measured(name) for name in self.runs)}
        left = {what: n for what, n in left.items() if n > 0}
        if not left or any(not self.units[what] for what in left):
            return ""
        seconds = sum(n * self.seconds[what] / self.units[what] for what, n in left.items()) / self.at_once
        return time.strftime("; all done at about %H:%M on %A", time.localtime(time.time() + seconds))

    def why(self, job):
        """a line about a job that failed: how its log ends"""
        what, name = job
        log = self.out / name / f"{what}.log"
        if job not in self.began:
            return f"{what} {name}: not begun, it needs one that failed"
        said = log.read_text(errors="replace").splitlines() or [""]
        return f"{what} {name}: {said[-1]} ({log})"


def commit():
    """which code measures: its commit, with "-dirty" if files have changed since; "" outside of git"""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True,
                              text=True).stdout.strip()
    except OSError:
        return ""


def open_results(path, settings):
    new = {"settings": settings, "runs": {}, "controls": {}}
    results = json.loads(path.read_text()) if path.exists() else new
    if results["settings"] != settings:
        raise ValueError(f"{path} was measured with other settings (preset or trials); move it away, or give "
                         "another --results")
    return results
