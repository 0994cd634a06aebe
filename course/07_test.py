"""Assignment 7: the experiment of the paper (train.py: lr_scale, forward, train_step)"""
import contextlib

import torch

import train
from course import tiny
from course.grading import expect, fails, points
from data import ASKED


class Ranks:
    """train.Ranks of one process, or what one of two alike sees: the other has as many targets"""
    first, device = True, torch.device("cpu")

    def __init__(self, world=1):
        self.world, self.lasts = world, []

    def total(self, number):
        return self.world * number

    def sync(self, model, last):
        self.lasts.append(last)
        return contextlib.nullcontext()


def begun(**options):
    config = tiny.config(batch_size=8, robot_fraction=.5, **options)
    _, _, _, mix, model = tiny.made(config)
    return config, mix, model


def change(micro, model, config, scale=1., ranks=None, rates=(1., 1.)):
    """what one step of plain gradient descent takes from the weights: all numbers in a row"""
    before = [p.detach().clone() for p in model.parameters()]
    ways = {"muon": torch.optim.SGD(list(model.parameters())[:1], lr=1.),
            "adam": torch.optim.SGD(list(model.parameters())[1:], lr=1.)}
    config.lr_muon, config.lr_adam = rates
    result = train.train_step(model, micro, ways, scale, config, ranks or Ranks())
    moved = [b - p.detach() for b, p in zip(before, model.parameters())]
    with torch.no_grad():
        for b, p in zip(before, model.parameters()):
            p.copy_(b)
    rates = [way.param_groups[0]["lr"] for way in ways.values()]
    return torch.cat([m.flatten() for m in moved]), (*result, rates)


@points(2, read="the docstring of lr_scale")
def the_rate_goes_up_stays_and_falls_to_zero():
    config = tiny.config(warmup=10, cooldown=.5)
    expect("rate in steps 0, 4, 9, 30, 49, 75 and 99 of 100",
           [train.lr_scale(step, 100, config) for step in (0, 4, 9, 30, 49, 75, 99)],
           [.1, .5, 1, 1, 1, .5, .02], off=1e-6)
    config = tiny.config(warmup=0, cooldown=0.)
    expect("without warm-up and cool-down, steps 0 and 99", [train.lr_scale(step, 100,
                                                                            config) for step in (0, 99)],
           [1, 1], off=1e-6)


@points(3, read="data.py: labels; only what is answered has loss")
def the_loss_is_on_what_is_answered():
    config, mix, model = begun()
    batch, cpu = mix[0, 0], torch.device("cpu")
    logits, losses, moved = train.forward(model, batch, config, cpu)
    n = int((batch["label"] != ASKED).sum())
    expect("how many losses there are (tokens that are answered, words and actions alike)", len(losses), n)
    expect("shape of the logits", tuple(logits.shape), (n, model.config.n_vocab))
    expect("what the moved batch holds", sorted(moved), sorted(batch))
    images, tokens, segment = (batch[k] for k in ("images", "tokens", "segment"))
    with torch.no_grad():
        expect("the losses", losses, model(images, tokens, segment, batch["label"] != ASKED)[1], off=1e-5)
        config.dtype = "bfloat16"
        half = train.forward(model, batch, config, cpu)[1]
    off = (half - losses).abs().max().item()
    expect("largest change of a loss with dtype = bfloat16", off, "a little: autocast(device, config.dtype)",
           holds=1e-4 < off < .5)


@points(3, read="the handout: one mean over all answered tokens")
def micro_batches_add_up_to_the_batch():
    config, mix, model = begun(clip=1e9)
    batch = mix[0, 0]
    whole, _ = change([batch], model, config)
    _, losses, _ = train.forward(model, batch, config, torch.device("cpu"))
    gradient = torch.autograd.grad(losses.mean(), list(model.parameters()), allow_unused=True)
    flat = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                      for g, p in zip(gradient, model.parameters())])
    expect("a step (wanted: the gradient of the mean loss)", whole, flat, off=1e-5)
    cut, ranks = [{k: x[:3] for k, x in batch.items()}, {k: x[3:] for k, x in batch.items()}], Ranks()
    parts, _ = change(cut, model, config, ranks=ranks)
    expect("a step in two uneven micro-batches (wanted: as in one; divide by the targets of all of them)",
           parts, whole, off=1e-5)
    expect("ranks.sync(model, last=...), micro-batch by micro-batch", ranks.lasts, [False, True])
    two, _ = change([batch], model, config, ranks=Ranks(2))
    expect("a step of one of two ranks alike, world = 2 (wanted: as of one; DDP averages, so times world)",
           two, whole, off=1e-5)


@points(2, read="the docstring of train_step: clip, scale")
def clipping_and_the_rate_are_used_and_nothing_is_left_over():
    config, mix, model = begun(clip=.01)
    moved, (norm, logits, losses, _, _) = change([mix[0, 0]], model, config)
    expect("length of a step with clip = .01", moved.norm(), .01, off=1e-4)
    expect("the norm that comes back", norm, "that before clipping, above .01", holds=norm > .01)
    expect("do logits and losses still carry gradients", [logits.requires_grad, losses.requires_grad],
           [False, False])
    half, (*_, rates) = change([mix[0, 0]], model, config, scale=.5)
    expect("a step with scale = .5, after another (wanted: half of that; no gradient is left over)", half,
           moved / 2,
           off=1e-6)
    *_, (*_, rates) = change([mix[0, 0]], model, config, scale=.5, rates=(2., 4.))
    expect("rates of muon and adam with scale = .5, lr_muon = 2 and lr_adam = 4", rates, [1., 2.])
    model.wte.weight.data[0] = float("nan")
    fails("a gradient that is not finite", change, [mix[0, 0]], model, config, error=FloatingPointError)


@points(2, read="the handout; python train.py runs the whole recipe", seconds=240)
def it_learns():
    """trains a tiny model for 150 steps, about half a minute"""
    config, mix, model = begun(steps=150, lr_muon=1e-2, lr_adam=4e-3)
    optimizers, curve = train.make_optimizers(model, config), []
    for step in range(150):
        scale = train.lr_scale(step, 150, config)
        _, _, losses, _ = train.train_step(model, [mix[step, 0]], optimizers, scale, config, Ranks())
        curve.append(losses.mean().item())
    first, last = sum(curve[:5]) / 5, sum(curve[-20:]) / 20
    expect("mean loss of the last 20 of 150 steps", last, f"below .35 of the first five's {first:.2f}",
           holds=last < .35 * first)
