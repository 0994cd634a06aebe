"""Assignment 9: faster (course/int8.py; eval.py: Policy.act, Policy.carried_out)"""
import copy

import numpy as np
import torch
import torch.nn as nn

from course.grading import ROOT, expect, fails, points
from data import Robot
from eval import Episode, Policy
from model import VLA, ModelConfig

if (ROOT / "course/int8.py").exists():              # a student's
    from course import int8
else:
    from course.solutions import int8


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def policy(answers, execute=0, last_action_counts=False, frames=1):
    """a policy whose model answers from a list of (chunk, D) arrays, one after the other"""
    p, left = Policy.__new__(Policy), [np.array(a, np.float32) for a in answers]
    chunk = len(left[0])
    p.robot, p.execute, p.asked = Robot(None, chunk, ("",), last_action_counts), execute or chunk, []
    p.config, p.seed, p.begun = {"frames": frames}, 0, 0
    p.model = type("Model", (), {"config": type("Config", (), {"image_size": 4, "pictures": frames})()})()

    def decide(pictures, prompts, rngs):
        p.asked.append((list(prompts), [[int(x[0, 0, 0]) for x in some] for some in pictures]))
        p.rngs = rngs
        return np.stack([left.pop(0) for _ in prompts]), [f"thought {len(p.asked)}"] * len(prompts)
    p.decide = decide
    return p


def picture(value=0):
    return np.full((4, 4, 3), value, np.uint8)


@points(2, read="course/int8.py: the table at the top")
def each_row_has_its_own_scale():
    q, scale = int8.quantize(torch.tensor([[-1., .4, .2], [.02, 0, -.012], [0, 0, 0]]))
    expect("types and shape of q and scale", (str(q.dtype), tuple(q.shape), tuple(scale.shape)),
           ("torch.int8", (3, 3), (3, 1)))
    expect("q of the rows (-1, .4, .2), (.02, 0, -.012) and (0, 0, 0)", q,
           [[-127, 51, 25], [127, 0, -76], [0, 0, 0]])
    expect("scale of each row; a row of zeros has 1", scale, [[1 / 127], [.02 / 127], [1]], off=1e-6)


@points(2, read="the docstring of quantize: rounded, symmetric")
def what_comes_back_is_half_a_step_off():
    w = weights(6, 50)
    for bits in (8, 4, 2):
        q, scale = int8.quantize(w, bits)
        expect(f"{bits} bits: largest q in size", q.abs().max(), 2 ** (bits - 1) - 1)
        off = ((int8.dequantize(q, scale) - w) / scale).abs().max().item()
        expect(f"{bits} bits: largest error in steps", off, "at most half a step, by rounding",
               holds=off <= .5001)


@points(2, read="the docstrings of Int8Linear and quantize_model")
def a_quantized_model_says_nearly_the_same_in_less_memory():
    torch.manual_seed(0)
    whole = VLA(ModelConfig(n_vocab=50, image_size=8, patch_size=2, vit_layer=1, vit_head=2, vit_embd=32,
                            n_layer=2, n_head=2, n_embd=32, max_text=8)).eval()
    small = int8.quantize_model(copy.deepcopy(whole))
    expect("Linears inside the blocks that are left", [
        name for name, m in small.named_modules() if isinstance(m, nn.Linear) and "blocks" in name], [])
    expect("are projector and patches still Linears",
           [isinstance(m, nn.Linear) for m in (small.projector, small.vit.patch)], [True, True])
    args = (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.arange(8)[None], torch.ones(1, 8).long(),
            torch.arange(8)[None] > 3)
    a, b = whole(*args)[0], small(*args)[0]
    off, most = (a - b).abs().max().item(), .05 * a.std().item() + 1e-3
    expect("largest change of a logit", off, f"some, and at most {most:.4f}", holds=0 < off < most)
    inner = sum(p.numel() for n, p in whole.named_parameters() if "blocks" in n and p.ndim == 2)
    saved = int8.n_bytes(whole) - int8.n_bytes(small)
    expect("bytes saved (a weight of 4 bytes becomes one of 1)", saved, f"more than {2.5 * inner:.0f}",
           holds=saved > 2.5 * inner)
    kept = {k.rpartition(".")[2] for k in small.state_dict()}
    expect("names in the state_dict", sorted(kept), "q and scale among them", holds={"q", "scale"} <= kept)


@points(1, read="the example in the docstring of carried_out")
def of_an_answer_so_many_are_carried_out():
    answer = [[0, .1], [0, .2], [1, .3]]

    def out(answer, **options):
        return np.array(policy([answer], **options).carried_out(np.array(answer, np.float32)))
    expect("execute = 0: all of them", out(answer), answer, off=1e-6)
    expect("execute = 2", out(answer, execute=2), answer[:2], off=1e-6)
    expect("after terminate nothing is carried out", out([[0, .1], [1, .2], [0, .3]]), [[0, .1], [1, .2]],
           off=1e-6)
    expect("the example, last_action_counts", out([[0, .1], [1, .2], [1, .2]], execute=2,
                                                  last_action_counts=True),
           [[0, .1], [0, .2], [1, .2]], off=1e-6)


@points(2, read="the docstring of act")
def the_model_is_asked_when_nothing_is_left_to_do():
    p = policy([[[0, .1], [0, .2]], [[0, .3], [0, .4]]])
    episode = Episode(p, 0)
    found = [p.act([episode], [picture(t)], [f"prompt {t}"])[0][1] for t in range(4)]
    expect("dx of four steps", found, [.1, .2, .3, .4], off=1e-6)
    expect("what decide() was asked: prompts, and the pictures' brightness", p.asked,
           [(["prompt 0"], [[0]]), (["prompt 2"], [[2]])])
    expect("the episode's thought", episode.thought, "thought 2")
    two = policy([[[0, .1]], [[0, .2]]], frames=2)
    episode = Episode(two, 0)
    for t in (5, 6):
        two.act([episode], [picture(t)], ["go"])
    expect("with two frames, pictures that decide() is given (the step before and this one)",
           [pictures for _, pictures in two.asked], [[[5, 5]], [[5, 6]]])


@points(1, read="the docstring of act: B episodes; the handout: an error must leave no trace")
def of_several_episodes_only_those_without_actions_ask():
    p = policy([[[0, .1], [1, 0]], [[0, .5], [0, .6]], [[0, .9], [0, .9]]])
    a, b = Episode(p, 0), Episode(p, 1)
    p.act([a], [picture()], ["a"])
    fails("a second picture that is none", p.act, [a, b], [picture(9), np.zeros((4, 4))], ["a", "b"])
    expect("after that error: actions left in a and b, pictures kept by b",
           [len(a.to_do), len(b.to_do), len(b.history)],
           [1, 0, 0])
    expect("and what a saw last", int(a.history[-1][0][0, 0, 0]), 0)
    found = p.act([a, b], [picture(1), picture(2)], ["a", "b"])
    expect("actions of a, which had one left, and b", found, [[1, 0], [0, .5]], off=1e-6)
    expect("what decide() was asked: b alone", p.asked[1:], [(["b"], [[2]])])
    expect("generators it was given: b's own", [rng is b.rng for rng in p.rngs], [True])
    expect("what a saw is kept for the next step: steps and brightness",
           [len(a.history), int(a.history[0][0][0, 0, 0])], [1, 1])
