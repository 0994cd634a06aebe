"""Assignment 7: the experiment of the paper (train.py: lr_scale, forward, train_step)"""
import contextlib

import torch

import train
from course import tiny
from course.grading import points
from data import ASKED


class One:
    """train.Ranks of one process"""
    world, first, device = 1, True, torch.device("cpu")

    def total(self, number):
        return number

    def sync(self, model, last):
        return contextlib.nullcontext()


def begun(**options):
    config = tiny.config(batch_size=8, robot_fraction=.5, **options)
    _, _, _, mix, model = tiny.made(config)
    return config, mix, model


def change(micro, model, config, scale=1.):
    """what one step of plain gradient descent takes from the weights"""
    before = [p.detach().clone() for p in model.parameters()]
    ways = {"muon": torch.optim.SGD(list(model.parameters())[:1], lr=1.),
            "adam": torch.optim.SGD(list(model.parameters())[1:], lr=1.)}
    config.lr_muon = config.lr_adam = 1.
    result = train.train_step(model, micro, ways, scale, config, One())
    moved = [b - p.detach() for b, p in zip(before, model.parameters())]
    with torch.no_grad():
        for b, p in zip(before, model.parameters()):
            p.copy_(b)
    return torch.cat([m.flatten() for m in moved]), result


@points(2, read="the docstring of lr_scale")
def the_rate_goes_up_stays_and_falls_to_zero():
    config = tiny.config(warmup=10, cooldown=.5)
    found = [train.lr_scale(step, 100, config) for step in (0, 4, 9, 30, 49, 75, 99)]
    wanted = [.1, .5, 1, 1, 1, .5, .02]
    assert all(abs(a - b) < 1e-6 for a, b in zip(found, wanted)), f"{found} instead of {wanted}"


@points(3, read="data.py: labels; only what is answered has loss")
def the_loss_is_on_what_is_answered():
    config, mix, model = begun()
    batch = mix[0, 0]
    logits, losses, moved = train.forward(model, batch, config, torch.device("cpu"))
    n = int((batch["label"] != ASKED).sum())
    assert losses.shape == (n,) and logits.shape == (n, model.config.n_vocab), \
        f"{len(losses)} losses, but {n} tokens are answered (words and actions alike)"
    assert set(moved) == set(batch) and moved["tokens"].shape == batch["tokens"].shape, \
        "the batch comes back, moved"


@points(3, read="the handout: one mean over all answered tokens")
def micro_batches_add_up_to_the_batch():
    config, mix, model = begun(clip=1e9)
    whole, _ = change([mix[0, 0]], model, config)
    batch = mix[0, 0]
    cut = [{k: x[:3] for k, x in batch.items()}, {k: x[3:] for k, x in batch.items()}]
    parts, _ = change(cut, model, config)
    assert torch.allclose(whole, parts, atol=1e-5), \
        "a batch in two uneven parts gives another step: divide by the number of targets of the whole batch"
    with torch.enable_grad():
        _, losses, _ = train.forward(model, batch, config, torch.device("cpu"))
        gradient = torch.autograd.grad(losses.mean(), list(model.parameters()), allow_unused=True)
    flat = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                      for g, p in zip(gradient, model.parameters())])
    assert torch.allclose(whole, flat, atol=1e-5), "the step is not along the gradient of the mean loss"


@points(2, read="the docstring of train_step: clip, scale")
def clipping_and_the_rate_are_used_and_nothing_is_left_over():
    config, mix, model = begun(clip=.01)
    moved, (norm, logits, losses, _) = change([mix[0, 0]], model, config)
    assert abs(moved.norm().item() - .01) < 1e-4, f"clip = .01, but the step has length {moved.norm():.3f}"
    assert norm > .01 and not logits.requires_grad and not losses.requires_grad, \
        "the norm is that before clipping"
    half, _ = change([mix[0, 0]], model, config, scale=.5)
    assert torch.allclose(half, moved / 2, atol=1e-6), \
        "scale = .5 is half a step; and no gradient is left from before"
    model.wte.weight.data[0] = float("nan")
    try:
        change([mix[0, 0]], model, config)
    except FloatingPointError:
        return
    raise AssertionError("a gradient that is not finite is a FloatingPointError")


@points(2, read="the handout; python train.py runs the whole recipe", seconds=240)
def it_learns():
    """trains a tiny model for 150 steps, about half a minute"""
    config, mix, model = begun(steps=150, lr_muon=1e-2, lr_adam=4e-3)
    optimizers, curve = train.make_optimizers(model, config), []
    for step in range(150):
        scale = train.lr_scale(step, 150, config)
        _, _, losses, _ = train.train_step(model, [mix[step, 0]], optimizers, scale, config, One())
        curve.append(losses.mean().item())
    first, last = sum(curve[:5]) / 5, sum(curve[-20:]) / 20
    assert last < .35 * first, f"the loss went from {first:.2f} to {last:.2f} only"
