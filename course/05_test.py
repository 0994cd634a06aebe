"""Assignment 5: it may only say what it can do (model.py: VLA.generate)"""
import numpy as np
import torch

from course.grading import points
from model import VLA, ModelConfig

PROMPTS = [[3, 4, 5, 6, 7], [8, 9]]


def model():
    torch.manual_seed(0)
    m = VLA(ModelConfig(n_vocab=50, image_size=8, patch_size=2, vit_layer=1, vit_head=1, vit_embd=8,
                        n_layer=2, n_head=2, n_embd=16, max_text=14)).eval()
    for p in m.parameters():
        p.data *= 3                                         # so that no two tokens are nearly as likely
    return m


def pictures(n=2):
    return torch.randint(0, 256, (n, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def one_by_one(m, image, prompt, n):
    """the slow way, by the training code: what is likeliest after all before it, again and again"""
    ids = list(prompt)
    for _ in range(n):
        row = torch.tensor([ids + [0]])
        answer = torch.arange(len(ids) + 1)[None] >= len(prompt)
        with torch.no_grad():
            ids.append(m(image[None], row, torch.ones_like(row), answer)[0][-1].argmax().item())
    return ids[len(prompt):]


@points(3, read="the handout: the position before a token predicts it")
def it_says_what_the_training_code_finds_likeliest():
    m, images = model(), pictures()
    found = m.generate(images[:1], PROMPTS[:1], 5).tolist()
    wanted = one_by_one(m, images[0], PROMPTS[0], 5)
    assert found == [wanted], f"{found[0]} instead of {wanted}"


@points(2, read="the docstring of generate: padding")
def a_short_prompt_beside_a_long_one_is_answered_as_alone():
    m, images = model(), pictures()
    both = m.generate(images, PROMPTS, 5).tolist()
    alone = m.generate(images[1:], PROMPTS[1:], 5).tolist()[0]
    assert both[1] == alone, f"{both[1]} beside a longer prompt, {alone} alone"


@points(2, read="the docstring of generate: cache")
def with_and_without_the_cache_it_says_the_same():
    m, images, read = model(), pictures(), []
    m.blocks[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
    cached = m.generate(images, PROMPTS, 4).tolist()
    n = len(read)
    assert cached == m.generate(images, PROMPTS, 4, cache=False).tolist()
    assert read[1:n] == [1] * (n - 1), f"with the cache a step reads one token, but these read {read[1:n]}"


@points(3, read="the docstring of generate: allowed")
def only_what_is_allowed_is_said():
    m, seen = model(), []
    slots = torch.zeros(3, 50, dtype=torch.bool)
    slots[0, 10:12], slots[1, 20:22], slots[2, 30] = True, True, True

    def allowed(tokens):
        seen.append(tokens.tolist())
        return slots[tokens.size(1)].expand(len(tokens), -1)
    found = m.generate(pictures(), PROMPTS, 3, allowed)
    assert all(a in (10, 11) and b in (20, 21) and c == 30 for a, b, c in found.tolist()), found.tolist()
    assert [len(t[0]) for t in seen] == [0, 1, 2] and seen[2] == found[:, :2].tolist(), \
        "allowed() is asked with the new tokens so far"
    drawn = m.generate(pictures(), PROMPTS, 3, allowed, temperature=5., uniform=torch.rand(2, 3))
    assert all(a in (10, 11) and c == 30 for a, _, c in drawn.tolist()), "also where tokens are drawn"


@points(1, read="the docstring of generate: temperature and uniform")
def draws_follow_the_model_and_are_each_rows_own():
    m, images = model(), pictures(1).expand(400, -1, -1, -1)
    for p in m.parameters():
        p.data /= 3
    u = torch.from_numpy(np.random.default_rng(0).random((400, 1)))
    found = m.generate(images, [PROMPTS[1]] * 400, 1, temperature=1., uniform=u)[:, 0]
    logits, _ = m(pictures(1), torch.tensor([[8, 9, 0]]), torch.ones(1, 3).long(),
                  torch.tensor([[False, False, True]]))
    p = logits[0].softmax(0)
    top = p.argsort(descending=True)[:25]
    share = sum((found == i).float().mean().item() for i in top)
    assert abs(share - p[top].sum().item()) < .1, \
        f"the likelier half has {share:.0%} of draws, not {p[top].sum():.0%}"
    alone = m.generate(images[:1], [PROMPTS[1]], 1, temperature=1., uniform=u[7:8])
    assert alone.item() == found[7].item(), "a row's draws depend on the rows beside it"
    likeliest = m.generate(images[:1], [PROMPTS[1]], 1).item()
    cold = m.generate(images[:40], [PROMPTS[1]] * 40, 1, temperature=1e-3, uniform=u[:40])
    assert (cold == likeliest).all(), "a low temperature draws the likeliest"


@points(1, read="the docstring of generate: eos")
def after_eos_it_says_nothing_else():
    m = model()
    first = m.generate(pictures(), PROMPTS, 5).tolist()
    eos = first[0][1]
    found = m.generate(pictures(), PROMPTS, 5, eos=eos).tolist()
    end = first[0].index(eos)
    assert found[0] == first[0][:end] + [eos] * (5 - end), f"{found[0]} after eos = {eos}"
    other = first[1].index(eos) if eos in first[1] else 5
    assert found[1][:other] == first[1][:other], "the other row goes on"
    for wrong in (([[]] * 2, 3), (PROMPTS, 13)):
        try:
            m.generate(pictures(), *wrong)
        except ValueError:
            continue
        raise AssertionError("an empty prompt, or one that does not fit max_text, is a ValueError")
