"""
The study: which runs there are, how one is trained and measured, and how all of it goes on after a stop.

A run is size/recipe/seed; "small" is half the width. The recipes have the same number of robot samples:

    cofine           web, then web and robot together
    fine             the same web model, then robot alone
    scratch          robot alone
    cofine-half, fine-quarter ...   with a part of the samples, after the same web stage (seed 0 alone)
    palm-e           cofine as the paper's other instance: overwritten tokens, causal prompts, 66 % robot
    no place         cofine where an action does not begin with places, and the web is not asked for them
    words            cofine where the web never tells a position: two steps of transfer instead of one
    plan, no plan    cofine, and 600 steps more with wishes, answered with a plan or without (section 4.4)

The results file holds every number, and is written after each line of a table:

    "settings"       the preset and the trials that it belongs to
    "runs"           run -> {"settings": what differs from the preset, "measured at": commit,
                             "training": how its log ends, "rows": as eval.measure returns them,
                             "web before", "web": web_answers after the web stage and in the end,
                             "links": where_it_breaks, "plans": printed_plans}
    "controls"       seed -> {"drivers": rows of random and expert, "untrained": rows of wishes before "plan"}
"""
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

import data
import eval as evaluation
import train
from eval import Policy, agrees
from study.suites import CHAIN_OF_THOUGHT, EMERGENT, suites, templates_of, web_questions, world_table
from tokenizer import prompt
from world import trials, web
from world.scene import VOCABULARIES, World

ROOT = Path(__file__).parent.parent
# questions that are answered in words alone; the model then learns places from the robot's pictures alone
WORDS = dict.fromkeys(
    ["caption", "relation", "what category", "what face", "what sum", "what size", "what same colour",
     "what different", "what es", "what fr", "what de", "sums", "translation", "kind of", "color"], 1)
# a plan says names: what the web is asked where the robot is told wishes
NAMES = {"wish": 4, "what at": 3, "what category": 2, "caption": 1, "locate": 1, "goal": 2,
         "goal category": 1, "where category": 1}
THOUGHT_STEPS, PLAN_LEN = 600, 16                   # steps with wishes; most tokens of a plan
N_WEB = 100                                         # pictures that each web question is asked about
PARTS = {1: "", .5: "-half", .25: "-quarter"}       # of the samples of the second stage
TABLES_4_5 = ("generalisation", "emergent")


# ----------------------------------------------------------------------------------------------------------
# which runs there are

def runs(config, seeds):
    """
    Every run, in order: name -> (settings that differ from the preset, tables that it is asked). A path of
    init_from is relative to the folder of the study.

    Example: "large/fine/0" -> ({"seed": 0, "init_from": "large/cofine/0/web.pt", "robot_fraction": 1.0,
        "steps": 3300}, ("generalisation", "emergent"))
    """
    found, robot, pictures, easy = {}, world_table(config), the_web(config), easy_pictures(config)
    without_goals = {name: n for name, n in pictures["questions"].items() if not name.startswith("goal")}
    for seed in seeds:
        for some in three(config, "large", seed), thinking(config, seed), three(config, "small", seed):
            found.update(some)
        found[f"large/palm-e/{seed}"] = {
            "seed": seed, "scheme": "overwrite", "attention": "causal", "robot_fraction": .66,
            "steps": round(config.steps * config.robot_fraction / .66)}, TABLES_4_5
        found[f"large/no place/{seed}"] = {
            "seed": seed, "thought_len": 0, "robot": [{**robot, "places": False}],
            "web": [{**pictures, "questions": without_goals}, *easy]}, TABLES_4_5
        found[f"large/words/{seed}"] = {
            "seed": seed, "web": [{**pictures, "questions": WORDS}]}, ("emergent",)
    for part in (.25, .5) if 0 in seeds else ():
        found.update(three(config, "large", 0, part))
    return found


def the_web(config):
    """settings of the first table of the web's pictures that lasts to the end"""
    tables = [data.settings_of("web", table) for table in config.web]
    found = [table for table in tables if table["format"] == "world" and not table["until"]]
    if not found:
        raise ValueError("the study needs a table [[web]] with format = \"world\", and without until")
    return found[0]


def easy_pictures(config):
    """the tables of what the web begins with; a run with init_from is past them"""
    return [table for table in config.web if table.get("until")]


def three(config, size, seed, part=1):
    """the paper's recipes of table 6, as runs() has them; part: of the samples after the web stage"""
    narrow = {"vit_embd": config.vit_embd // 2, "n_embd": config.n_embd // 2} if size == "small" else {}
    base, start = {**narrow, "seed": seed}, {"init_from": f"{size}/cofine/{seed}/web.pt"}
    alone = {"robot_fraction": 1.0, "steps": round(config.steps * config.robot_fraction * part)}
    again = {} if part == 1 else {**start, "web": [the_web(config)]}
    recipes = {"cofine": {**base, **again, "steps": round(config.steps * part)},
               "fine": {**base, **start, **alone},
               "scratch": {**base, "pretrain_steps": 0, **alone}}
    return {f"{size}/{name}{PARTS[part]}/{seed}": (settings, TABLES_4_5)
            for name, settings in recipes.items()}


def thinking(config, seed):
    """the runs of section 4.4"""
    robot = {**world_table(config), "wishes": True}
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
    Trains one run in a process of its own, from its last checkpoint if it was stopped. Its complete preset is
    beside it, so that python train.py --config FOLDER/preset.toml is the same run. Returns how its log ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    preset = {**preset, "out_dir": str(folder), "trials": 0}
    path, checkpoint = folder / "preset.toml", folder / "checkpoint.pt"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in preset.items()), encoding="utf-8")
    config = train.read_config(["--config", str(path)])
    total, done, how = config.n_pretrain + config.steps, 0, ["--config", path]
    if checkpoint.exists():
        state = train.load(checkpoint)
        done, how = state["step"], ["--resume", "--out_dir", folder]
        for key, value in vars(config).items():
            if key != "out_dir" and state["config"][key] != value:
                raise ValueError(f"{folder} was trained with {key} = {state['config'][key]!r}, not "
                                 f"{value!r}; move it away, or give another --out_dir")
    if done < total:
        process = subprocess.Popen([sys.executable, ROOT / "train.py", *how])
        try:
            if process.wait():
                raise ValueError(f"the training of {folder} ended with an error, see above")
        except KeyboardInterrupt:                   # it was told, too: let it save its checkpoint
            process.wait()
            raise
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return {"steps": total, "robot_samples": config.steps * round(config.batch_size * config.robot_fraction),
            **{key: last[key] for key in ("minutes", "samples_per_s", "accuracy", "action") if key in last}}


# ----------------------------------------------------------------------------------------------------------
# the study

def keep(results, path):
    """write beside it, then rename: what was measured is never lost"""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1))
    os.replace(temporary, path)


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


def study(preset_file, out, path, seeds, n_trials, only=()):
    """
    Trains and measures all runs, or those whose names begin as `only` says. out: the folder of the runs;
    path: the results file. What is in it already is not done again. Returns the results.
    """
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    config = train.read_config(["--config", str(preset_file)])
    preset = tomllib.loads(Path(preset_file).read_text(encoding="utf-8"))
    results = open_results(path, {"preset": preset, "trials": n_trials})
    every = runs(config, seeds)
    for start in only:
        if not any(name.startswith(start) for name in every):
            raise ValueError(f"no run begins with {start!r}; with these seeds there are {', '.join(every)}")
    results["device"] = evaluation.device_name(train.pick_device("auto"))
    for name, (settings, tables) in every.items():
        if only and not name.startswith(tuple(only)):
            continue
        run = results["runs"].setdefault(name, {"settings": settings, "measured at": commit()})
        if "training" not in run:
            start = {"init_from": str(out / settings["init_from"])} if "init_from" in settings else {}
            run["training"] = train_run(out / name, {**preset, **settings, **start})
            keep(results, path)
        measure_run(results, path, name, out / name, tables, settings["seed"], n_trials)
    return results


def measure_run(results, path, name, folder, tables, seed, n):
    """all that is measured of one trained run, but what the results have already"""
    run, checkpoint = results["runs"][name], folder / "checkpoint.pt"
    policy = Policy(checkpoint)
    every = suites(policy.config)
    lines = [line for line in every if line.table in tables]
    first = evaluation.TRIAL_SEED + 10_000 * seed   # other scenes for every seed, the same for every recipe
    whole, plan = name.startswith("large/cofine/"), name.startswith("large/plan/")

    def rows(into, key, lines, drivers):
        measured = into.setdefault(key, [])
        for line in lines:
            if not any((row["table"], row["line"]) == (line.table, line.name) for row in measured):
                measured += evaluation.measure(policy, [line], n, drivers, first)
                keep(results, path)

    def once(key, make):
        if key not in run:
            run[key] = make()
            keep(results, path)

    rows(run, "rows", lines, evaluation.DRIVERS[:3 if whole or plan else 1])
    if whole:
        controls = results["controls"].setdefault(str(seed), {})
        rows(controls, "untrained", [line for line in every if line.table == "thought"], ("policy",))
        rows(controls, "drivers", every, ("random", "expert"))
        moves = [line for line in lines if line.name == "seen"
                 or any(template.startswith("move") for template in templates_of(line.name))]
        once("links", lambda: where_it_breaks(checkpoint, moves, first, n))
    if "emergent" in tables:
        once("web", lambda: web_answers(checkpoint, N_WEB))
        if (folder / "web.pt").exists():
            once("web before", lambda: web_answers(folder / "web.pt", N_WEB))
    if plan:
        once("plans", lambda: printed_plans(checkpoint, lines, first, n))


# ----------------------------------------------------------------------------------------------------------
# what else is measured of a model

def web_answers(checkpoint, n):
    """right answers to the web questions behind each emergent line, and to names: line -> [right, asked]"""
    policy, found = Policy(checkpoint), {}
    vocabulary, size = world_table(policy.config)["vocabulary"], policy.config["image_size"]
    names = web.on_the_web(vocabulary)["names"]
    asked = {"names": [("locate", None)]}
    if VOCABULARIES[vocabulary]["cards"]:
        asked.update({line: web_questions(line) for group in EMERGENT.values() for line in group})
    for line, questions in asked.items():
        pairs = []
        for question_type, about in questions:
            rows = zip(*trials.questions(vocabulary, size, question_type, n, names, about))
            pairs.append(evaluation.quiz(policy, [(*row, 2) for row in rows]))      # 2 of 32 cells may be off
        found[line] = np.sum(pairs, 0).tolist()
    return found


def scenes(line, first, n):
    """the worlds of n trials of a line, reset"""
    worlds = []
    for seed in range(first, first + n):
        trial = line.make()
        trial.reset(seed=seed)
        worlds.append(trial.world)
    return worlds


def facts_by_name(world):
    return {fact["name"]: fact for fact in world.facts()}


def fetched(world):
    """lets the expert lift what is to be moved, in 20 steps at most: does it hold it then?"""
    a = world.task.a
    while not (world.held is a and world.hand[2] > .09) and world.steps < 20:
        world.step(world.lift() if world.held is a else world.expert())
    return world.held is a


def where_it_breaks(checkpoint, lines, first, n_trials):
    """
    The chain from word to movement, link by link, in the robot's own picture, once the expert has fetched
    what is to be moved (a). The goal (b) is called by its plain name. line -> [right, asked] of

        "where"     where is b?
        "way"       which way is b from the gripper?
        "place"     the thought before the action ends with the place of b
        "action"    dx and dy are those of the expert
    """
    policy, found = Policy(checkpoint, temperature=0), {}
    for line in lines:
        worlds = [w for w in scenes(line, first, n_trials) if w.task.skill == "move near" and fetched(w)]
        if not worlds:
            continue
        pictures, names = [w.observe()["image"] for w in worlds], [w.task.b.name for w in worlds]
        facts = [facts_by_name(w) for w in worlds]
        places = [web.place(f[b]) for f, b in zip(facts, names)]
        ways = [web.step_toward(f["gripper"], f[b]) for f, b in zip(facts, names)]
        where = policy.answer(pictures, [f"Q: where is the {b}? A:" for b in names], 3)
        way = policy.answer(pictures, [f"Q: which way is the {b} from the gripper? A:" for b in names], 3)
        asked = [prompt(f"move {w.task.a.name} near {b}") for w, b in zip(worlds, names)]
        answers, thoughts = policy.decide(pictures, asked, [np.random.default_rng(0) for _ in asked])
        moves = policy.actions.bins(answers)[:, 0, 1:3]
        wanted = policy.actions.bins([w.expert() for w in worlds])[:, 1:3]
        n, thoughts = len(worlds), map(last_place, thoughts)
        has_places = world_table(policy.config)["places"]
        found[line.name] = {"where": [sum(map(agrees, where, places)), n],
                            "way": [sum(agrees(said, right, 0) for said, right in zip(way, ways)), n],
                            "place": [sum(map(agrees, thoughts, places)), n if has_places else 0],
                            "action": [int((moves == wanted).all(1).sum()), n]}
    return found


def printed_plans(checkpoint, lines, first, n):
    """
    What the model says before it acts, in the first picture of n trials, and two reasons for it: does it call
    the thing by its name when asked what is there, and does it answer such wishes about web pictures?
    line -> {"plan", "name", "web": [right, asked], "said": five of [instruction, plan, what was meant]}
    """
    policy, found = Policy(checkpoint, temperature=0), {}
    for line in lines:
        worlds = scenes(line, first, n)
        pictures, facts = [w.observe()["image"] for w in worlds], [facts_by_name(w) for w in worlds]
        asked = [line.prompt(w.instruction) for w in worlds]
        plans = list(map(plan_in, policy.decide(pictures, asked, [np.random.default_rng(0)] * n)[1]))
        meant = [World.describe(w.task.skill, w.task.a, w.task.b) for w in worlds]
        at = [web.place(f[w.task.a.name]) for f, w in zip(facts, worlds)]
        named = policy.answer(pictures, [f"Q: what is at{place}? A:" for place in at])
        found[line.name] = {
            "plan": [sum(map(same_plan, plans, meant)), n],
            "name": [sum(said.strip() == w.task.a.name for said, w in zip(named, worlds)), n],
            "web": wishes_on_the_web(policy, line.name, n),
            "said": [[w.instruction, said, right] for w, said, right in zip(worlds, plans, meant)][:5]}
    return found


def wishes_on_the_web(policy, line, n):
    """
    right plans and wishes asked, of the skill and the things of a line, about n web pictures that training
    has not seen
    """
    (skill, whose), vocabulary = CHAIN_OF_THOUGHT[line], world_table(policy.config)["vocabulary"]
    begin = f" Plan: {skill.split()[0]} "
    pictures, wishes, plans = trials.questions(
        vocabulary, policy.config["image_size"], "wish", n, VOCABULARIES[vocabulary][whose],
        fits=lambda answer: answer.startswith(begin), tries=100)
    said = policy.answer(pictures, wishes, PLAN_LEN) if pictures else []
    return [sum(same_plan(plan_in(a), plan_in(b)) for a, b in zip(said, plans)), len(plans)]


def plan_in(thought):
    """Example: plan_in(" Plan: pick red can. 12 20 12 20") -> "pick red can"; "" if there is no plan"""
    found = re.match(" ?Plan:([^.]*)", thought)
    return found[1].strip() if found else ""


def last_place(thought):
    """Example: last_place(" Plan: pick red can. 12 20 12 20") -> "12 20"; "" if there are no places"""
    found = re.search(r"\d+ \d+$", thought)
    return found[0] if found else ""


def same_plan(said, meant):
    """Together is together: same_plan("move apple near red can", "move red can near apple") -> True"""
    skill, _, what = said.partition(" ")
    same_skill, _, same_what = meant.partition(" ")
    return skill == same_skill and sorted(what.split(" near ")) == sorted(same_what.split(" near "))
