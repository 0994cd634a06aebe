"""
The policy, and how good it is.

    python eval.py --checkpoint out/checkpoint.pt            # the table, results.json, pictures of rollouts

    policy = Policy("out/checkpoint.pt")                     # the one door to any simulator or robot
    episode = policy.episode()
    action = episode.act(picture, "pick apple")              # (8,) float: terminate, dx .. dyaw, gripper

A robot that can be simulated is measured in closed loop, with controls: the same policy under a blank
instruction and under one that asks for something else, random actions, and an expert. A robot of which
there is only a log is measured on episodes that were not trained on (formats/held_out.py).
"""
import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import data
import train
from tokenizer import prompt

BLANK = prompt(None)
TRIAL_SEED = 1_000_000                                      # scenes that no training run has seen begin here


# --------------------------------------------------------------------------------------------------------
# the policy

class Policy:
    """
    A trained model as a controller. Actions are drawn from the model's distribution, sharpened by temperature
    (the paper does not say how it decodes): a policy that always takes the likeliest action gets stuck
    where that action changes nothing.

    robot: the name of its table [[robot]]; needed if the model has learnt to act for several robots.
    execute: how many actions of an answer are carried out before the policy looks again (0: all of them),
    for a robot whose answers hold several (chunk). seed: of the draws of all episodes.
    """

    def __init__(self, checkpoint, device="auto", dtype="float32", temperature=0.5, seed=0, robot=None,
                 execute=0):
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"dtype = {dtype!r}; use auto, float32 or bfloat16")
        self.device, state = train.pick_device(device), train.load(checkpoint)
        self.config = state["config"]
        self.tokenizer, robots, self.model = train.rebuild(checkpoint, state)
        if robot is None and len(robots) > 1:
            raise ValueError(f"{checkpoint} has learnt to act for several robots; say which: "
                             f"robot = one of {', '.join(robots)}")
        self.name = robot or next(iter(robots), None)
        if self.name not in robots:
            raise ValueError(f"{checkpoint} has no robot {self.name!r}; "
                             f"it has learnt to act for: {', '.join(robots) or 'none'}")
        self.robot = robots[self.name]
        if not 0 <= execute <= self.robot.chunk:
            raise ValueError(f"execute = {execute}; an answer holds {self.robot.chunk} actions")
        self.execute, self.actions = execute or self.robot.chunk, self.robot.actions
        self.model.to(self.device).eval()
        # what may be said in each slot, (chunk * D, n_vocab)
        self.slots = torch.from_numpy(self.actions.allowed).repeat(self.robot.chunk, 1).to(self.device)
        self.dtype, self.cache, self.temperature, self.seed = dtype, True, temperature, seed
        self.begun = 0                          # episodes so far

    def episode(self, seed=None):
        """
        Begins an episode; many may run at the same time. Each has draws of its own: those of `seed`, or, in
        turn, those of the policy's seed.
        """
        self.begun += 1
        return Episode(self, [self.seed, self.begun] if seed is None else seed)

    def act(self, episodes, pictures, prompts):
        """
        One step of B episodes: what each sees now, and a whole prompt each -> actions (B, D), terminate
        first. Those that still have actions of their last answer to carry out do not ask the model.
        """
        # first of all: a picture that is refused leaves no trace
        seen = [e.with_picture(picture) for e, picture in zip(episodes, pictures)]
        asked = [k for k, e in enumerate(episodes) if not e.to_do]
        if asked:
            shown = [[picture for step in seen[k] for picture in step] for k in asked]
            answers, thoughts = self.decide(shown, [prompts[k] for k in asked],
                                            [episodes[k].rng for k in asked])
            for k, answer, thought in zip(asked, answers, thoughts):
                episodes[k].to_do, episodes[k].thought = self.carried_out(answer), thought
        for e, steps in zip(episodes, seen):
            e.history = steps
        return np.stack([e.to_do.pop(0) for e in episodes])

    def carried_out(self, answer):
        """
        The actions of an answer (chunk, D) that are carried out before the next look. With terminate = 1
        nothing is carried out, as in the paper. If the log carried that action out (last_action_counts),
        it comes first, with terminate = 0.

        Example: one number beside terminate, execute = 2, last_action_counts: [[0, .1], [1, .2], [1, .2]]
            -> [[0, .1], [0, .2], [1, .2]]
        """
        actions = []
        for action in answer[:self.execute]:
            if action[0] == 1 and self.robot.last_action_counts:
                actions.append(np.concatenate(([0], action[1:])).astype(np.float32))
            actions.append(action)
            if action[0] == 1:
                break
        return actions

    def decide(self, pictures, prompts, rngs):
        """
        What the model says: B lists of pictures (frames * cameras, the oldest step first), B prompts and B
        random generators -> answers (B, chunk, D) float32 in the units of the robot's log, terminate first,
        and the B thoughts that came before them.

        One rule for all robot prompts: words, at most thought_len tokens of them, until " Action:"; then
        one bin in each slot.
        """
        most, n, tok = self.config["thought_len"], len(self.slots), self.tokenizer
        words = torch.ones(tok.n_vocab, dtype=torch.bool, device=self.device)
        begin, end = torch.zeros_like(words), torch.zeros_like(words)
        words[tok.eos], begin[tok.begin_action], end[tok.eos] = False, True, True
        # what may come next, a row of n_vocab bools for each slot(). 0 .. n-1: the bins of that slot; then
        # `most` times only <eos>, for a row that is done before the others; -1, the last: words of a thought
        rules = torch.stack((*self.slots, *[end] * most, words))

        def allowed(tokens):
            """the new tokens so far, (B, t) -> which may come next (B, n_vocab)"""
            if tokens.size(1) == most:
                rules[-1] = begin                                       # its room is full: the action begins
            return rules[self.slot(tokens)]

        room, eos = (most + 1 + n, tok.eos) if most else (n, None)      # words, " Action:" and bins
        uniform = torch.from_numpy(np.stack([rng.random(room, np.float32) for rng in rngs]))
        ids = self.generate(pictures, prompts, room, allowed, eos, self.temperature, uniform)
        start = ids.size(1) - self.slot(ids)                            # (B,) where each row's action begins
        bins = torch.gather(ids, 1, start[:, None] + torch.arange(n, device=ids.device))            # (B, n)
        thoughts = [tok.decode(row[:max(0, i - 1)]) for row, i in zip(ids.tolist(), start.tolist())]
        return self.actions.decode(bins.cpu().numpy().reshape(len(ids), self.robot.chunk, -1)), thoughts

    def slot(self, tokens):
        """tokens (B, t) -> how many came after " Action:" in each row, -1 where it has not been said: (B,)"""
        if not self.config["thought_len"]:                          # plain RT-2: the action begins at once
            return torch.full((len(tokens),), tokens.size(1), device=tokens.device)
        begun = (tokens == self.tokenizer.begin_action).cumsum(1) > 0       # " Action:" and all after it
        return begun.sum(1) - 1

    def answer(self, pictures, questions, n_new=8):
        """B pictures, B questions "Q: ... A:" -> B strings of at most n_new tokens"""
        ids = self.generate(pictures, questions, n_new, eos=self.tokenizer.eos)
        return [self.tokenizer.decode(i for i in row if i != self.tokenizer.eos) for row in ids.tolist()]

    def generate(self, pictures, prompts, n_new, allowed=None, eos=None, temperature=0.0, uniform=None):
        size, n = self.model.config.image_size, self.model.config.pictures
        # one picture for a model that sees several: all are this one
        pictures = [list(p) if isinstance(p, (list, tuple)) else [p] * n for p in pictures]
        images = np.stack([[data.fit(np.asarray(p), size) for p in some] for some in pictures])
        with train.autocast(self.device, self.dtype):
            return self.model.generate(torch.from_numpy(images).to(self.device),
                                       [self.tokenizer.encode(p) for p in prompts],
                                       n_new, allowed, eos, self.cache, temperature, uniform)


class Episode:
    """
    What a policy keeps in mind of one episode: its draws, the actions that are still to be carried out, and,
    with frames > 1, what it saw in the steps before. RT-2 has no other memory.
    """

    def __init__(self, policy, seed):
        self.policy, self.rng = policy, np.random.default_rng(seed)
        self.history, self.to_do = [], []       # lists of pictures, one for each camera; actions
        self.thought = ""                       # what was said before the last answer's actions

    def act(self, picture, instruction: str | None):
        """
        picture (H, W, 3) uint8 of any size, with several cameras a list of them or a dict by name;
        instruction (None: the blank control) -> action (D,) float32 in the units of the robot's log,
        terminate first: 1 means stop, and nothing is carried out. For another prompt there is Policy.act.
        """
        return self.policy.act([self], [picture], [prompt(instruction)])[0]

    def with_picture(self, picture):
        """the last `frames` steps, this one included: for each a list of pictures, one for each camera"""
        policy, cameras = self.policy, self.policy.robot.cameras
        if isinstance(picture, dict):
            picture = [picture[name] for name in cameras] if set(picture) == set(cameras) else []
        pictures = list(picture) if isinstance(picture, (list, tuple)) else [picture]
        if len(pictures) != len(cameras):
            raise ValueError(f"give a picture of each of {len(cameras)} cameras: {', '.join(cameras)}")
        frames, size = policy.config["frames"], policy.model.config.image_size
        n = policy.model.config.pictures // frames      # cameras that the model knows, perhaps more than ours
        # a copy: cameras reuse their memory
        now = [np.array(data.fit(np.asarray(p), size)) for p in data.views(pictures, n)]
        # in the first step there is no earlier one: this one again
        return ([*self.history, now] if self.history else [now] * frames)[-frames:]


# --------------------------------------------------------------------------------------------------------
# closed loop

class Line(NamedTuple):
    """
    A line of the table: trials of one kind. make() gives an environment of Gymnasium's shape:

        env.reset(seed=s) -> obs, info                          obs["image"]: as Episode.act takes it
        env.step(action) -> obs, reward, terminated, truncated, info    action (D,): terminate first, and the
                                                                        episode ends where it is 1, and then
                                                                        nothing moves. Success:
                                                                        info["success"] at the end, or else a
                                                                        reward above 0
        env.instruction                                         what the robot is told, once reset
        env.expert() -> action, env.swapped() -> instruction    if it can; swapped asks for something else in
                                                                the same scene, and is None where there is
                                                                no such thing
        env.render() -> (H, W, 3) uint8                         if it can; a picture for people

    The last info may say "outcome", a failure type in two or three words, and "counts", yes or no by name,
    which the table's rows add up. at_once: how many environments are stepped together; 1 where make() gives
    one shared simulator. group, table: where study/ counts the line. prompt: instruction -> prompt.

    Example: Line("open the drawer", lambda: DrawerEnv(camera="front"))
    """
    name: str
    make: Callable
    group: str = ""
    table: str = ""
    prompt: Callable = prompt
    at_once: int = 200


def rollouts(envs, seeds, act, watch=lambda i, env: None):
    """
    Steps all environments to their ends. act(going, envs, pictures) -> actions, of those still going: their
    numbers, environments and what they see. watch(i, env): called before the first step and after each.
    Returns a dict for each: its last info, and "success", "terminated", "steps".
    """
    pictures = [env.reset(seed=seed)[0]["image"] for env, seed in zip(envs, seeds)]
    results, steps = [None] * len(envs), 0
    for i, env in enumerate(envs):
        watch(i, env)
    while going := [i for i, result in enumerate(results) if result is None]:
        actions = act(going, [envs[i] for i in going], [pictures[i] for i in going])
        steps += 1
        for i, action in zip(going, actions):
            obs, reward, terminated, truncated, info = envs[i].step(action)
            pictures[i] = obs["image"]
            watch(i, envs[i])
            if terminated or truncated:
                results[i] = {**info, "success": bool(info.get("success", reward > 0)),
                              "terminated": bool(terminated), "steps": steps}
    return results


DRIVERS = ("policy", "blank instruction", "swapped instruction", "random", "expert")


def driver(name, policy, line, seeds):
    """what moves the robot: a function for rollouts(). seeds: of the trials; a trial has draws of its own"""
    words = {"policy": lambda env: line.prompt(env.instruction), "blank instruction": lambda env: BLANK,
             "swapped instruction": lambda env: line.prompt(env.swapped())}
    if name in words:
        episodes = [policy.episode(seed) for seed in seeds]
        return lambda going, envs, pictures: policy.act([episodes[i] for i in going], pictures,
                                                        [words[name](env) for env in envs])
    if name == "expert":
        return lambda going, envs, pictures: [env.expert() for env in envs]
    rngs, actions = [np.random.default_rng(seed) for seed in seeds], policy.actions

    def random(going, envs, pictures):
        """any bin of every number, but it stops with 5 %"""
        bins = np.stack([rngs[i].integers(actions.bins_of) for i in going])
        stop = [rngs[i].random() < .05 for i in going]
        return np.column_stack((stop, actions.centres(bins)[:, 1:]))
    return random


def measure(policy, lines, trials=200, drivers=DRIVERS, first_seed=TRIAL_SEED, quiet=False):
    """
    Closed loop: for each line and driver a dict {"table", "group", "line", "driver", "success", "n",
    "interval", "first_seed", "outcomes": how the trials ended, "counts"}. A driver that an environment does
    not know is left out.
    """
    rows, cells = [], [(line, name) for line in lines for name in drivers]
    for line, name in tqdm(cells, desc="rollouts", disable=quiet):
        results, seeds = [], range(first_seed, first_seed + trials)
        need = {"expert": "expert", "swapped instruction": "swapped"}.get(name)
        if need and not hasattr(line.make(), need):
            continue
        for at in range(0, trials, line.at_once):
            part = seeds[at:at + line.at_once]
            envs = [line.make() for _ in part]
            # only scenes where something else can be asked for; rollouts() resets environments once more
            if name == "swapped instruction":
                for env, seed in zip(envs, part):
                    env.reset(seed=seed)
                part = [seed for env, seed in zip(envs, part) if env.swapped()]
            results += rollouts(envs[:len(part)], part, driver(name, policy, line, part))
        rows.append(row(line, name, results, first_seed))
    return rows


def row(line, name, results, first_seed):
    k, n = sum(r["success"] for r in results), len(results)
    ends = ["success" if r["success"] else
            r.get("outcome") or ("failure" if r["terminated"] else "never stopped")
            for r in results]
    counts = {key: sum(bool(r["counts"][key]) for r in results)
              for key in (results[0].get("counts", ()) if results else ())}
    return {"table": line.table, "group": line.group, "line": line.name, "driver": name, "success": k, "n": n,
            "interval": wilson(k, n), "first_seed": first_seed, "counts": counts,
            "outcomes": {end: ends.count(end) for end in sorted(set(ends))}}


def wilson(k, n, z=1.96):
    """the Wilson 95 % interval of a rate. Example: wilson(180, 200) -> (0.850, 0.934)"""
    if n == 0:
        return 0.0, 1.0
    p, d = k / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (p + z * z / (2 * n) - half) / d), min(1.0, (p + z * z / (2 * n) + half) / d)


# --------------------------------------------------------------------------------------------------------
# questions about pictures

def agrees(said, answer, tolerance=2):
    """
    Is an answer right? The numbers of a place, two or more, may each be off by tolerance; anything else, a
    single number included, must be said exactly.
    Example: agrees(" 12 21", " 12 20") -> True; agrees(" 13", " 12") -> False
    """
    a, b = said.split(), answer.split()
    if len(a) == len(b) > 1 and all(w.isdecimal() for w in a + b):
        return max(abs(int(x) - int(y)) for x, y in zip(a, b)) <= tolerance
    return a == b


def quiz(policy, questions):
    """questions: a list of (picture, question, answer, tolerance) -> right answers, answers asked for"""
    if not questions:
        return 0, 0
    pictures, asked, answers, tolerances = zip(*questions)
    longest = 1 + max(len(policy.tokenizer.encode(answer)) for answer in answers)
    said = policy.answer(pictures, asked, longest)
    return sum(map(agrees, said, answers, tolerances)), len(answers)


# --------------------------------------------------------------------------------------------------------
# tables

def percent(k, n):
    """a rate with its Wilson interval. Example: percent(180, 200) -> " 90 % [ 85,  93]" """
    if not n:
        return "no such trial"
    low, high = wilson(k, n)
    return f"{100 * k / n:3.0f} % [{100 * low:3.0f}, {100 * high:3.0f}]"


def table(results) -> str:
    """what report() found, as text"""
    rows, lines = results.get("rows", []), []
    if rows:
        drivers = list(dict.fromkeys(r["driver"] for r in rows))
        lines += [f"closed loop, success in {rows[0]['n']} trials (seeds from {rows[0]['first_seed']}), "
                  "Wilson 95 % interval;",
                  "the swapped instruction asks for something else in the same scene, "
                  "in the scenes where there is such a thing",
                  f"{'':30}" + "".join(f"{d:>22}" for d in drivers)]
        for name in dict.fromkeys(r["line"] for r in rows):
            cells = {r["driver"]: percent(r["success"], r["n"]) for r in rows if r["line"] == name}
            lines.append(f"{name:30}" + "".join(f"{cells.get(d, '-'):>22}" for d in drivers))
        lines += ["", "how the policy's trials ended"]
        lines += [f"{r['line']:30}" + ", ".join(f"{end} {n}" for end, n in r["outcomes"].items())
                  for r in rows if r["driver"] == "policy"]
    if results.get("quiz"):
        lines += ["", "questions about unseen web pictures; "
                      "a place may be 2 of 32 cells off, any other answer is exact"]
        lines += [f"{a['name']:30}{percent(a['right'], a['n']):>22}  n = {a['n']}" for a in results["quiz"]]
    for found in results.get("held_out", ()):
        lines += ["", found["table"]]
    if "latency" in results:
        found = results["latency"]
        lines += ["", f"actions a second, batch 1 ({found['device']}): {found['actions_per_s']:.0f}"]
    return "\n".join(lines).strip("\n")


def latency(policy, n=20):
    """actions a second at batch 1, pictures in, numbers out, if `execute` actions of each answer are used"""
    picture = np.zeros((policy.config["image_size"],) * 2 + (3,), np.uint8)
    pictures = [picture] * len(policy.robot.cameras)
    policy.episode().act(pictures, "pick apple")
    begin = time.perf_counter()
    for _ in range(n):                                      # each new episode asks the model
        policy.episode().act(pictures, "pick apple")
    per_s = n * policy.execute / (time.perf_counter() - begin)
    return {"actions_per_s": per_s, "device": device_name(policy.device)}


def device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


# --------------------------------------------------------------------------------------------------------

def lines_of(settings, config):
    """the lines of a [[robot]] table; [] where its log's class knows no environments"""
    kind = data.log_class("robot", settings["format"])
    found = kind.lines(settings, config["image_size"]) if hasattr(kind, "lines") else []
    return [Line(*line) for line in found]


def report(checkpoint, trials=200, pictures=True, device="auto"):
    """
    Every robot of a checkpoint in closed loop, if its log's class knows environments (lines), else on its
    held-out episodes; and every web that knows a quiz. Written to results.json beside the checkpoint, and
    printed.
    """
    if trials < 1:
        raise ValueError(f"trials = {trials}; at least one is needed")
    config = train.load(checkpoint)["config"]
    results = {"rows": [], "quiz": [], "held_out": [], "config": config}
    for settings in (data.settings_of("robot", t) for t in config["robot"]):
        policy = Policy(checkpoint, device, robot=settings["name"])
        if lines := lines_of(settings, config):
            if len(config["robot"]) > 1:            # lines of two robots may have one name
                lines = [line._replace(name=f"{settings['name']}, {line.name}") for line in lines]
            results["rows"] += measure(policy, lines, trials)
        else:
            log = data.open_log("robot", settings, config["data_dir"], config["image_size"])
            if len(data.held_out_episodes(log, settings["hold_out"])):
                from formats import held_out                        # needed only for logs of real robots
                found = held_out.evaluate(policy, log, settings["hold_out"])
                results["held_out"].append({**found, "table": held_out.table(found)})
        results["latency"] = latency(policy)
    web_was_used = config["robot_fraction"] < 1 or config["pretrain_steps"]
    for settings in (data.settings_of("web", t) for t in config["web"] if web_was_used):
        kind = data.log_class("web", settings["format"])
        if hasattr(kind, "quiz"):
            for name, questions in kind.quiz(settings, config["image_size"], trials).items():
                right, n = quiz(policy, questions)
                results["quiz"].append({"name": name, "right": right, "n": n, "interval": wilson(right, n)})
    Path(checkpoint).with_name("results.json").write_text(json.dumps(results, indent=1))
    print("\n" + table(results))
    if pictures:
        from world.film import film_of                              # needed only for pictures
        film_of(checkpoint, device)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="out/checkpoint.pt")
    parser.add_argument("--trials", type=int, default=200,
                        help="closed-loop trials for a row of the table (200)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True,
                        help="rollouts.gif and rollouts.png")
    args = parser.parse_args()
    try:
        report(args.checkpoint, args.trials, args.pictures, args.device)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("stopped")


if __name__ == "__main__":
    main()
