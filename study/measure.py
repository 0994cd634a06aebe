"""
What is measured of one run: the lines of its tables, what the web taught it, and where the chain from word to
movement breaks. It begins in a process of its own (runs.py), and keeps each number in measured.json, in the
folder of its run, so that after a stop it goes on with what is missing.
"""
import json
import os
import re

import numpy as np

import eval as evaluation
from eval import Policy, agrees
from study.suites import CHAIN_OF_THOUGHT, EMERGENT, suites, templates_of, web_questions, world_table
from tokenizer import prompt
from world import trials, web
from world.scene import VOCABULARIES, World

PLAN_LEN = 16                                       # most tokens of a plan
N_WEB = 100                                         # pictures that each web question is asked about


def keep(results, path):
    """write beside it, then rename: what was measured is never lost"""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1))
    os.replace(temporary, path)


def brings_controls(name):
    """is this the run of its seed that also measures random, expert, and wishes before any were learnt?"""
    return name.startswith("large/cofine/")


def measure_run(name, folder, tables, seed, n):
    """all that is measured of one trained run, but what measured.json, in its folder, has already"""
    path, checkpoint = folder / "measured.json", folder / "checkpoint.pt"
    found, policy = json.loads(path.read_text()), Policy(checkpoint)
    run, controls = found["run"], found["controls"]
    every = suites(policy.config)
    lines = [line for line in every if line.table in tables]
    first = evaluation.TRIAL_SEED + 10_000 * seed   # other scenes for every seed, the same for every recipe
    plan = name.startswith("large/plan/")

    def rows(into, key, lines, drivers):
        measured = into.setdefault(key, [])
        for line in lines:
            if not any((row["table"], row["line"]) == (line.table, line.name) for row in measured):
                measured += evaluation.measure(policy, [line], n, drivers, first)
                keep(found, path)

    def once(key, make):
        if key not in run:
            run[key] = make()
            keep(found, path)

    if brings_controls(name):
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
    # these come last: a run that has them has all
    rows(run, "rows", lines, evaluation.DRIVERS[:3 if brings_controls(name) or plan else 1])
    keep(found, path)


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
        "action"    dx and dy are those of the expert
        "expert"    dx and dy of the expert are the way: it goes beside b, and keeps clear of other cards
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
        answers, _ = policy.decide(pictures, asked, [np.random.default_rng(0) for _ in asked])
        moves = policy.actions.bins(answers)[:, 0, 1:3]
        wanted = policy.actions.bins([w.expert() for w in worlds])[:, 1:3]
        aims, n = [f" {dx} {dy}" for dx, dy in wanted], len(worlds)
        found[line.name] = {"where": [sum(map(agrees, where, places)), n],
                            "way": [sum(agrees(said, right, 0) for said, right in zip(way, ways)), n],
                            "action": [int((moves == wanted).all(1).sum()), n],
                            "expert": [sum(aim == right for aim, right in zip(aims, ways)), n]}
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
    """Example: plan_in(" Plan: pick red can.") -> "pick red can"; "" if there is no plan"""
    found = re.match(" ?Plan:([^.]*)", thought)
    return found[1].strip() if found else ""


def same_plan(said, meant):
    """Together is together: same_plan("move apple near red can", "move red can near apple") -> True"""
    skill, _, what = said.partition(" ")
    same_skill, _, same_what = meant.partition(" ")
    return skill == same_skill and sorted(what.split(" near ")) == sorted(same_what.split(" near "))
