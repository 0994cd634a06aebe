"""
The policy, and how good it is.

    python eval.py --checkpoint out/checkpoint.pt            # the table, pictures of rollouts, results.json
    python eval.py --checkpoint out/checkpoint.pt --json     # the numbers alone, for other programs
    python eval.py --checkpoint out/study/large/cofine/0/checkpoint.pt --suite emergent      # one of the paper's tables (suites.py)

    policy = Policy("out/checkpoint.pt")                     # the one door to any simulator or robot
    policy.reset()
    action = policy.act(image, "pick apple")                 # (8,) float: terminate, dx .. dyaw, gripper
"""
import argparse
import json
import math
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

import data
import train
from model import VLA, ModelConfig
from ranks import pick_device
from study.suites import EMERGENT, GENERALISATION, Suite, suites
from tokenizer import ACTION, ActionTokenizer, Tokenizer, plan, prompt, wish
from world import draw, web
from world.scene import ACTION_HIGH, ACTION_LOW, INSTRUCTIONS, KINDS, VOCABULARIES, World

BLANK = "Q: what action should the robot take? A:"
PLAN = 16                                                   # most tokens of a plan
TRIAL_SEED, WEB_SEED = 1_000_000, 2_000_000                 # scenes and pictures that no training run has seen


# ---------------------------------------------------------------------------------------------------------------------

class Policy:
    """
    A trained model as a controller. It has no memory but, with frames = 2, the picture before (RT-2 has none either). Actions are
    drawn from the model's distribution, sharpened by temperature (the paper does not say how it does): a policy that always takes
    the likeliest action and finds that it changes nothing would do so for ever. reset() begins an episode, and the draws anew.

    robot: whose numbers the actions are, by its name under [[robot]]; needed where a model was trained on several.
    """

    def __init__(self, checkpoint, device="auto", dtype="float32", temperature=0.5, seed=0, robot=None):
        self.device = pick_device(device)
        state = train.load(checkpoint)
        self.config, self.tokenizer = state["config"], Tokenizer.from_state(state["tokenizer"])
        names = list(state["robots"])
        if robot is None and len(names) > 1:
            raise ValueError(f"{checkpoint} has learnt to act for several robots; say which: robot = one of {', '.join(names)}")
        self.robot = robot or (names[0] if names else None)
        if self.robot not in names:
            raise ValueError(f"{checkpoint} has no robot {self.robot!r}; it has learnt to act for: {', '.join(names) or 'none'}")
        self.actions = ActionTokenizer.from_state(state["robots"][self.robot], self.tokenizer)
        self.model = VLA(ModelConfig(**state["model_config"])).to(self.device).eval()
        self.model.load_state_dict(state["model"])
        self.allowed = torch.from_numpy(self.actions.allowed).to(self.device)
        self.n_place, self.pointed = 4 * self.config.get("points", False), []
        if self.n_place:                                    # two places in the picture come first, in the words of web.place
            place = torch.zeros_like(self.allowed[:self.n_place])
            place[:, self.tokenizer.integers[:web.GRID]] = True
            self.allowed = torch.cat((place, self.allowed))
        self.dtype, self.cache, self.temperature, self.seed = dtype, True, temperature, seed
        self.generator = torch.Generator(self.device)
        self.reset()

    def reset(self):
        self.generator.manual_seed(self.seed)
        self.seen = []

    def act(self, image, instruction: str, thinks=False):
        """
        image (H, W, 3) uint8 of any size, instruction -> action (D,) float32 in the units of the robot's log, terminate first;
        the world's are metres, radians and 0..1. thinks: the instruction is a wish, and the model was trained on such (thoughts)
        """
        self.seen = self.remember(self.seen, image)
        return self.act_batch([self.seen], [(wish if thinks else prompt)(instruction)])[0]

    def remember(self, seen, image):
        """the pictures of an episode that the model is shown, with the newest added: a list of as many as it takes"""
        return (seen or [image] * self.model.config.frames)[1:] + [image]

    def act_batch(self, images, prompts):
        """B pictures, or lists of as many as the model takes, and B prompts -> actions (B, D)"""
        if not any(p.startswith(wish("")[:-1]) for p in prompts):
            return self._decode(self._generate(images, prompts, len(self.allowed), self.allowed, temperature=self.temperature))
        return self.plan_batch(images, prompts)[1]

    def _decode(self, ids):
        """
        ids (B, n_place + D) -> actions (B, D); pointed: the two places that are meant, "column row column row" as web.place says them,
        B texts, or none
        """
        self.pointed = [self.tokenizer.decode(row[:self.n_place]) for row in ids] if self.n_place else []
        return self.actions.decode(ids[:, self.n_place:])

    def plan_batch(self, images, wishes):
        """B pictures and B prompts of tokenizer.wish -> B plans, "" where the model makes none, and their actions"""
        opening = torch.tensor(self.tokenizer.encode(ACTION), device=self.device)
        n, D = len(opening), len(self.allowed)               # D: with the places before the action

        def allowed(said):
            """any words, until they are " Action:", which must come after PLAN tokens; then places, if it says any, and one action"""
            (B, t), may = said.shape, torch.ones(len(said), self.model.config.n_vocab, dtype=torch.bool, device=said.device)
            slot = self._after(said, opening)
            may[:, self.tokenizer.eos] = False
            if t >= PLAN:                                   # enough words
                may[slot < 0] = torch.arange(may.size(1), device=said.device) == opening[min(t - PLAN, n - 1)]
            rest = torch.cat((self.allowed, self.allowed.new_zeros(1, may.size(1))))
            rest[D, self.tokenizer.eos] = True
            may[slot >= 0] = rest[slot[slot >= 0].clamp(max=D)]
            return may
        ids = torch.from_numpy(self._generate(images, wishes, PLAN + n + D, allowed, self.tokenizer.eos, self.temperature)).to(self.device)
        start = ids.size(1) - self._after(ids, opening)      # of the action's tokens, in each row
        actions = torch.gather(ids, 1, start[:, None] + torch.arange(D, device=ids.device))
        words = [self.tokenizer.decode(row[:i - n].tolist()).removeprefix(plan("?").split("?")[0]).strip(" .") for row, i in zip(ids, start.tolist())]
        return words, self._decode(actions.cpu().numpy())

    @staticmethod
    def _after(said, opening):
        """said (B, t) -> how many tokens came after the first `opening` in each row, -1 where it has not been said: (B,)"""
        (B, t), n = said.shape, len(opening)
        if t < n:
            return torch.full((B,), -1, device=said.device)
        found = (said.unfold(1, n, 1) == opening).all(-1)                                   # (B, t - n + 1)
        return torch.where(found.any(1), t - n - found.int().argmax(1), -1)

    def answer(self, images, questions, n_new=8):
        """B images, B questions "Q: ... A:" -> B strings of at most n_new tokens"""
        ids = self._generate(images, questions, n_new, eos=self.tokenizer.eos)
        return [self.tokenizer.decode(row[row != self.tokenizer.eos]) for row in ids]

    def _generate(self, images, prompts, n_new, allowed=None, eos=None, temperature=0.0):
        c = self.model.config
        images = [image if isinstance(image, list) else [image] * c.frames for image in images]
        images = np.stack([data.stack([data.fit(np.asarray(picture), c.image_size) for picture in pictures]) for pictures in images])
        ids = [self.tokenizer.encode(p) for p in prompts]
        with train.autocast(self.device, self.dtype):
            said = self.model.generate(torch.from_numpy(images).to(self.device), ids, n_new, allowed, eos, self.cache, temperature,
                                       self.generator)
        return said.cpu().numpy()


# ---------------------------------------------------------------------------------------------------------------------
# closed loop

def rollouts(worlds, act, frames=None):
    """
    Step all worlds, already reset, to their ends; act(worlds, pictures) of those still going -> (n, 8). Returns a dict for
    each: success, terminated, held, steps. frames: a list for each world that collects pictures (224, 224, 3) to show.
    """
    results, pictures = [None] * len(worlds), [w.observe()["image"] for w in worlds]
    while going := [i for i, result in enumerate(results) if result is None]:
        for i, action in zip(going, act([worlds[i] for i in going], [pictures[i] for i in going])):
            if frames is not None:
                frames[i].append(worlds[i].render(224))
            obs, reward, terminated, truncated, info = worlds[i].step(action)
            pictures[i] = obs["image"]
            if terminated or truncated:
                results[i] = {**info, "success": bool(reward), "terminated": terminated}
    return results


# what may drive the hand: (worlds, pictures) -> actions

def follow(policy, words=lambda world: prompt(world.task.instruction), pointed=None):
    """pointed: a dict that keeps the places that the policy last said in each world, id(world) -> "column row column row" """
    seen = {}

    def act(worlds, pictures):
        seen.update({id(w): policy.remember(seen.get(id(w)), picture) for w, picture in zip(worlds, pictures)})
        actions = policy.act_batch([seen[id(w)] for w in worlds], [words(w) for w in worlds])
        if pointed is not None:
            pointed.update({id(w): said for w, said in zip(worlds, policy.pointed)})
        return actions
    return act


def expert(worlds, pictures):
    return [w.expert() for w in worlds]


def random_actions(worlds, pictures):
    """uniform in the eight numbers, and stops with 5 %; drawn from each world's own generator"""
    actions = [w.rng.uniform(ACTION_LOW, ACTION_HIGH) for w in worlds]
    return [np.array([float(a[0] < .05), *a[1:]]) for a in actions]


def swapped(world):
    """an instruction that the scene allows, too, but that asks for something else; None if there is no such thing"""
    task = world.task
    if task.skill in ("open", "close"):
        return prompt(INSTRUCTIONS["close" if task.skill == "open" else "open"])
    other = next((t for t in world.things if t not in (task.a, task.b) and t.noun in KINDS), None)
    b = "the drawer" if task.b == "drawer" else getattr(task.b, "name", "")
    return other and prompt(INSTRUCTIONS[task.skill].format(a=other.name, b=b))


def basic(config):
    """the table that ends every training run: each skill, and picking what only the web names"""
    lines = [Suite("basic", "seen", f"seen: {skill}", skills=(skill,)) for skill in config["skills"]]
    return lines + [Suite("basic", "unseen", "only the web names it: pick", skills=("pick",), targets="web")] * ("pick" in config["skills"])


def make_worlds(config, n, suite, seed=TRIAL_SEED, draws=True):
    """n trials of a suite: worlds reset to the seeds from seed on. draws=False: physics alone, for drivers that do not look"""
    worlds = []
    for i in range(seed, seed + n):
        style, camera, how = suite.trial(i, config)
        worlds.append(World(config["vocabulary"], config["skills"], config["image_size"] if draws else 0, style, camera))
        worlds[-1].reset(i, **how)
    return worlds


def wilson(k, n, z=1.96):
    """the Wilson 95 % interval of a rate. Example: wilson(180, 200) -> (0.850, 0.934)"""
    if n == 0:
        return 0.0, 1.0
    p, d = k / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (p + z * z / (2 * n) - half) / d), min(1.0, (p + z * z / (2 * n) + half) / d)


def cause(world, result):
    """why a trial failed, in two or three words"""
    task, taken = world.task, world.taken[-1] if world.taken else None
    if result["success"]:
        return "success"
    if not result["terminated"]:
        return "never stopped"
    if taken is not None and task.a is not None and taken not in world.movers:
        return "wrong thing"
    if task.skill == "move near" and taken is not None and world.held is None:
        return "wrong place"
    if taken is not None and (task.skill == "pick") == (world.held is None):
        return "wrong skill"                                # put down what was to be held, or the other way round
    return "target missed" if taken is None else "stopped too early"


def web_questions(c, kind, n, names, about=None, fits=lambda answer: True, tries=20):
    """
    n pictures that training has not seen, a question of one kind about each, and its answer: three lists, shorter where not one of `tries`
    pictures allows it. about: only of things of this category, or of people ("hair"); fits(answer): only those.
    """
    rng = np.random.default_rng(WEB_SEED)
    shown = {**data.on_the_web(c["vocabulary"]), "names": names}
    pictures, questions, answers = [], [], []
    for i in range(tries * n):
        picture, facts = web.draw_picture(np.random.default_rng([WEB_SEED, i]), c["image_size"], **shown)
        if about:
            facts = [f for f in facts if ("hair" if "face" in f else f["category"]) == about]
        question = web.ask(facts, kind, rng)
        if question and fits(question[1]):
            pictures.append(picture), questions.append(question[0]), answers.append(question[1])
        if len(pictures) == n or i > 100 and not pictures:
            break
    return pictures, questions, answers


def web_accuracy(policy, kind, n, names, about=None):
    """
    Right answers and answers asked for, of the questions of web_questions. A position counts when it is at most 2 of 32 cells off; everything
    else must be said exactly. (0, 0) if no picture allows the question.
    """
    pictures, questions, answers = web_questions(policy.config, kind, n, names, about)
    if not pictures:
        return 0, 0
    longest = 1 + max(len(policy.tokenizer.encode(answer)) for answer in answers)
    said = policy.answer(pictures, questions, longest)
    return sum(agrees(s, a, 0 if kind.startswith("way") else 2) for s, a in zip(said, answers)), len(answers)


def agrees(said, answer, tolerance=2):
    """Example: agrees(" 12 21", " 12 20") -> True; agrees(" apple", " orange") -> False"""
    a, b = said.split(), answer.split()
    if len(a) == len(b) > 1 and all(w.isdigit() for w in a + b):
        return max(abs(int(x) - int(y)) for x, y in zip(a, b)) <= tolerance
    return a == b


# ---------------------------------------------------------------------------------------------------------------------
# robot logs: no loop to close, but episodes that were not trained on

def offline(policy, log, table, most=2000, quiet=False):
    """
    How far the policy's actions are from those of held-out episodes of a log (about `most` steps at most), beside what is right
    without any learning: the mean action of the training episodes, the action of the step before (which the policy is not told),
    and the action of the training step whose picture is nearest in pixels (16 x 16).

    Returns a dict; "drivers" has for each of them: "l1" by number, in the log's units; "scaled", the mean over the numbers but
    terminate of L1 / (width of its bounds), with a 95 % "interval" from resampling episodes; "less", the policy's median action
    (of 16 draws) minus it, paired by episode; "right", the share of its tokens that are the log's.
    """
    c, actions, rng = policy.model.config, policy.actions, np.random.default_rng(0)
    known, test = (data.RobotData(log, actions, text_len=c.max_text, size=c.image_size, frames=c.frames,
                                  hold_out=table.get("hold_out", 21), held_out=h) for h in (False, True))
    index, basis = test.index, rng.permutation(known.index)[:20_000]
    if len(index) > most:                                   # whole episodes, by chance
        order = np.random.default_rng(1).permutation(np.unique(log.episode[index]))
        index = index[np.isin(log.episode[index], order[:max(2, len(order) * most // len(index))])]
    moves = np.array([name != "terminate" for name in actions.names])
    truth, episode = np.asarray(log.actions)[index], np.asarray(log.episode)[index]                  # (n, D), (n,)

    def follow(words, temperature):
        kept, policy.temperature = policy.temperature, temperature
        rows = [policy.act_batch([shown[i] for i in part], [words(i) for i in part])
                for part in np.array_split(index, -(-len(index) // 64))]
        policy.temperature = kept
        bar.update()
        return np.concatenate(rows)

    def middle(words, n=16):                                # of n draws, number by number: what the model knows, without its noise
        policy.reset()
        rows = np.median([follow(words, 1.0) for _ in range(n)], axis=0)
        rows[:, ~moves] = rows[:, ~moves].round()
        return rows

    def asked(i):
        return prompt(log.instruction(i))

    def look(i):
        return data.fit(log.picture(i), 16).astype(np.float32).ravel()
    mean = np.where(moves, np.asarray(log.actions)[known.index].mean(0), 0)
    seen = np.stack([look(i) for i in basis])
    nearest = [basis[((seen - look(i)) ** 2).sum(1).argmin()] for i in index]
    before = [np.asarray(log.actions[log.previous(i)]) if log.previous(i) != i else mean for i in index]
    shown = {i: [data.fit(picture, c.image_size) for picture in test.pictures(i)] for i in index}
    bar = tqdm(total=34, desc=f"held-out episodes of {policy.robot}", unit="pass", disable=quiet)
    policy.reset()
    said = {"policy": follow(asked, policy.temperature), "its likeliest action": follow(asked, 0.0),
            "its median action": middle(asked), "the same, blank instruction": middle(lambda i: BLANK),
            "mean action": np.tile(mean, (len(index), 1)), "action of the step before": np.stack(before), "nearest picture's action": np.asarray(log.actions)[nearest]}

    bar.close()
    draws = rng.integers(len(np.unique(episode)), size=(2000, len(np.unique(episode))))

    def interval(error):                                    # of a mean over steps, when episodes are drawn anew
        parts = [error[episode == e] for e in np.unique(episode)]
        sums, sizes = np.array([p.sum() for p in parts]), np.array([len(p) for p in parts])
        return np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), (.025, .975)).tolist()
    scaled = {who: (np.abs(a - truth) / (actions.high - actions.low))[:, moves].mean(1) for who, a in said.items()}      # (n,)
    drivers = {}
    for who, a in said.items():
        right = actions.encode(a, quiet=True) == actions.encode(truth, quiet=True)
        drivers[who] = {"l1": dict(zip(actions.names, np.abs(a - truth).mean(0).tolist())), "scaled": float(scaled[who].mean()),
                        "interval": interval(scaled[who]), "less": interval(scaled["its median action"] - scaled[who]),
                        "right": float(right[:, moves].mean())}
    inside = truth.clip(actions.low, actions.high)
    off = np.abs(actions.decode(actions.encode(truth, quiet=True)) - inside) / (actions.high - actions.low) * actions.bins_of
    return {"robot": policy.robot, "episodes": len(np.unique(episode)), "steps": len(index), "drivers": drivers,
            "replay": {"most_bins_off": float(off.max()), "clipped": float((inside != truth).mean())}}


def offline_table(o):
    """the numbers of offline() as text"""
    numbers = list(next(iter(o["drivers"].values()))["l1"])
    lines = [f"{o['robot']}: {o['episodes']} held-out episodes, {o['steps']} steps; mean distance from the logged action, in the log's "
             "units; all = mean share of the bounds' width, 95 % interval over episodes; less = median action minus this, paired",
             f"{'':28}" + "".join(f"{n:>10}" for n in numbers) + f"{'all':>24}{'less':>20}{'tokens right':>14}"]
    for who, d in o["drivers"].items():
        low, high, less = *d["interval"], d["less"]
        lines.append(f"{who:28}" + "".join(f"{d['l1'][n]:10.4f}" for n in numbers) + f"{d['scaled']:8.4f} [{low:.4f}, {high:.4f}]"
                     f"  [{less[0]:+.4f}, {less[1]:+.4f}]{100 * d['right']:11.0f} %")
    lines.append(f"replay: logged actions, encoded and decoded, are at most {o['replay']['most_bins_off']:.2f} bins off; "
                 f"{100 * o['replay']['clipped']:.1f} % of the numbers are outside the bounds (1st to 99th percentile): clipped")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# the table

DRIVERS = ("policy", "blank instruction", "swapped instruction", "random", "expert")


def asked(suite, thinks):
    """how the instruction of a trial is put to the model: as a wish if it takes a thought and the model was trained on such"""
    return lambda world: (wish if suite.table == "thought" and thinks else prompt)(world.task.instruction)


def measure(policy, lines, trials=200, drivers=DRIVERS, first_seed=TRIAL_SEED, quiet=False):
    """
    Closed loop: for each line (a suites.Suite) and driver a dict {"table", "group", "suite", "policy", "success", "n", "interval",
    "first_seed", "causes": how the trials ended, "right first": in how many the first thing taken was the one that was meant}
    """
    c, rows = policy.config, []
    bar = tqdm(total=len(lines) * len(drivers), desc="rollouts", disable=quiet)
    for line in lines:
        acts = {"policy": follow(policy, asked(line, c.get("thoughts"))), "blank instruction": follow(policy, lambda world: BLANK),
                "swapped instruction": follow(policy, swapped), "random": random_actions, "expert": expert}
        for name in drivers:
            worlds = make_worlds(c, trials, line, first_seed, draws=name not in ("random", "expert"))
            if name == "swapped instruction":
                worlds = [w for w in worlds if swapped(w)]
            policy.reset()
            results = rollouts(worlds, acts[name])
            whys = [cause(w, r) for w, r in zip(worlds, results)]
            k, n = sum(r["success"] for r in results), len(results)
            rows.append({"table": line.table, "group": line.group, "suite": line.name, "policy": name, "success": k, "n": n,
                         "interval": wilson(k, n), "first_seed": first_seed,
                         "causes": {why: whys.count(why) for why in sorted(set(whys))},
                         "right first": sum(bool(w.taken) and w.taken[0] in w.movers for w in worlds)})
            bar.update()
    bar.close()
    return rows


def evaluate(policy, trials=200, quiet=False):
    """all numbers as a dict: closed loop by skill and control, web questions by kind, latency"""
    c, answers = policy.config, []
    rows = measure(policy, basic(c), trials, quiet=quiet)
    for kind in dict.fromkeys(c["web_questions"] if any(source["format"] == "world" for source in c["web"]) else ()):
        for who in ("robot", "web"):
            k, n = web_accuracy(policy, kind, trials, VOCABULARIES[c["vocabulary"]][who])
            if n:
                answers.append({"kind": kind, "things": who, "right": k, "n": n, "interval": wilson(k, n)})
    return {"rows": rows, "web": answers, "latency": latency(policy), "config": c}


def latency(policy, n=20):
    """actions a second at batch 1, picture in, eight numbers out, with and without the KV cache"""
    image, times = np.zeros((policy.model.config.image_size,) * 2 + (3,), np.uint8), {}
    for name, cache in (("cached", True), ("uncached", False)):
        policy.cache = cache
        policy.act(image, "pick apple")
        begin = time.perf_counter()
        for _ in range(n):
            policy.act(image, "pick apple")
        times[name] = n / (time.perf_counter() - begin)
    policy.cache = True
    return {"actions_per_s": times, "device": device_name(policy.device)}


def device_name(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def percent(k, n, interval):
    """Example: percent(180, 200, wilson(180, 200)) -> " 90 % [ 85,  93]" """
    return f"{100 * k / n:3.0f} % [{100 * interval[0]:3.0f}, {100 * interval[1]:3.0f}]" if n else "no such trial"


def table(results):
    """the numbers as text"""
    rows = results["rows"]
    drivers, lines = list(dict.fromkeys(r["policy"] for r in rows)), []
    lines.append(f"closed loop, success in {rows[0]['n']} trials (seeds from {rows[0]['first_seed']}), Wilson 95 % interval;")
    lines.append("the swapped instruction asks for something else in the same scene, where there is such a thing")
    lines.append(f"{'':30}" + "".join(f"{d:>22}" for d in drivers))
    for suite in dict.fromkeys(r["suite"] for r in rows):
        cells = {r["policy"]: percent(r["success"], r["n"], r["interval"]) for r in rows if r["suite"] == suite}
        lines.append(f"{suite:30}" + "".join(f"{cells[d]:>22}" for d in drivers))
    whole = {"generalisation": set(GENERALISATION), "emergent": {line for group in EMERGENT.values() for line in group}}
    for title in [t for t, names in whole.items() if names == {r["suite"] for r in rows if r["table"] == t}]:
        means = {d: mean_of_groups([r for r in rows if r["table"] == title and r["policy"] == d]) for d in drivers}
        name = "unseen, average" if title == "generalisation" else "emergent, average of groups"
        lines.append(f"{name:30}" + "".join(f"{100 * means[d]:20.0f} %" for d in drivers))
    lines += ["", "how the policy's trials ended"]
    for r in rows:
        if r["policy"] == "policy":
            lines.append(f"{r['suite']:30}" + ", ".join(f"{why} {n}" for why, n in r["causes"].items()))
    if results.get("web"):
        lines += ["", "web questions, unseen pictures; a position counts when it is at most 2 of 32 cells off"]
    for a in results.get("web", ()):
        cell = percent(a["right"], a["n"], a["interval"])
        lines.append(f"{a['kind'] + ', things of the ' + a['things']:30}{cell:>22}  n = {a['n']}")
    if "latency" in results:
        actions = ", ".join(f"{name} {per_s:.0f}" for name, per_s in results["latency"]["actions_per_s"].items())
        lines += ["", f"actions a second, batch 1 ({results['latency']['device']}): {actions}"]
    return "\n".join(lines)


def mean_of_groups(rows):
    """as the paper averages: the mean of the lines of a group, then of the groups but "seen" """
    groups = [g for g in dict.fromkeys(r["group"] for r in rows) if g != "seen"]
    means = [np.mean([r["success"] / r["n"] for r in rows if r["group"] == g and r["n"]] or [np.nan]) for g in groups]
    return float(np.mean(means)) if means else math.nan


# ---------------------------------------------------------------------------------------------------------------------
# pictures

def tile(world, picture, size, result=None, rows=1, pointed=None):
    """a picture with its instruction above, in that many rows, and under that the outcome if there is a result; a ring at the last place of pointed"""
    top, canvas = 12 * rows + 2, Image.new("RGB", (size, size + 12 * rows + 16), "white")
    canvas.paste(Image.fromarray(picture).resize((size, size), Image.LANCZOS), (0, top + 14))
    text = ImageDraw.Draw(canvas)
    for i, words in enumerate(textwrap.wrap(world.task.instruction, size // 6 if rows > 1 else 99)[:rows]):
        text.text((4, 2 + 12 * i), words, fill="black")
    if pointed:
        column, row = ((int(word) + .5) * size / web.GRID for word in pointed.split()[-2:])
        text.ellipse((column - 9, top + 5 + row, column + 9, top + 23 + row), outline="magenta", width=2)
    if result:
        text.text((4, top), "success" if result["success"] else cause(world, result), fill="green" if result["success"] else "red")
    return canvas


def paste(tiles, columns):
    """tiles of one size as one picture, row by row"""
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for i, t in enumerate(tiles):
        sheet.paste(t, (i % columns * width, i // columns * height))
    return sheet


def film(policy, folder, n=8, size=160):
    """rollouts.gif and rollouts.png: n trials, the seeds in order, with instruction and outcome"""
    lines = basic(policy.config)
    worlds = [make_worlds(policy.config, 1, lines[i % len(lines)], TRIAL_SEED + i)[0] for i in range(n)]
    frames = [[] for _ in worlds]
    policy.reset()
    results = rollouts(worlds, follow(policy), frames)
    for world, list_ in zip(worlds, frames):
        list_.append(world.render(224))

    def at(i, t):
        last = len(frames[i]) - 1
        return tile(worlds[i], frames[i][min(t, last)], size, results[i] if t >= last else None)
    length = max(map(len, frames))
    film_ = [paste([at(i, t) for i in range(n)], 4).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
             for t in list(range(length)) + [length - 1] * 4]
    film_[0].save(Path(folder) / "rollouts.gif", save_all=True, append_images=film_[1:], duration=300, loop=0)
    paste([at(i, int(t)) for i in range(n) for t in np.linspace(0, len(frames[i]) - 1, 6).round()], 6).save(Path(folder) / "rollouts.png")


def sheet(policy, lines, path, n=3, size=200, first_seed=TRIAL_SEED):
    """the last picture of the first n trials of each line, whatever came of them, with instruction, outcome, and where it last meant to go"""
    tiles = []
    for line in lines:
        worlds = make_worlds(policy.config, n, line, first_seed)
        policy.reset()
        pointed = {}
        results = rollouts(worlds, follow(policy, asked(line, policy.config.get("thoughts")), pointed))
        tiles += [tile(world, world.render(224), size, result, 3, pointed.get(id(world))) for world, result in zip(worlds, results)]
    paste(tiles, 6).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def contact_sheet(path, size=112):
    """everything there is: the skills' first scenes, then each thing, card and face by itself"""
    close = draw.Camera(width=.2, target=(0, 0, .04))
    empty = draw.background(size, close)

    def alone(paint, *args, **kwargs):
        pixels = empty.copy()
        paint(pixels, close, *args, position=np.zeros(3), **kwargs)
        return (pixels.clip(0, 1) * 255 + .5).astype(np.uint8)

    scenes = []
    for i, skill in enumerate(INSTRUCTIONS):
        world = World("full", size=2 * size)
        world.reset(i, skill)
        for _ in range(6):
            world.step(world.expert())
        scenes.append(world.render())
    colors = list(draw.COLORS.values())
    tiles = [alone(draw.draw_thing, noun, colors[i % 5] if KINDS[noun].colored else None, yaw=.5)
             for i, noun in enumerate(KINDS)]
    tiles += [alone(draw.draw_card, name) for name in draw.CARDS]
    tiles += [alone(draw.draw_face, dict(hair=hair, glasses=i % 2 == 0, hat=i == 3, beard=i in (1, 4)))
              for i, hair in enumerate(draw.HAIR)]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 16)
    rows = [np.concatenate(scenes, 1)] + [np.concatenate(tiles[i:i + 16], 1) for i in range(0, len(tiles), 16)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def lines_of(config, names):
    """the lines of all tables, groups and lines that names says. Example: lines_of(c, ["emergent"]), lines_of(c, ["sums", "people"])"""
    every = [*basic(config), *suites(config)]
    known = list(dict.fromkeys(word for s in every for word in (s.table, s.group, s.name)))
    for name in names:
        if name not in known:
            raise ValueError(f"no suite {name!r} for a model of this configuration; there are: {', '.join(known)}")
    return [s for s in every if {s.table, s.group, s.name} & set(names)]


def report(checkpoint, trials=200, as_json=False, pictures=True, device="auto", names=()):
    """
    Closed loop for the built-in world, offline for logs; written to results.json beside the checkpoint, and printed. names: instead of
    that, the suites that they say, with all controls, to suites.json; with pictures also how their first trials ended, suites.png.
    """
    if trials < 1:
        raise ValueError(f"trials = {trials}; at least one is needed")
    if names:
        policy = Policy(checkpoint, device, robot="world")
        lines, folder = lines_of(policy.config, names), Path(checkpoint).parent
        results = {"rows": measure(policy, lines, trials, quiet=as_json), "config": policy.config}
        (folder / "suites.json").write_text(json.dumps(results, indent=1))
        print(json.dumps(results) if as_json else "\n" + table(results))
        if pictures:
            sheet(policy, lines, folder / "suites.png")
        return results
    c, folder = train.Config(**train.load(checkpoint)["config"]), Path(checkpoint).parent
    results, texts, world = {}, [], None
    for source in c.robot:
        policy = Policy(checkpoint, device, robot=data.source_name(source))
        if source["format"] == "world":
            world = policy
            results.update(evaluate(policy, trials, quiet=as_json))
            texts.append(table(results))
        else:
            found = offline(policy, data.open_source(c, "robot", source, quiet=as_json), source, quiet=as_json)
            results.setdefault("offline", []).append(found)
            texts.append(offline_table(found))
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results) if as_json else "\n" + "\n\n".join(texts))
    if pictures and world:
        film(world, folder)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="out/checkpoint.pt")
    parser.add_argument("--trials", type=int, default=200, help="closed-loop trials for a row of the table (200)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--suite", nargs="+", default=(), metavar="NAME", help="tables, groups or lines of suites.py instead: generalisation, "
                        "emergent, thought, symbols, sums ...; written to suites.json and suites.png")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="rollouts.gif and rollouts.png, or suites.png")
    parser.add_argument("--contact_sheet", default="", metavar="FILE", help="only draw all there is in the world")
    args = parser.parse_args()
    try:
        if args.contact_sheet:
            return contact_sheet(args.contact_sheet)
        report(args.checkpoint, args.trials, args.json, args.pictures, args.device, args.suite)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
