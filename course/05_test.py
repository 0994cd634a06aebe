"""Assignment 5: it may only say what it can do (model.py: VLA.generate)"""
import numpy as np
import torch

from course.grading import expect, fails, points
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


def passes(m):
    """a list that grows with each pass: tokens that the first block read, what the last position said"""
    read = []
    m.blocks[0].register_forward_pre_hook(lambda _, args: read.append([args[0].shape[1]]))
    m.ln_f.register_forward_hook(lambda _, args, out: read[-1].append(out[:, -1].clone()))
    return read


@points(3, read="the handout: the position before a token predicts it")
def it_says_what_the_training_code_finds_likeliest():
    m, images = model(), pictures()
    expect("five words (wanted: what the code of training finds likeliest)",
           m.generate(images[:1], PROMPTS[:1], 5), [one_by_one(m, images[0], PROMPTS[0], 5)])
    fails("a prompt without tokens", m.generate, images, [[]] * 2, 3)
    fails("a prompt of 5 tokens and 13 new ones where max_text = 14", m.generate, images, PROMPTS, 13)


@points(2, read="the docstring of generate: padding")
def a_short_prompt_beside_a_long_one_is_answered_as_alone():
    m, images = model(), pictures()
    expect("the short prompt's answer beside a longer one (wanted: its answer alone)",
           m.generate(images, PROMPTS, 5)[1], m.generate(images[1:], PROMPTS[1:], 5)[0])


@points(2, read="the docstring of generate: cache; the handout: watch")
def with_and_without_the_cache_it_says_the_same():
    m, images = model(), pictures()
    read = passes(m)
    cached, n = m.generate(images, PROMPTS, 5), len(read)
    expect("tokens without the cache (wanted: those with it)", m.generate(images, PROMPTS, 5, cache=False),
           cached)
    expect("how many tokens each pass with the cache reads", [step[0] for step in read[:n]], [9, 1, 1, 1, 1])
    for t in range(1, n):
        expect(f"what the last block says of word {t} without the cache (wanted: with it; is `answer` in the "
               "bias?)", read[n + t][1], read[t][1], off=1e-4)
    m.watch = []
    said = m.generate(images, PROMPTS, 3, lambda tokens: (torch.arange(50) > 40).expand(2, -1))
    expect("with watch = [], how many entries three new words leave in it", len(m.watch), 3)
    for t, (raw, masked, choice) in enumerate(m.watch):
        expect(f"watch[{t}]: the choice", choice, said[:, t])
        expect(f"watch[{t}]: how many logits are -inf, before and after the mask",
               [int(torch.isinf(x).sum()) for x in (raw, masked)], [0, 82])


@points(3, read="the docstring of generate: allowed")
def only_what_is_allowed_is_said():
    m, seen = model(), []
    slots = torch.zeros(3, 50, dtype=torch.bool)
    slots[0, 10:12], slots[1, 20:22], slots[2, 30] = True, True, True

    def allowed(tokens):
        seen.append(tokens.tolist())
        return slots[tokens.size(1)].expand(len(tokens), -1)

    def check(what, found):
        expect(what, found, "10 or 11, then 20 or 21, then 30, in each row",
               holds=all(a in (10, 11) and b in (20, 21) and c == 30 for a, b, c in found.tolist()))
    found = m.generate(pictures(), PROMPTS, 3, allowed)
    check("the likeliest of what is allowed", found)
    expect("what allowed() was given, word by word (the new tokens so far)", seen,
           [found[:, :t].tolist() for t in range(3)])
    uniform = torch.from_numpy(np.random.default_rng(1).random((2, 3)))
    check("drawn from what is allowed", m.generate(pictures(), PROMPTS, 3, allowed, temperature=5.,
                                                   uniform=uniform))


@points(1, read="the docstring of generate: temperature and uniform")
def draws_follow_the_model_and_are_each_rows_own():
    m, images = model(), pictures(1).expand(400, -1, -1, -1)
    for p in m.parameters():
        p.data /= 3
    u = torch.from_numpy(np.random.default_rng(0).random((400, 3)))
    found = m.generate(images, [PROMPTS[1]] * 400, 3, temperature=1., uniform=u)
    logits, _ = m(pictures(1), torch.tensor([[8, 9, 0]]), torch.ones(1, 3).long(),
                  torch.tensor([[False, False, True]]))
    p = logits[0].softmax(0)
    top = p.argsort(descending=True)[:25]
    for t in (0, 1, 2):             # so small a model: what was said before changes little
        share = sum((found[:, t] == i).float().mean().item() for i in top)
        expect(f"share of draws of word {t} that are of the likelier half", share,
               f"about {p[top].sum():.2f}",
               holds=abs(share - p[top].sum().item()) < .1)
    expect("row 7 alone (wanted: as it was among 400)", m.generate(
        images[:1], [PROMPTS[1]], 3, temperature=1., uniform=u[7:8])[0], found[7])
    again = (found[:, 0] == found[:, 1]).float().mean().item()
    expect("share of rows whose second word is the first again", again,
           "few: each word has a random number of its own, uniform[:, t]", holds=again < .5)
    likeliest = m.generate(images[:1], [PROMPTS[1]], 1).item()
    cold = m.generate(images[:40], [PROMPTS[1]] * 40, 1, temperature=1e-3, uniform=u[:40])[:, 0]
    expect("40 draws at temperature 0.001 (wanted: the likeliest)", cold, [likeliest] * 40)


@points(1, read="the docstring of generate: eos")
def after_eos_it_says_nothing_else():
    m = model()
    first = m.generate(pictures(), PROMPTS, 5).tolist()
    eos = first[0][1]
    wanted = [(row[:row.index(eos)] if eos in row else row)[:5] for row in first]
    wanted = [row + [eos] * (5 - len(row)) for row in wanted]
    expect(f"two rows, of which the first says eos = {eos}", m.generate(pictures(), PROMPTS, 5, eos=eos),
           wanted)
    read, scripts = passes(m), torch.zeros(2, 50, dtype=torch.bool)
    scripts[0, eos], scripts[1, 3] = True, True

    def allowed(tokens):
        """row 0 may only say eos, row 1 says 3 twice before it"""
        return scripts if tokens.size(1) < 2 else scripts[:1].expand(2, -1)
    expect("eos at once, and after two words; six words asked for",
           m.generate(pictures(), PROMPTS, 6, allowed, eos=eos), [[eos] * 6, [3, 3] + [eos] * 4])
    expect("passes until every row has said eos", len(read), 3)
