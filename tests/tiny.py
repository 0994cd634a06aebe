"""
A robot log, a web and an environment of a few lines, for tests of the five files. They need no world and no files: a
format is one line in data.FORMATS, and this is the smallest example of one.

A picture is dark with one bright square, in one of four columns; the robot has one number, dx, and goes to the square.
Once it is there, the floor is bright.
"""
import numpy as np

import data
from tokenizer import prompt

SIZE, PLACES = 16, ("far left", "left", "right", "far right")


def picture(place, size=SIZE, there=False):
    """place 0 .. 3 -> (size, size, 3) uint8"""
    pixels = np.full((size, size, 3), 30, np.uint8)
    pixels[-size // 4:] = 220 * there
    step = size // 4
    pixels[step:2 * step, step * place:step * (place + 1)] = 220
    return pixels


class Robot(data.Log):
    """episodes of three steps: two toward the square, then stop. thought: the place in words, if asked for"""
    options = {"episodes": 30, "thought": False, "numbers": 1}
    fingerprint = "tiny robot"

    def __init__(self, *, cache, size, quiet, episodes, thought, numbers):
        self.size, self.thought = size, thought
        self.names = ("terminate", "dx", *(f"n{d}" for d in range(1, numbers)))
        self.bounds = [0.0] + [-1.0] * numbers, [1.0] + [1.0] * numbers
        self.episode = np.repeat(np.arange(episodes), 3)
        self.place = np.random.default_rng(0).integers(4, size=episodes)[self.episode]
        last = np.tile([0., 0., 1.], episodes)
        moves = (self.place[:, None] / 1.5 - 1) * (1 - last[:, None]) * np.ones(numbers)
        self.actions = np.concatenate((last[:, None], moves), 1)

    def __len__(self):
        return len(self.episode)

    def picture(self, i):
        return picture(self.place[i], self.size, i % 3 == 2)

    def request(self, i, rng):
        return prompt("go to the square"), f" It is {PLACES[self.place[i]]}." if self.thought else ""

    def ask(self, i, rng):
        return "Q: how bright is it? A:", f" {('dark', 'light')[rng.integers(2)]}"

    def texts(self):
        yield prompt("go to the square") + " It is far left. right dark light how bright is it?"


class Web(data.Log):
    options = {"pictures": 20}
    fingerprint = "tiny web"

    def __init__(self, *, cache, size, quiet, pictures):
        self.size, self.n = size, pictures

    def __len__(self):
        return self.n

    def picture(self, i):
        return picture(i % 4, self.size)

    def ask(self, i, rng):
        """one of three questions; the last is seldom allowed"""
        place = PLACES[i % 4]
        return [("Q: where is it? A:", f" {place}"), ("Q: is it left? A:", f" {('no', 'yes')[i % 4 < 2]}"), None][rng.integers(3)]

    def texts(self):
        yield "Q: where is it? A: far left right Q: is it left? A: no yes"


class Env:
    """the robot's world in Gymnasium's shape: it ends when the action says stop, or after five steps"""

    def reset(self, seed):
        self.place, self.at, self.steps = int(np.random.default_rng(seed).integers(4)), 0.0, 0
        self.instruction = "go to the square"
        return {"image": picture(self.place)}, {}

    def step(self, action):
        self.steps += 1
        stop = action[0] > .5
        self.at += 0 if stop else float(action[1])
        there = self.steps >= 2 and abs(self.at - 2 * (self.place / 1.5 - 1)) < .2
        info = {"outcome": "" if there else "wrong place", "counts": {"moved": self.at != 0}}
        return {"image": picture(self.place, there=there)}, float(stop and there), stop, not stop and self.steps >= 5, info

    def expert(self):
        return np.array([self.steps >= 2, self.place / 1.5 - 1 if self.steps < 2 else 0.])

    def swapped(self):
        return "stay where you are" if self.place else None

    def render(self):
        return picture(self.place, 64)


def install(monkeypatch):
    """the two formats, by the name "tiny" """
    monkeypatch.setitem(data.FORMATS["robot"], "tiny", "tiny:Robot")
    monkeypatch.setitem(data.FORMATS["web"], "tiny", "tiny:Web")


# a model that takes milliseconds a step: arguments of train.py
ARGS = ["--image_size", "16", "--patch_size", "4", "--vit_layer", "1", "--vit_embd", "16", "--vit_head", "2", "--n_layer", "1",
        "--n_embd", "16", "--n_head", "2", "--text_len", "40", "--batch_size", "8", "--pretrain_steps", "3", "--steps", "5",
        "--warmup", "2", "--log_every", "2", "--save_every", "2", "--device", "cpu", "--trials", "0", "--robot_fraction", "0.5"]
SOURCES = ["--robot", 'format="tiny"', "--web", 'format="tiny"']
