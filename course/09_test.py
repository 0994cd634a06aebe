"""Assignment 9: faster (course/int8.py; eval.py: Policy.act, Policy.carried_out)"""
import copy

import numpy as np
import torch
import torch.nn as nn

from course.grading import ROOT, points
from data import Robot
from eval import Episode, Policy
from model import VLA, ModelConfig

if (ROOT / "course/int8.py").exists():              # a student's
    from course import int8
else:
    from course.solutions import int8


def weights(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def policy(answers, execute=0, last_action_counts=False):
    """a policy whose model answers from a list of (chunk, D) arrays, one after the other"""
    p, left = Policy.__new__(Policy), [np.array(a, np.float32) for a in answers]
    chunk = len(left[0])
    p.robot, p.execute, p.asked = Robot(None, chunk, ("",), last_action_counts), execute or chunk, []
    p.config, p.seed, p.begun = {"frames": 1}, 0, 0
    p.model = type("Model", (), {"config": type("Config", (), {"image_size": 4, "pictures": 1})()})()

    def decide(pictures, prompts, rngs):
        p.asked.append((len(pictures), list(prompts), [int(x[0][0, 0, 0]) for x in pictures]))
        return np.stack([left.pop(0) for _ in prompts]), [f"thought {len(p.asked)}"] * len(prompts)
    p.decide = decide
    return p


def picture(value=0):
    return np.full((4, 4, 3), value, np.uint8)


@points(2, read="course/int8.py: the table at the top")
def each_row_has_its_own_scale():
    q, scale = int8.quantize(torch.tensor([[-1., .4, .2], [.02, 0, -.012], [0, 0, 0]]))
    assert q.dtype == torch.int8 and scale.shape == (3, 1)
    assert q.tolist() == [[-127, 51, 25], [127, 0, -76], [0, 0, 0]], q.tolist()
    assert torch.isfinite(scale).all() and scale[2] == 1, "a row of zeros has scale 1"


@points(2, read="the docstring of quantize: rounded, symmetric")
def what_comes_back_is_half_a_step_off():
    w = weights(6, 50)
    for bits in (8, 4, 2):
        q, scale = int8.quantize(w, bits)
        assert q.abs().max() <= 2 ** (bits - 1) - 1, f"{bits} bits: {q.abs().max()}"
        off = ((int8.dequantize(q, scale) - w) / scale).abs().max().item()
        assert off <= .5001, f"{bits} bits: {off:.2f} steps off; half a step is the most when one rounds"


@points(2, read="the docstrings of Int8Linear and quantize_model")
def a_quantized_model_says_nearly_the_same_in_less_memory():
    torch.manual_seed(0)
    whole = VLA(ModelConfig(n_vocab=50, image_size=8, patch_size=2, vit_layer=1, vit_head=2, vit_embd=32,
                            n_layer=2, n_head=2, n_embd=32, max_text=8)).eval()
    small = int8.quantize_model(copy.deepcopy(whole))
    left = [name for name, m in small.named_modules() if isinstance(m, nn.Linear) and "blocks" in name]
    assert not left, f"still float: {', '.join(left)}"
    assert isinstance(small.projector, nn.Linear) and isinstance(small.vit.patch, nn.Linear)
    args = (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.arange(8)[None], torch.ones(1, 8).long(),
            torch.arange(8)[None] > 3)
    a, b = whole(*args)[0], small(*args)[0]
    assert (a - b).abs().max() < .05 * a.std() + 1e-3 and not torch.equal(a, b), \
        "logits moved by more than rounding"
    inner = sum(p.numel() for n, p in whole.named_parameters() if "blocks" in n and p.ndim == 2)
    saved = int8.n_bytes(whole) - int8.n_bytes(small)
    assert saved > 2.5 * inner, f"{saved} bytes saved; a weight of 4 bytes becomes one of 1"
    assert any(k.endswith(".q") for k in small.state_dict()), "q stands in the state_dict"


@points(1, read="the example in the docstring of carried_out")
def of_an_answer_so_many_are_carried_out():
    answer = [[0, .1], [0, .2], [1, .3]]
    every = policy([answer]).carried_out(np.array(answer))
    assert np.allclose(every, answer), "execute = 0: all of them"
    assert len(policy([answer], execute=2).carried_out(np.array(answer))) == 2
    stop = policy([answer]).carried_out(np.array([[0, .1], [1, .2], [0, .3]]))
    assert np.round(stop, 2).tolist() == [[0, .1], [1, .2]], "after terminate nothing is carried out"
    p = policy([answer], execute=2, last_action_counts=True)
    found = np.array(p.carried_out(np.array([[0, .1], [1, .2], [1, .2]], np.float32)))
    assert found.shape == (3, 2) and np.allclose(found, [[0, .1], [0, .2], [1, .2]]), \
        f"the example gave {found.tolist()}"


@points(2, read="the docstring of act")
def the_model_is_asked_when_nothing_is_left_to_do():
    p = policy([[[0, .1], [0, .2]], [[0, .3], [0, .4]]])
    episode, found = Episode(p, 0), []
    for t in range(4):
        found.append(round(float(p.act([episode], [picture(t)], [f"prompt {t}"])[0][1]), 2))
    assert found == [.1, .2, .3, .4], found
    assert [asked[1:] for asked in p.asked] == [(["prompt 0"], [0]), (["prompt 2"], [2])], \
        "asked at every second step, with what is seen then"
    assert episode.thought == "thought 2"


@points(1, read="the docstring of act: B episodes")
def of_several_episodes_only_those_without_actions_ask():
    p = policy([[[0, .1], [1, 0]], [[0, .5], [0, .6]], [[0, .9], [0, .9]]])
    a, b = Episode(p, 0), Episode(p, 1)
    p.act([a], [picture()], ["a"])
    found = p.act([a, b], [picture(1), picture(2)], ["a", "b"])
    assert np.asarray(found).shape == (2, 2) and np.round(found, 2).tolist() == [[1, 0], [0, .5]], \
        np.asarray(found).tolist()
    assert p.asked[1] == (1, ["b"], [2]), "only b had nothing left"
    assert len(a.history) == 1 and a.history[0][0][0, 0, 0] == 1, "what was seen is kept for the next step"
