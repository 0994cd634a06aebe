"""
The paper's tables in small: trains every arm, measures every suite, and keeps all numbers in one file.

    python -m study                                      # all runs of configs/study.toml; stop it at any time, the same command goes on
    python -m study --only large/cofine/ large/fine/     # some of them; --seeds 0 for one seed
    python -m study --config configs/gpu.toml --out_dir out/gpu
    python -m study --tables                             # the README's tables, from study/results.json; or --results out/study/results.json
    python -m study --figures                            # the README's figures, from the same file

A run is size/arm/seed; "small" is half the width. The arms have the same number of robot samples:

    cofine           web, then web and robot together
    fine             the same web model, then robot alone
    scratch          robot alone
    cofine-half, fine-quarter ...   with a part of the robot samples, after the same web stage (seed 0 alone)
    plan, no plan    cofine, and a few hundred steps more with wishes that take a thought, answered with a plan or without
    palm-e           cofine as the paper's other instance: overwritten tokens, causal prompts, 66 % robot
    words            cofine where the web never tells a position: two steps of transfer instead of one
    no place         cofine where an action does not begin with places, nor is the web asked for those of an instruction
"""
import argparse
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import eval as evaluation
import train
from eval import Policy, mean_of_groups, wilson
from study import suites
from world import web
from world.scene import VOCABULARIES

RESULTS = Path(__file__).parent / "results.json"              # what the README shows: a copy of out/study/results.json
# questions that are answered in words alone; where things are, the model then learns from questions about the robot's pictures alone
WORDS = ["caption", "relation", "what category", "what face", "what sum", "what size", "what same colour", "what different", "what es", "what fr",
         "what de", "sums", "translation", "kind of", "color"]
# a plan says names: what the web is asked where the robot is told wishes
NAMES = ["wish", "wish", "wish", "wish", "what at", "what at", "what at", "what category", "what category", "caption", "locate",
         "goal", "goal", "goal category", "where category"]
THOUGHT_STEPS = 600


def runs(c, seeds):
    """every run of the study, in order: name -> (settings that differ from the preset, tables to measure)"""
    found = {}
    part = {1: "", .5: "-half", .25: "-quarter"}

    def arms(seed, size, shares=(1,), only=("cofine", "fine", "scratch")):
        narrow = dict(vit_embd=c.vit_embd // 2, n_embd=c.n_embd // 2) if size == "small" else {}
        base = {**narrow, "seed": seed}
        web = f"{size}/cofine/{seed}/web.pt"
        for share in shares:
            steps, robot = round(c.steps * share), round(c.steps * c.robot_fraction * share)
            start = {} if share == 1 else {"init_from": web}
            every = {"cofine": {**base, **start, "steps": steps}, "fine": {**base, "init_from": web, "robot_fraction": 1.0, "steps": robot},
                     "scratch": {**base, "pretrain_steps": 0, "robot_fraction": 1.0, "steps": robot}}
            for arm in only:
                found[f"{size}/{arm}{part[share]}/{seed}"] = every[arm], ("generalisation", "emergent")

    def more(seed):
        start = {"seed": seed, "init_from": f"large/cofine/{seed}/checkpoint.pt", "steps": THOUGHT_STEPS, "thoughts": 0.5, "web_questions": NAMES}
        found[f"large/plan/{seed}"] = start, ("thought",)
        found[f"large/no plan/{seed}"] = {**start, "plans": False}, ("thought",)

    for seed in seeds:
        arms(seed, "large")
        more(seed)
        arms(seed, "small")
        palm = dict(seed=seed, scheme="overwrite", attention="causal", robot_fraction=.66, steps=round(c.steps * c.robot_fraction / .66))
        found[f"large/palm-e/{seed}"] = palm, ("generalisation", "emergent")
        plain = [kind for kind in c.web_questions if not kind.startswith("goal")]
        found[f"large/no place/{seed}"] = dict(seed=seed, points=False, web_questions=plain), ("generalisation", "emergent")
        found[f"large/words/{seed}"] = dict(seed=seed, web_questions=WORDS, easy_steps=0), ("emergent",)
    if 0 in seeds:
        arms(0, "large", (.25, .5))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# running

def arguments(settings):
    """settings as command-line arguments. Example: {"seed": 1, "plans": False} -> ["--seed", "1", "--no-plans"]"""
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words += [f"--{name}" if value else f"--no-{name}"]
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def train_run(config, out, name, settings):
    """trains one run in a process of its own, from its last checkpoint if it was stopped; returns what its log ends with"""
    folder = out / name
    settings = {k: str(out / v) if k == "init_from" else v for k, v in settings.items()}
    c = train.read_config(["--config", config, *arguments(settings)])
    total = c.steps + (0 if c.init_from else c.pretrain_steps)
    state = train.load(folder / "checkpoint.pt") if (folder / "checkpoint.pt").exists() else {"step": 0, "config": vars(c)}
    for key, value in vars(c).items():
        if key not in ("out_dir", "resume", "evaluate") and state["config"][key] != value:
            raise ValueError(f"{folder} was trained with {key} = {state['config'][key]!r}, not {value!r}; move it away, or give another --out_dir")
    if state["step"] < total:
        how = ["--resume"] if state["step"] else ["--config", config, *arguments(settings)]
        process = subprocess.Popen([sys.executable, Path(__file__).parent.parent / "train.py", *how, "--out_dir", str(folder), "--no-evaluate"])
        try:
            if process.wait():
                raise ValueError(f"the training of {name} ended with an error, see above")
        except KeyboardInterrupt:                           # it was told, too: let it save its checkpoint
            process.wait()
            raise
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return {"steps": total, "robot_samples": c.steps * round(c.batch_size * c.robot_fraction),
            **{k: last[k] for k in ("minutes", "samples_per_s", "accuracy", "action") if k in last}}


def web_answers(checkpoint, n):
    """right answers to the web questions behind each emergent line, and to plain names: line -> [right, asked]"""
    policy = Policy(checkpoint)
    c, found = policy.config, {}
    shown = evaluation.data.on_the_web(c["vocabulary"])["names"]
    for line in [None, *(s for s in suites.suites(c) if s.table == "emergent")]:
        pairs = [evaluation.web_accuracy(policy, kind, n, shown, about) for kind, about in (line.questions() if line else [("locate", None)])]
        found[line.name if line else "names"] = np.sum(pairs, 0).tolist()
    return found


def keep(results, path):
    """write beside it, then rename: what was measured is never lost"""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1))
    os.replace(temporary, path)


def study(config, out, path, seeds, trials, only):
    out, config = Path(out).resolve(), str(Path(config).resolve())
    out.mkdir(parents=True, exist_ok=True)
    c = train.read_config(["--config", config])
    settings = {"preset": train.tomllib.loads(Path(config).read_text()), "trials": trials}
    results = json.loads(path.read_text()) if path.exists() else {"settings": settings, "runs": {}, "controls": {}}
    if results["settings"] != settings:
        raise ValueError(f"{path} was measured with other settings; move it away, or give another --results")
    every = runs(c, seeds)
    for start in only:
        if not any(name.startswith(start) for name in every):
            raise ValueError(f"no run begins with {start!r}; with these seeds there are {', '.join(every)}")
    results["device"] = evaluation.device_name(evaluation.pick_device("auto"))
    for name, (changed, tables) in every.items():
        if only and not name.startswith(tuple(only)):
            continue
        run = results["runs"].setdefault(name, {"settings": changed})
        if "training" not in run:
            run["training"] = train_run(config, out, name, changed)
            keep(results, path)
        checkpoint, seed = out / name / "checkpoint.pt", changed["seed"]
        lines = [s for s in suites.suites(vars(c)) if s.table in tables]
        first = evaluation.TRIAL_SEED + 10_000 * seed       # other scenes for every seed, the same for every arm

        def measure(rows, policy, lines, drivers):
            """adds what is not yet in rows, a line at a time"""
            for line in lines:
                if not any((r["table"], r["suite"]) == (line.table, line.name) for r in rows):
                    rows += evaluation.measure(policy, [line], trials, drivers, first)
                    keep(results, path)
        policy = Policy(checkpoint)
        measure(run.setdefault("rows", []), policy, lines, evaluation.DRIVERS[:3 if name.startswith(("large/cofine/", "large/plan/")) else 1])
        if name.startswith("large/cofine/"):
            control, asked = results["controls"].setdefault(str(seed), {}), suites.suites(vars(c))
            measure(control.setdefault("untrained", []), policy, [s for s in asked if s.table == "thought"], ("policy",))
            measure(control.setdefault("drivers", []), policy, asked, ("random", "expert"))
        if "emergent" in tables and "web" not in run:
            run["web"] = web_answers(checkpoint, 100)
            if (out / name / "web.pt").exists():
                run["web before"] = web_answers(out / name / "web.pt", 100)
            keep(results, path)
        if "links" not in run and name.startswith("large/cofine/"):
            run["links"] = where_it_breaks(checkpoint, [s for s in lines if any("move" in t and ":" not in t for t in s.templates) or s.name == "seen"],
                                           first, trials)
            keep(results, path)
        if "plans" not in run and name.startswith("large/plan/"):
            run["plans"] = printed_plans(checkpoint, lines, first, trials)
            keep(results, path)
    return results


def where_it_breaks(checkpoint, lines, first, n):
    """
    One link of the chain from word to arm after the other, in the robot's own picture, once the expert has fetched what is to be moved:
    is b found (where is ...?), is the way to it said (which way is ... from the gripper?), does the action say that it goes there, and are dx and dy
    those of the expert? b is called by its plain name in all of them. line -> {"where", "way", "point", "action": [right, asked]}
    """
    policy, found = Policy(checkpoint, temperature=0), {}
    for line in lines:
        worlds = [w for w in evaluation.make_worlds(policy.config, n, line, first) if w.task.skill == "move near"]
        for w in worlds:
            while not (w.held is w.task.a and w.hand[2] > .09) and w.steps < 20:
                w.step(w._lift() if w.held is w.task.a else w.expert())
        worlds = [w for w in worlds if w.held is w.task.a]
        pictures, facts = [w.observe()["image"] for w in worlds], [{f["name"]: f for f in w.facts()} for w in worlds]
        names = [w.task.b.name for w in worlds]
        if not worlds:
            continue
        where = policy.answer(pictures, [f"Q: where is the {b}? A:" for b in names], 3)
        way = policy.answer(pictures, [f"Q: which way is the {b} from the gripper? A:" for b in names], 3)
        asked = [evaluation.prompt(f"move {w.task.a.name} near {b}") for w, b in zip(worlds, names)]
        moves, wanted = (policy.actions.bins(a)[:, 1:3] for a in (policy.act_batch(pictures, asked), [w.expert() for w in worlds]))
        pointed = policy.pointed or [""] * len(worlds)
        steps = [web._step(f["gripper"], f[b]) for f, b in zip(facts, names)]
        found[line.name] = {"where": [sum(evaluation.agrees(s, web.place(f[b])) for s, f, b in zip(where, facts, names)), len(worlds)],
                            "way": [sum(evaluation.agrees(s, t, 0) for s, t in zip(way, steps)), len(worlds)],
                            "point": [sum(evaluation.agrees(" ".join(s.split()[-2:]), web.place(f[b])) for s, f, b in zip(pointed, facts, names)),
                                      len(worlds) if policy.config["points"] else 0],
                            "action": [int((moves == wanted).all(1).sum()), len(worlds)]}
    return found


def printed_plans(checkpoint, lines, first, n):
    """
    What the model says before it acts, in the first picture of n trials, and two causes of what it says: does it call the thing by its name when
    asked what is there, and does it answer such wishes about web pictures? line -> {"plan", "name", "web": [right, asked], "said": a few
    of [instruction, plan, what was meant]}
    """
    policy, found = Policy(checkpoint, temperature=0), {}
    for line in lines:
        worlds = evaluation.make_worlds(policy.config, n, line, first)
        pictures, facts = [w.observe()["image"] for w in worlds], [{f["name"]: f for f in w.facts()} for w in worlds]
        plans, _ = policy.plan_batch(pictures, [evaluation.wish(w.task.instruction) for w in worlds])
        meant = [w._say(w.task.skill, w.task.a, w.task.b) for w in worlds]
        named = policy.answer(pictures, [f"Q: what is at{web.place(f[w.task.a.name])}? A:" for f, w in zip(facts, worlds)])
        found[line.name] = {"plan": [sum(map(same_plan, plans, meant)), n],
                            "name": [sum(said.strip() == w.task.a.name for said, w in zip(named, worlds)), n],
                            "web": wishes_on_the_web(policy, line.name, n),
                            "said": [[w.task.instruction, p, m] for w, p, m in zip(worlds, plans, meant)][:5]}
    return found


def same_plan(said, meant):
    """Example: same_plan("move apple near red can", "move red can near apple") -> True: together is together"""
    (skill, _, what), (same_skill, _, same_what) = said.partition(" "), meant.partition(" ")
    return skill == same_skill and sorted(what.split(" near ")) == sorted(same_what.split(" near "))


def wishes_on_the_web(policy, line, n):
    """right plans and wishes asked, of the skill and the things of a line, about n web pictures that training has not seen"""
    (skill, whose), c = suites.CHAIN_OF_THOUGHT[line], policy.config
    pictures, wishes, plans = evaluation.web_questions(c, "wish", n, VOCABULARIES[c["vocabulary"]][whose],
                                                       fits=lambda answer: answer.startswith(f" Plan: {skill.split()[0]} "), tries=100)
    tidy = lambda answer: answer.removeprefix(" Plan: ").partition(".")[0]
    said = policy.answer(pictures, wishes, evaluation.PLAN)
    return [sum(same_plan(tidy(s), tidy(p)) for s, p in zip(said, plans)), len(plans)]


# ---------------------------------------------------------------------------------------------------------------------
# tables

ARMS = {"cofine": "co-fine-tuning", "fine": "fine-tuning", "scratch": "from scratch", "palm-e": "co-fine-tuning, PaLM-E-like",
        "no place": "co-fine-tuning, no places before the action", "words": "co-fine-tuning, the web in words only"}


def pooled(results, arm, driver="policy"):
    """the rows of an arm ("large/cofine") with the trials of all seeds added up"""
    found = {name: run for name, run in results["runs"].items() if name.rpartition("/")[0] == arm and "rows" in run}
    return pool([r for run in found.values() for r in run["rows"] if r["policy"] == driver])


def pool(rows):
    added = {}
    for r in rows:
        kept = added.setdefault(r["suite"], {**r, "success": 0, "n": 0, "right first": 0, "causes": {}})
        for k in ("success", "n", "right first"):
            kept[k] += r[k]
        for why, n in r["causes"].items():
            kept["causes"][why] = kept["causes"].get(why, 0) + n
    return [{**r, "interval": wilson(r["success"], r["n"])} for r in added.values()]


def average(rows, table):
    """
    mean of a table's groups (but "seen") as the paper takes it, and its 95 % interval: from the binomial errors of the lines, each of (k + 2) /
    (n + 4), which is never 0. They count the trials of these models, not that other seeds make other models
    """
    rows = [r for r in rows if r["table"] == table and r["group"] != "seen"]
    if not rows:
        return None
    groups = {g: [r for r in rows if r["group"] == g] for g in dict.fromkeys(r["group"] for r in rows)}
    error = math.sqrt(sum(((r["success"] + 2) / (r["n"] + 4)) * (1 - (r["success"] + 2) / (r["n"] + 4)) / (r["n"] + 4) / (len(g) * len(groups)) ** 2
                          for g in groups.values() for r in g))
    mean = mean_of_groups(rows)
    return mean, (max(0, mean - 1.96 * error), min(1, mean + 1.96 * error))


def cell(mean, interval):
    """Example: cell(.9, (.85, .934)) -> "90 [85, 93]" """
    return f"{100 * mean:.0f} [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def percent(k, n):
    return f"{100 * k / n:.0f}" if n else "-"


def rate(row):
    return cell(row["success"] / row["n"], row["interval"]) if row and row["n"] else "-"


def markdown(head, rows):
    return "\n".join(["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows]])


def tables(results):
    """name -> markdown; what is not measured yet says so"""
    runs_, none = results["runs"], "not yet run"
    controls = {d: pool([r for c in results["controls"].values() for r in c.get("drivers", ()) if r["policy"] == d]) for d in ("random", "expert")}
    controls["untrained"] = pool([r for c in results["controls"].values() for r in c.get("untrained", ())])
    arms = [(size, arm) for size in ("large", "small") for arm in ARMS if size == "large" or arm in ("cofine", "fine", "scratch")]
    of = {f"{size}/{arm}": pooled(results, f"{size}/{arm}") for size, arm in arms}
    for control in ("blank instruction", "swapped instruction"):
        of[control] = pooled(results, "large/cofine", control)
    of.update({d: controls[d] for d in ("random", "expert")})

    def lines(table, columns):
        """a row for each line of a table, a column for each of `columns`"""
        every = [r for rows in of.values() for r in rows if r["table"] == table]
        found = []
        for line in dict.fromkeys(r["suite"] for r in every):
            found.append([line, *(rate(next((r for r in of[c] if r["suite"] == line), None)) for c in columns)])
        return found

    def mean(arm, table):
        a = average(of[arm], table)
        return cell(*a) if a else none

    main = ["large/cofine", "large/fine", "large/scratch", "blank instruction", "swapped instruction", "random", "expert"]
    names = ["co-fine", "fine", "scratch", "blank", "swapped", "random", "expert"]
    out = {"generalisation": markdown(["", *names], [*lines("generalisation", main), ["**unseen, average**", *(mean(a, "generalisation") for a in main)]])}

    def web(arm, line, key="web"):
        pairs = [run[key][line] for name, run in runs_.items() if name.rpartition("/")[0] == arm and key in run and line in run[key]]
        return percent(*np.sum(pairs, 0)) if pairs else "-"
    rows = [[*row, web("large/cofine", row[0])] for row in lines("emergent", main)]
    out["emergent"] = markdown(["", *names, "asked on the web"],
                               [*rows, ["**average of the three groups**", *(mean(a, "emergent") for a in main), ""]])

    def web_mean(arm, key):
        lines_ = [line for group in suites.EMERGENT.values() for line in group]
        values = [float(v) for v in (web(arm, line, key) for line in lines_) if v != "-"]
        return f"{np.mean(values):.0f}" if values else "-"

    def by_seed(arm, table):
        values = [mean_of_groups([r for r in run["rows"] if r["table"] == table and r["policy"] == "policy"])
                  for name, run in runs_.items() if name.rpartition("/")[0] == arm and "rows" in run]
        return " / ".join(f"{100 * v:.0f}" for v in values if not math.isnan(v))
    rows = []
    for size, arm in arms:
        key = f"{size}/{arm}"
        seen = next((r for r in of[key] if r["suite"] == "seen"), None)
        before = web_mean(f"{size}/cofine", "web before") if arm in ("cofine", "fine") else web_mean(key, "web before")
        rows.append([f"{size}, {ARMS[arm]}", rate(seen), mean(key, "generalisation") if seen or not of[key] else "-", mean(key, "emergent"),
                     by_seed(key, "emergent"), before, web_mean(key, "web")])
    out["arms"] = markdown(["model, arm", "seen", "unseen, average", "emergent, average", "by seed", "web before", "web after"], rows)
    links = [(name.rpartition("/")[0], run["links"]) for name, run in runs_.items() if "links" in run]
    rows = []
    for line in dict.fromkeys(line for _, found in links for line in found):
        added = [np.sum([found[line][k] for _, found in links if line in found], 0) for k in ("where", "way", "point", "action")]
        rows.append([line, *(percent(*pair) for pair in added), str(added[0][1])])
    out["links"] = markdown(["", "where is it?", "which way from the gripper?", "where the action says it goes", "dx, dy of the action", "n"], rows)
    of.update(plan=pooled(results, "large/plan"), none=pooled(results, "large/no plan"), untrained=controls["untrained"],
              blank=pooled(results, "large/plan", "blank instruction"), swapped=pooled(results, "large/plan", "swapped instruction"))
    columns = ["plan", "none", "untrained", "blank", "swapped", "random", "expert"]
    plans = [run["plans"] for run in runs_.values() if "plans" in run]
    rows = []
    for row in lines("thought", columns):
        added = [np.sum([found[row[0]][k] for found in plans], 0) for k in ("plan", "web", "name")] if plans else []
        rows.append([*row, *([percent(*pair) for pair in added] or "---")])
    out["thought"] = markdown(["", "with a plan", "without", "never trained on wishes", *columns[3:], "plan right", "on the web", "named"],
                              rows or [[none, *"----------"]])
    whys = [why for why, _ in sum((Counter(r["causes"]) for r in of["large/cofine"]), Counter()).most_common()]
    out["causes"] = markdown(["large, co-fine-tuning", "trials", *whys],
                             [[r["suite"], str(r["n"]), *(str(r["causes"].get(w, 0)) for w in whys)] for r in of["large/cofine"]])
    return out


# ---------------------------------------------------------------------------------------------------------------------
# figures, as SVG: text that a browser draws

COLOURS = {"co-fine-tuning": "#2f6db5", "fine-tuning": "#e08a2e", "from scratch": "#9a9a9a"}


def frame(width, height, body, title):
    """a canvas with a vertical axis in % on the left; the plot is the area from (50, 40) to (width - 10, height - 60)"""
    grid = "".join(f'<line x1="50" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#ddd"/><text x="44" y="{y + 4}" text-anchor="end">{v}</text>'
                   for v in range(0, 101, 25) for y in [height - 60 - v / 100 * (height - 100)])
    legend = "".join(f'<rect x="{60 + 150 * i}" y="24" width="10" height="10" fill="{c}"/><text x="{75 + 150 * i}" y="33">{name}</text>'
                     for i, (name, c) in enumerate(COLOURS.items()))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
            f'<rect width="{width}" height="{height}" fill="white"/><text x="50" y="15" font-size="13">{title}</text>{legend}{grid}{body}</svg>\n')


def arms_figure(results):
    """success of each arm in each column of Table 4 and group of Table 5, with 95 % intervals"""
    of = {ARMS[arm]: pooled(results, f"large/{arm}") for arm in ("cofine", "fine", "scratch")}
    first = next(iter(of.values()))
    places = [("generalisation", r["suite"], lambda row, name=r["suite"]: row["suite"] == name) for r in first if r["table"] == "generalisation"]
    places += [("emergent", g, lambda row, g=g: row["group"] == g) for g in dict.fromkeys(r["group"] for r in first if r["table"] == "emergent")]
    width, height, step, body = 60 + 92 * len(places), 320, 92, ""
    for i, (table, name, test) in enumerate(places):
        for k, (arm, rows) in enumerate(of.items()):
            rows = [r for r in rows if r["table"] == table and test(r)]
            if rows:
                won, n = sum(r["success"] for r in rows), sum(r["n"] for r in rows)
                x, up = 58 + i * step + 26 * k, lambda v: height - 60 - v * (height - 100)
                low, high = wilson(won, n)
                body += (f'<rect x="{x}" y="{up(won / n):.1f}" width="24" height="{height - 60 - up(won / n):.1f}" fill="{COLOURS[arm]}"/>'
                         f'<line x1="{x + 12}" x2="{x + 12}" y1="{up(low):.1f}" y2="{up(high):.1f}" stroke="black"/>')
        above, _, below = name.partition(", ")
        body += "".join(f'<text x="{97 + i * step}" y="{height - 42 + 14 * k}" text-anchor="middle">{words}</text>' for k, words in enumerate((above, below)))
    return frame(width, height, body, "success in closed loop, %")


def samples_figure(results):
    """emergent success against the robot samples that the arm was trained on; nothing where no arm was trained on a part of them"""
    body, width, height, points = "", 460, 320, {}
    for name, run in results["runs"].items():
        size, arm, seed = name.split("/")
        arm = arm.partition("-")[0]
        if "rows" in run and not any(r["table"] == "emergent" for r in run["rows"]):
            continue
        if size == "large" and arm in ("cofine", "fine", "scratch") and seed == "0" and "rows" in run:
            a = average(pool([r for r in run["rows"] if r["policy"] == "policy"]), "emergent")
            points.setdefault(ARMS[arm], []).append((run["training"]["robot_samples"], *a))
    if all(len(found) < 2 for found in points.values()):
        return ""
    most = max(x for p in points.values() for x, *_ in p)
    place = lambda x, v: (50 + x / most * (width - 90), height - 60 - v * (height - 100))
    for arm, found in points.items():
        at = [place(x, mean) for x, mean, _ in sorted(found)]
        body += f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}" fill="none" stroke="{COLOURS[arm]}" stroke-width="2"/>'
        for x, mean, (low, high) in sorted(found):
            (px, py), (_, a), (_, b) = place(x, mean), place(x, low), place(x, high)
            body += (f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{COLOURS[arm]}"/>'
                     f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{a:.1f}" y2="{b:.1f}" stroke="{COLOURS[arm]}"/>')
    for x in sorted({x for p in points.values() for x, *_ in p}):
        body += f'<text x="{place(x, 0)[0]:.1f}" y="{height - 42}" text-anchor="middle">{x:,}</text>'
    return frame(width, height, body + f'<text x="{width / 2}" y="{height - 22}" text-anchor="middle">robot samples</text>',
                 "emergent skills, average, % (seed 0)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/study.toml")
    parser.add_argument("--out_dir", default="out/study", help="folder of the runs")
    parser.add_argument("--results", default="", help="the file with all numbers (out_dir/results.json; to show: study/results.json, which the README has)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=70, help="for a line and seed; the tables add up the seeds (3 x 70 = 210)")
    parser.add_argument("--only", nargs="+", default=(), metavar="RUN", help='runs whose names begin so: "large/cofine", "small" ...')
    parser.add_argument("--tables", action="store_true", help="print the tables of a results file and do nothing else")
    parser.add_argument("--figures", action="store_true", help="draw study/arms.svg and study/samples.svg and do nothing else")
    args = parser.parse_args()
    path = Path(args.results or (RESULTS if args.tables or args.figures else Path(args.out_dir) / "results.json"))
    try:
        if not (args.tables or args.figures):
            study(args.config, args.out_dir, path, args.seeds, args.trials, args.only)
        results = json.loads(path.read_text())
        if args.figures:
            folder = Path(__file__).parent
            (folder / "arms.svg").write_text(arms_figure(results))
            if samples := samples_figure(results):
                (folder / "samples.svg").write_text(samples)
            else:
                print("study/samples.svg needs runs with a part of the samples: --only large/cofine- large/fine- large/scratch-")
        else:
            print("\n\n".join(f"{name}\n\n{text}" for name, text in tables(results).items()))
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


if __name__ == "__main__":
    main()
