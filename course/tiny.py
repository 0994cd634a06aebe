"""
A world for the tests and the quick experiments of the course: no files, and a small model learns it in half a
minute.

A picture is 16 x 16 and dark. In its middle row are one or two squares, each of a colour, in two of four
columns. The robot has one number, dx, from -1 (left) to 1 (right). It is told "go to red", goes there in one
step, and stops in the next, when the floor is bright. With two squares only the words say where to go.
"""
import copy
from itertools import takewhile

import numpy as np
import torch

import data
import train as recipe
from model import VLA, ModelConfig
from tokenizer import prompt

SIZE = 16
PLACES = (-.75, -.25, .25, .75)                             # dx of the four columns
COLOURS = {"red": (255, 30, 30), "blue": (40, 40, 255), "green": (30, 220, 30), "yellow": (240, 240, 20),
           "white": (255, 255, 255), "pink": (255, 120, 255), "orange": (255, 130, 0), "cyan": (0, 230, 230)}
KNOWN, NEW = tuple(COLOURS)[:6], tuple(COLOURS)[6:]         # NEW: the robot is never told these


def picture(squares, arrived=False):
    """squares: column 0 .. 3 -> colour. Returns (16, 16, 3) uint8."""
    pixels = np.full((SIZE, SIZE, 3), 30, np.uint8)
    for column, colour in squares.items():
        pixels[4:12, 4 * column:4 * column + 4] = COLOURS[colour]
    pixels[-3:] = 150 if arrived else 30
    return pixels


def scene(rng, colours, n):
    """n squares: columns and colours by chance; the first is meant"""
    columns = [int(c) for c in rng.permutation(4)[:n]]
    return dict(zip(columns, [str(c) for c in rng.permutation(colours)[:n]])), columns[0]


class Robot(data.Log):
    """episodes of two steps. squares: how many lie there; colours: which the robot is told"""
    options = {"episodes": 500, "squares": 2, "colours": list(KNOWN)}
    names, bounds, fingerprint = ("terminate", "dx"), ([0., -1.], [1., 1.]), "tiny robot"

    def __init__(self, *, cache, size, quiet, episodes, squares, colours):
        rng, self.colours = np.random.default_rng(0), colours
        self.scenes = [scene(rng, colours, squares) for _ in range(episodes)]
        self.episode = np.repeat(np.arange(episodes), 2)
        self.actions = np.array([row for _, column in self.scenes
                                 for row in ((0., PLACES[column]), (1., 0.))])

    def __len__(self):
        return len(self.episode)

    def picture(self, i):
        return picture(self.scenes[i // 2][0], arrived=i % 2 == 1)

    def request(self, i, rng):
        squares, column = self.scenes[i // 2]
        return prompt(f"go to {squares[column]}"), ""

    def ask(self, i, rng):
        squares, _ = self.scenes[i // 2]
        return question(squares, rng)

    def texts(self):
        for colour in COLOURS:
            yield prompt(f"go to {colour}")


def question(squares, rng):
    """one of two: what stands in a column, or which way a colour is, in bins of dx (the robot's own words)"""
    column = list(squares)[rng.integers(len(squares))]
    if rng.random() < .3:
        return f"Q: what is in {column}? A:", f" {squares[column]}"
    return prompt(f"go to {squares[column]}").replace("action", "way"), f" {32 + 64 * column}"


class Web(data.Log):
    """pictures without a robot: two squares of any colours"""
    options = {"pictures": 2000, "colours": list(COLOURS)}
    fingerprint = "tiny web"

    def __init__(self, *, cache, size, quiet, pictures, colours):
        rng = np.random.default_rng(1)
        self.scenes = [scene(rng, colours, 2)[0] for _ in range(pictures)]

    def __len__(self):
        return len(self.scenes)

    def picture(self, i):
        return picture(self.scenes[i])

    def ask(self, i, rng):
        return question(self.scenes[i], rng)

    def texts(self):
        for colour in COLOURS:
            yield f"Q: what is in 0? A: {colour}" + prompt(f"go to {colour}").replace("action", "way")
            yield prompt(f"go to {colour}")


class Env:
    """
    The robot's world in Gymnasium's shape, as eval.Line describes; three steps at most. slip: how often a
    move does not happen, by chance; then there are six steps.
    """

    def __init__(self, squares=2, colours=KNOWN, slip=0.):
        self.n, self.colours, self.slip = squares, list(colours), slip

    def reset(self, seed):
        self.rng = np.random.default_rng([seed, 9])
        self.squares, self.goal = scene(self.rng, self.colours, self.n)
        self.at, self.steps = None, 0
        self.instruction = f"go to {self.squares[self.goal]}"
        return {"image": picture(self.squares)}, {}

    def step(self, action):
        self.steps += 1
        stop = bool(action[0] > .5)
        if not stop and self.rng.random() >= self.slip:
            self.at = min(range(4), key=lambda column: abs(PLACES[column] - action[1]))
        info = {"success": stop and self.at == self.goal,
                "outcome": "wrong place" if stop else "never stopped"}
        seen = picture(self.squares, self.at is not None)
        return {"image": seen}, 0., stop, self.steps >= (6 if self.slip else 3), info

    def expert(self):
        return np.array([self.at is not None, PLACES[self.goal]])

    def swapped(self):
        others = [colour for column, colour in self.squares.items() if column != self.goal]
        return f"go to {others[0]}" if others else None


def config(**changed):
    """a train.Config for this world; the formats are one line each in data.FORMATS"""
    data.FORMATS["robot"]["tiny"], data.FORMATS["web"]["tiny"] = "course.tiny:Robot", "course.tiny:Web"
    sizes = dict(image_size=SIZE, patch_size=4, vit_layer=1, vit_embd=32, vit_head=2, n_layer=2, n_embd=48,
                 n_head=4, text_len=48, batch_size=32, pretrain_steps=0, steps=200, warmup=20, device="cpu",
                 dtype="float32", trials=0)
    return recipe.Config(**{"robot": [{"format": "tiny"}], "web": [{"format": "tiny"}], **sizes, **changed})


def made(config, known=None):
    """
    Logs, tokenizer, robots, the mix and a model, as train.set_up makes them. known: such a tuple, to go on
    from (with a copy of its model).
    """
    logs = data.open_logs(config, quiet=True)
    tokenizer = known[1] if known else data.make_tokenizer(logs, config.n_vocab)
    robots = data.make_robots(config, logs, tokenizer, known[2] if known else {})
    mix, _ = data.make_mix(config, logs, robots, tokenizer)
    torch.manual_seed(config.seed)
    model = copy.deepcopy(known[4]) if known else VLA(ModelConfig(
        n_vocab=tokenizer.n_vocab, image_size=SIZE, patch_size=config.patch_size, vit_layer=config.vit_layer,
        vit_head=config.vit_head, vit_embd=config.vit_embd, n_layer=config.n_layer, n_head=config.n_head,
        n_embd=config.n_embd, max_text=config.text_len, attention=config.attention))
    if not known:
        model.add_sinusoids(tokenizer.integers[:256])
    return logs, tokenizer, robots, mix, model


def train(config, everything):
    """Trains what made() gave, with a rate that falls to zero -> the loss of each step."""
    mix, model = everything[3:]
    total, curve = config.n_pretrain + config.steps, []
    both = recipe.make_optimizers(model, config).values()
    falls = [torch.optim.lr_scheduler.OneCycleLR(o, [g["lr"] for g in o.param_groups], pct_start=.1,
                                                 total_steps=total + 1) for o in both]
    for step in range(total):
        item = mix[step, 0]
        _, token_losses = model(item["images"], item["tokens"], item["segment"], item["label"] > 0)
        mean = token_losses.mean()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        for optimizer, fall in zip(both, falls):
            optimizer.step(), fall.step(), optimizer.zero_grad()
        curve.append(mean.item())
    return curve


class Policy:
    """
    A policy for this world that needs nothing of assignments 5, 8 and 9. For each new token it reads
    everything again, with the code of training, and takes the likeliest token that is allowed. It has of
    eval.Policy what eval.measure and eval.quiz ask for.
    """

    def __init__(self, everything):
        _, self.tokenizer, robots, _, self.model = everything
        self.actions = robots["tiny"].actions

    def episode(self, seed=None):
        """nothing needs to be kept in mind"""

    def act(self, episodes, pictures, prompts):
        return self.actions.decode(self.say(pictures, prompts, self.actions.allowed))

    def answer(self, pictures, questions, n_new):
        everything = np.ones((n_new, self.tokenizer.n_vocab), bool)
        return [self.tokenizer.decode(takewhile(lambda i: i != self.tokenizer.eos, row))
                for row in self.say(pictures, questions, everything).tolist()]

    @torch.no_grad()
    def say(self, pictures, prompts, allowed):
        """allowed (n_new, n_vocab) bool: what may be said at each place -> new tokens (B, n_new)"""
        asked, allowed = [self.tokenizer.encode(text) for text in prompts], torch.from_numpy(allowed)
        images, row = torch.from_numpy(np.stack(pictures)), torch.arange(len(asked))
        length = torch.tensor([len(ids) for ids in asked])                                  # (B,)
        tokens = torch.zeros(len(asked), max(length) + len(allowed), dtype=torch.long)
        for i, ids in enumerate(asked):
            tokens[i, :len(ids)] = torch.tensor(ids)
        segment = torch.where(torch.arange(tokens.size(1)) < length[:, None], 1, -1)
        answer = torch.zeros_like(segment, dtype=torch.bool)
        for t, may in enumerate(allowed):
            at = length + t                                 # (B,) the place that is asked for now
            segment[row, at], answer[row, at] = 1, True
            logits, _ = self.model(images, tokens, segment, answer)                 # of t + 1 tokens a row
            now = logits.view(len(asked), t + 1, -1)[:, -1]                                 # (B, n_vocab)
            tokens[row, at] = now.masked_fill(~may, -torch.inf).argmax(-1)
        return torch.stack([tokens[row, length + t] for t in range(len(allowed))], 1).numpy()


def save(path, config, everything):
    """a checkpoint that eval.Policy opens"""
    _, tokenizer, robots, _, model = everything
    recipe.save(path, model=model.state_dict(), optimizers={}, step=config.steps,
                config=recipe.asdict(config),
               model_config=recipe.asdict(model.config), tokenizer=tokenizer.state(),
               robots={name: robot.state() for name, robot in robots.items()}, data={})
    return path
