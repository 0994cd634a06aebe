"""
The policy, and how good it is.

    python eval.py --checkpoint out/checkpoint.pt            # the table, pictures of rollouts, results.json
    python eval.py --checkpoint out/checkpoint.pt --json     # the numbers alone, for other programs

    policy = Policy("out/checkpoint.pt")                     # the one door to any simulator or robot
    policy.reset()
    action = policy.act(image, "pick apple")                 # (8,) float: terminate, dx .. dyaw, gripper
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

import data
import draw
import train
import web
from model import VLA, ModelConfig
from ranks import pick_device
from tokenizer import ActionTokenizer, Tokenizer, prompt
from world import ACTION_HIGH, ACTION_LOW, INSTRUCTIONS, KINDS, VOCABULARIES, World

BLANK = "Q: what action should the robot take? A:"
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
        self.dtype, self.cache, self.temperature, self.seed = dtype, True, temperature, seed
        self.generator = torch.Generator(self.device)
        self.reset()

    def reset(self):
        self.generator.manual_seed(self.seed)
        self.seen = []

    def act(self, image, instruction: str):
        """
        image (H, W, 3) uint8 of any size, instruction -> action (D,) float32 in the units of the robot's log, terminate first;
        the world's are metres, radians and 0..1
        """
        self.seen = self.remember(self.seen, image)
        return self.act_batch([self.seen], [prompt(instruction)])[0]

    def remember(self, seen, image):
        """the pictures of an episode that the model is shown, with the newest added: a list of as many as it takes"""
        return (seen or [image] * self.model.config.frames)[1:] + [image]

    def act_batch(self, images, prompts):
        """B pictures, or lists of as many as the model takes, and B prompts -> actions (B, D)"""
        ids = self._generate(images, prompts, len(self.actions.names), self.allowed, temperature=self.temperature)
        return self.actions.decode(ids)

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

def follow(policy, words=lambda world: prompt(world.task.instruction)):
    seen = {}

    def act(worlds, pictures):
        seen.update({id(w): policy.remember(seen.get(id(w)), picture) for w, picture in zip(worlds, pictures)})
        return policy.act_batch([seen[id(w)] for w in worlds], [words(w) for w in worlds])
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


def make_worlds(config, n, skill, targets="robot", seed=TRIAL_SEED, draws=True):
    """n trials: worlds reset to the seeds from seed on. draws=False: physics alone, for drivers that do not look"""
    worlds = [World(config["vocabulary"], config["skills"], config["image_size"] if draws else 0) for _ in range(n)]
    for i, world in enumerate(worlds):
        world.reset(seed + i, skill, targets)
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
    if result["success"]:
        return "success"
    if not result["terminated"]:
        return "never stopped"
    right = world.task.a.name if world.task.a is not None else "drawer"
    if result["held"] not in (None, right):
        return "wrong thing held"
    return "stopped too early" if result["held"] is None else "right thing, not done"


def web_accuracy(policy, kind, n, names):
    """
    Right answers and answers asked for, of one kind of question on n pictures that training has not seen. A position counts
    when it is at most 2 of 32 cells off; everything else must be said exactly. (0, 0) if no picture allows the question.
    """
    rng = np.random.default_rng(WEB_SEED)
    c, full = policy.config, policy.config["vocabulary"] == "full"
    pictures, questions, answers = [], [], []
    for i in range(20 * n):
        picture, facts = web.draw_picture(np.random.default_rng([WEB_SEED, i]), c["image_size"], names,
                                          list(draw.CARDS) if full else (), full)
        question = web.ask(facts, kind, rng)
        if question:
            pictures.append(picture), questions.append(question[0]), answers.append(question[1])
        if len(pictures) == n or i > 100 and not pictures:
            break
    if not pictures:
        return 0, 0
    longest = 1 + max(len(policy.tokenizer.encode(answer)) for answer in answers)
    said = policy.answer(pictures, questions, longest)
    return sum(agrees(s, a, 0 if kind == "way" else 2) for s, a in zip(said, answers)), len(answers)


def agrees(said, answer, tolerance=2):
    """Example: agrees(" 12 21", " 12 20") -> True; agrees(" apple", " orange") -> False"""
    a, b = said.split(), answer.split()
    if len(a) == len(b) == 2 and all(w.isdigit() for w in a + b):
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

def evaluate(policy, trials=200, quiet=False):
    """all numbers as a dict: closed loop by skill and control, web questions by kind, latency"""
    c = policy.config
    rows, causes, answers = [], {}, []
    suites = [(f"seen: {skill}", skill, "robot") for skill in c["skills"]]
    if "pick" in c["skills"]:
        suites.append(("only the web names it: pick", "pick", "web"))
    drivers = {"policy": follow(policy), "blank instruction": follow(policy, lambda world: BLANK),
               "swapped instruction": follow(policy, swapped), "random": random_actions, "expert": expert}
    bar = tqdm(total=len(suites) * len(drivers), desc="rollouts", disable=quiet)
    for title, skill, targets in suites:
        for name, act in drivers.items():
            worlds = make_worlds(c, trials, skill, targets, draws=name not in ("random", "expert"))
            if name == "swapped instruction":
                worlds = [w for w in worlds if swapped(w)]
            policy.reset()
            results = rollouts(worlds, act)
            k, n = sum(r["success"] for r in results), len(results)
            rows.append({"suite": title, "policy": name, "success": k, "n": n, "interval": wilson(k, n),
                         "first_seed": TRIAL_SEED})
            if name == "policy":
                whys = [cause(w, r) for w, r in zip(worlds, results)]
                causes[title] = {why: whys.count(why) for why in sorted(set(whys))}
            bar.update()
    bar.close()
    for kind in dict.fromkeys(c["web_questions"] if any(source["format"] == "world" for source in c["web"]) else ()):
        for who, names in VOCABULARIES[c["vocabulary"]].items():
            k, n = web_accuracy(policy, kind, trials, names)
            if n:
                answers.append({"kind": kind, "things": who, "right": k, "n": n, "interval": wilson(k, n)})
    return {"rows": rows, "causes": causes, "web": answers, "latency": latency(policy), "config": c}


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
    name = torch.cuda.get_device_name(policy.device) if policy.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"actions_per_s": times, "device": name}


def percent(k, n, interval):
    """Example: percent(180, 200, wilson(180, 200)) -> " 90 % [ 85,  93]" """
    return f"{100 * k / n:3.0f} % [{100 * interval[0]:3.0f}, {100 * interval[1]:3.0f}]" if n else "no such trial"


def table(results):
    """the numbers as text"""
    rows, speed = results["rows"], results["latency"]
    drivers, lines = list(dict.fromkeys(r["policy"] for r in rows)), []
    lines.append(f"closed loop, success in {rows[0]['n']} trials (seeds from {rows[0]['first_seed']}), Wilson 95 % interval;")
    lines.append("the swapped instruction asks for something else in the same scene, where there is such a thing")
    lines.append(f"{'':30}" + "".join(f"{d:>22}" for d in drivers))
    for suite in dict.fromkeys(r["suite"] for r in rows):
        cells = {r["policy"]: percent(r["success"], r["n"], r["interval"]) for r in rows if r["suite"] == suite}
        lines.append(f"{suite:30}" + "".join(f"{cells[d]:>22}" for d in drivers))
    lines += ["", "how the policy's trials ended"]
    for suite, whys in results["causes"].items():
        lines.append(f"{suite:30}" + ", ".join(f"{why} {n}" for why, n in whys.items()))
    if results["web"]:
        lines += ["", "web questions, unseen pictures; a position counts when it is at most 2 of 32 cells off"]
    for a in results["web"]:
        cell = percent(a["right"], a["n"], a["interval"])
        lines.append(f"{a['kind'] + ', things of the ' + a['things']:30}{cell:>22}  n = {a['n']}")
    actions = ", ".join(f"{name} {per_s:.0f}" for name, per_s in speed["actions_per_s"].items())
    return "\n".join([*lines, "", f"actions a second, batch 1 ({speed['device']}): {actions}"])


# ---------------------------------------------------------------------------------------------------------------------
# pictures

def film(policy, folder, n=8, size=160):
    """rollouts.gif and rollouts.png: n trials, the seeds in order, with instruction and outcome"""
    suites = [(s, "robot") for s in policy.config["skills"]] + [("pick", "web")] * ("pick" in policy.config["skills"])
    worlds = []
    for i in range(n):
        skill, targets = suites[i % len(suites)]
        worlds += make_worlds(policy.config, 1, skill, targets, seed=TRIAL_SEED + i)
    frames = [[] for _ in worlds]
    policy.reset()
    results = rollouts(worlds, follow(policy), frames)
    for world, list_ in zip(worlds, frames):
        list_.append(world.render(224))

    def tile(i, t):
        picture = Image.fromarray(frames[i][min(t, len(frames[i]) - 1)]).resize((size, size), Image.LANCZOS)
        canvas = Image.new("RGB", (size, size + 28), "white")
        canvas.paste(picture, (0, 28))
        text = ImageDraw.Draw(canvas)
        text.text((4, 2), worlds[i].task.instruction, fill="black")
        if t >= len(frames[i]) - 1:
            ok = results[i]["success"]
            text.text((4, 14), "success" if ok else cause(worlds[i], results[i]), fill="green" if ok else "red")
        return canvas

    columns = 4
    length = max(map(len, frames))
    film_ = []
    for t in list(range(length)) + [length - 1] * 4:
        sheet = Image.new("RGB", (columns * size, -(-n // columns) * (size + 28)), "white")
        for i in range(n):
            sheet.paste(tile(i, t), (i % columns * size, i // columns * (size + 28)))
        film_.append(sheet.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    film_[0].save(Path(folder) / "rollouts.gif", save_all=True, append_images=film_[1:], duration=300, loop=0)
    strip = Image.new("RGB", (6 * size, n * (size + 28)), "white")
    for i in range(n):
        for k, t in enumerate(np.linspace(0, len(frames[i]) - 1, 6).round().astype(int)):
            strip.paste(tile(i, int(t)), (k * size, i * (size + 28)))
    strip.save(Path(folder) / "rollouts.png")


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


def report(checkpoint, trials=200, as_json=False, pictures=True, device="auto"):
    """closed loop for the built-in world, offline for logs; written to results.json beside the checkpoint, and printed"""
    if trials < 1:
        raise ValueError(f"trials = {trials}; at least one is needed")
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
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="rollouts.gif and rollouts.png")
    parser.add_argument("--contact_sheet", default="", metavar="FILE", help="only draw all there is in the world")
    args = parser.parse_args()
    try:
        if args.contact_sheet:
            return contact_sheet(args.contact_sheet)
        report(args.checkpoint, args.trials, args.json, args.pictures, args.device)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
