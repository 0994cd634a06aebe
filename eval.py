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
import train
import web
from model import VLA, ModelConfig
from tokenizer import ActionTokenizer, prompt
from world import ACTION_HIGH, ACTION_LOW, INSTRUCTIONS, KINDS, VOCABULARIES, World, draw

BLANK = "Q: what action should the robot take? A:"
TRIAL_SEED, WEB_SEED = 1_000_000, 2_000_000                 # scenes and pictures that no training run has seen


# ---------------------------------------------------------------------------------------------------------------------

class Policy:
    """
    A trained model as a controller. It has no memory: one picture, one action (RT-2 has none either). Actions are drawn
    from the model's distribution, sharpened by temperature (the paper does not say how it does): a policy that always takes
    the likeliest action and finds that it changes nothing would do so for ever. reset() begins the draws anew.
    """

    def __init__(self, checkpoint, device="auto", dtype="float32", temperature=0.5, seed=0):
        self.device = train.pick_device(device)
        state = train.load(checkpoint, self.device)
        self.config, self.actions = state["config"], ActionTokenizer.from_state(state["actions"])
        self.tokenizer = self.actions.tokenizer
        self.model = VLA(ModelConfig(**state["model_config"])).to(self.device).eval()
        self.model.load_state_dict(state["model"])
        self.allowed = torch.from_numpy(self.actions.allowed)
        self.dtype, self.cache, self.temperature, self.seed = dtype, True, temperature, seed
        self.generator = torch.Generator(self.device)
        self.reset()

    def reset(self):
        self.generator.manual_seed(self.seed)

    def act(self, image, instruction: str):
        """image (H, W, 3) uint8 of any size, instruction -> action (8,) float32 in metres, radians, 0..1"""
        return self.act_batch([image], [prompt(instruction)])[0]

    def act_batch(self, images, prompts):
        """B images, B prompts -> actions (B, 8)"""
        ids = self._generate(images, prompts, len(self.actions.names), self.allowed, temperature=self.temperature)
        return self.actions.decode(ids)

    def answer(self, images, questions, n_new=12):
        """B images, B questions "Q: ... A:" -> B strings"""
        ids = self._generate(images, questions, n_new, eos=self.tokenizer.eos)
        return [self.tokenizer.decode(row[row != self.tokenizer.eos]) for row in ids]

    def _generate(self, images, prompts, n_new, allowed=None, eos=None, temperature=0.0):
        images = torch.from_numpy(np.stack([self._fit(image) for image in images])).to(self.device)
        with train.autocast(self.device, self.dtype):
            return self.model.generate(images, [self.tokenizer.encode(p) for p in prompts], n_new, allowed, eos, self.cache,
                                       temperature, self.generator).cpu().numpy()

    def _fit(self, image):
        image, size = np.asarray(image), self.model.config.image_size
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"a picture must be (height, width, 3) uint8, got {image.shape} {image.dtype}; convert it to RGB bytes")
        if image.shape[:2] != (size, size):
            image = np.asarray(Image.fromarray(image).resize((size, size), Image.BILINEAR))
        return image


# ---------------------------------------------------------------------------------------------------------------------
# closed loop

def rollouts(worlds, act, frames=None):
    """
    Step all worlds, already reset, to their ends, with act(list of worlds still going) -> (n, 8). Returns a dict for each:
    success, terminated, held, steps. frames: a list for each world that collects (224, 224, 3) pictures.
    """
    results, going = [None] * len(worlds), list(range(len(worlds)))
    while going:
        for i, action in zip(going, act([worlds[i] for i in going])):
            if frames is not None and i < len(frames):
                frames[i].append(worlds[i].render(224))
            _, reward, terminated, truncated, info = worlds[i].step(action)
            if terminated or truncated:
                results[i] = {**info, "success": bool(reward), "terminated": terminated}
        going = [i for i in going if results[i] is None]
    return results


def follow(policy, words=lambda world: prompt(world.task.instruction)):
    """the policy as an `act` for rollouts"""
    return lambda worlds: policy.act_batch([w.render(policy.model.config.image_size) for w in worlds], [words(w) for w in worlds])


def expert(worlds):
    return [w.expert() for w in worlds]


def random_actions(worlds):
    """uniform in the eight numbers, and stops with 5 %; drawn from each world's own generator"""
    actions = [w.rng.uniform(ACTION_LOW, ACTION_HIGH) for w in worlds]
    return [np.array([float(a[0] < .05), *a[1:]]) for a in actions]


def swapped(world):
    """the instruction for another thing of the same scene"""
    task = world.task
    other = next((t for t in world.things if t not in (task.a, task.b)), None)
    return prompt(INSTRUCTIONS[task.skill].format(a=(other or task.b).name, b=getattr(task.b if other else task.a, "name", "the drawer")))


def make_worlds(config, n, skill, targets="robot", seed=TRIAL_SEED):
    worlds = []
    for i in range(n):
        worlds.append(World(config["vocabulary"], config["skills"], config["image_size"]))
        worlds[-1].reset(seed + i, skill, targets)
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
    """share of right answers to one kind of question on pictures that training has not seen; a position may be 2 cells off"""
    rng = np.random.default_rng(WEB_SEED)
    c, full = policy.config, policy.config["vocabulary"] == "full"
    pictures, questions, answers = [], [], []
    for i in range(20 * n):
        if len(pictures) == n:
            break
        picture, facts = web.draw_picture(np.random.default_rng([WEB_SEED, i]), c["image_size"], names, list(draw.CARDS) if full else (), full)
        question = web.ask(facts, kind, rng)
        if question:
            pictures.append(picture), questions.append(question[0]), answers.append(question[1])
    said = policy.answer(pictures, questions)
    return sum(agrees(s, a) for s, a in zip(said, answers)), len(answers)


def agrees(said, answer):
    """Example: agrees(" 12 21", " 12 20") -> True; agrees(" apple", " orange") -> False"""
    a, b = said.split(), answer.split()
    if len(a) == len(b) == 2 and all(w.isdigit() for w in a + b):
        return max(abs(int(x) - int(y)) for x, y in zip(a, b)) <= 2
    return a == b


# ---------------------------------------------------------------------------------------------------------------------
# the table

def evaluate(policy, trials=200, quiet=False):
    """all numbers as a dict: closed loop by skill and control, web questions by kind, latency"""
    c = policy.config
    rows, causes = [], {}
    suites = [(f"seen: {skill}", skill, "robot") for skill in c["skills"]] + [("only the web names it: pick", "pick", "web")]
    drivers = {"policy": follow(policy), "blank instruction": follow(policy, lambda world: BLANK), "swapped instruction": follow(policy, swapped),
               "random": random_actions, "expert": expert}
    bar = tqdm(total=len(suites) * len(drivers), desc="rollouts", disable=quiet)
    for title, skill, targets in suites:
        for name, act in drivers.items():
            worlds = make_worlds(c, trials, skill, targets)
            if name in ("expert", "random"):                # they do not look, so nothing need be drawn
                for w in worlds:
                    w.observe = dict
            policy.reset()
            results = rollouts(worlds, act)
            k = sum(r["success"] for r in results)
            rows.append({"suite": title, "policy": name, "success": k, "n": trials, "interval": wilson(k, trials),
                         "first_seed": TRIAL_SEED, "held_right": sum(r["held"] == w.task.a.name for w, r in zip(worlds, results) if w.task.a)})
            if name == "policy":
                whys = [cause(w, r) for w, r in zip(worlds, results)]
                causes[title] = {why: whys.count(why) for why in sorted(set(whys))}
            bar.update()
    bar.close()
    names = VOCABULARIES[c["vocabulary"]]
    answers = []
    for kind in c["web_questions"]:
        for who in ("robot", "web"):
            k, n = web_accuracy(policy, kind, trials, names[who])
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
    name = torch.cuda.get_device_name() if policy.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"actions_per_s": times, "device": name}


def percent(k, n, interval):
    return f"{100 * k / n:3.0f} % [{100 * interval[0]:3.0f}, {100 * interval[1]:3.0f}]"


def table(results):
    """the numbers as text"""
    rows, lines = results["rows"], []
    drivers = list(dict.fromkeys(r["policy"] for r in rows))
    lines.append(f"closed loop, success, n = {rows[0]['n']} trials a cell (seeds from {rows[0]['first_seed']}), Wilson 95 % interval")
    lines.append(f"{'':30}" + "".join(f"{d:>22}" for d in drivers))
    for suite in dict.fromkeys(r["suite"] for r in rows):
        cells = {r["policy"]: percent(r["success"], r["n"], r["interval"]) for r in rows if r["suite"] == suite}
        lines.append(f"{suite:30}" + "".join(f"{cells[d]:>22}" for d in drivers))
    lines += ["", "how the policy's trials ended"]
    lines += [f"{suite:30}" + ", ".join(f"{why} {n}" for why, n in whys.items()) for suite, whys in results["causes"].items()]
    if results["web"]:
        lines += ["", "web questions, unseen pictures; a position counts when it is at most 2 of 32 cells off"]
        lines += [f"{a['kind'] + ', things of the ' + a['things']:30}{percent(a['right'], a['n'], a['interval']):>22}  n = {a['n']}" for a in results["web"]]
    speed = results["latency"]
    lines += ["", "actions a second, batch 1 (" + speed["device"] + "): " + ", ".join(f"{k} {v:.0f}" for k, v in speed["actions_per_s"].items())]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# pictures

def film(policy, folder, n=8, size=160):
    """rollouts.gif and rollouts.png: the first n trials of the table, with instruction and outcome"""
    suites = [(s, "robot") for s in policy.config["skills"]] + [("pick", "web")]
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
    tiles = [alone(draw.draw_thing, noun, colors[i % 5] if KINDS[noun].colored else None, yaw=.5) for i, noun in enumerate(KINDS)]
    tiles += [alone(draw.draw_card, name) for name in draw.CARDS]
    tiles += [alone(draw.draw_face, dict(hair=hair, glasses=i % 2 == 0, hat=i == 3, beard=i in (1, 4))) for i, hair in enumerate(draw.HAIR)]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 16)
    rows = [np.concatenate(scenes[i:i + 8], 1) for i in range(0, 8, 8)] + [np.concatenate(tiles[i:i + 16], 1) for i in range(0, len(tiles), 16)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def report(checkpoint, trials=200, as_json=False, pictures=True, device="auto"):
    policy = Policy(checkpoint, device)
    results = evaluate(policy, trials, quiet=as_json)
    folder = Path(checkpoint).parent
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results) if as_json else "\n" + table(results))
    if pictures:
        film(policy, folder)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="out/checkpoint.pt")
    parser.add_argument("--trials", type=int, default=200, help="closed-loop trials for a row of the table (200)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--pictures", action=argparse.BooleanOptionalAction, default=True, help="write rollouts.gif and rollouts.png")
    parser.add_argument("--contact_sheet", default="", metavar="FILE", help="only draw a picture of all there is in the world")
    args = parser.parse_args()
    try:
        if args.contact_sheet:
            return contact_sheet(args.contact_sheet)
        report(args.checkpoint, args.trials, args.json, args.pictures, args.device)
    except ValueError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
