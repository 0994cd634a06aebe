"""
The measurements of the handouts: python -m course.experiments N [--checkpoint out/checkpoint.pt]

1, 2, 6 and 7 need nothing. 3, 5 and 9 measure the model that `python train.py` leaves in out/. Each prints
how long it took.
"""
import argparse
import copy
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import data
from course import tiny
from eval import Line, Policy, latency, measure, percent, quiz, table, wilson

TWO = Line("two squares", lambda: tiny.Env(2))
ONE = Line("one square", lambda: tiny.Env(1))


def policy_of(config, everything, **options):
    with tempfile.TemporaryDirectory() as folder:
        return Policy(tiny.save(Path(folder) / "c.pt", config, everything), device="cpu", **options)


def one(_):
    """round-trip error of 100,000 displacements by the number of bins"""
    from tokenizer import ActionTokenizer, Tokenizer, prompt
    tok = Tokenizer.train([prompt("pick up the apple")], 4096)
    x = np.random.default_rng(0).uniform(-.08, .08, (100_000, 1))
    print("bins    mean error mm   largest mm   half a bin mm")
    for n in (4, 16, 64, 256, 1000):
        a = ActionTokenizer(tok, [-.08], [.08], names=("dx",), n_bins=n)
        off = 1000 * np.abs(a.decode(a.encode(x)) - x)
        print(f"{n:4}  {off.mean():12.3f} {off.max():12.3f} {80 / n:15.3f}")


def two(_):
    """answers that see the future: the same world, the same steps, one mask"""
    for leak in (False, True):
        config = tiny.config(steps=500, robot_fraction=1., lr_muon=1e-2, lr_adam=4e-3)
        everything = tiny.made(config)
        model, right = everything[4], type(everything[4]).attention_bias
        if leak:                        # every token of a question sees all of that question
            model.attention_bias = lambda segment, answer: right(model, segment, torch.zeros_like(answer))
        curve = tiny.train(config, everything)
        rows = measure(policy_of(config, everything), [TWO], 200, ("policy",), quiet=True)[0]
        name = "answers see the future" if leak else "as in the paper"
        print(f"{name:24} loss {np.mean(curve[-20:]):.3f}   success "
              + percent(rows["success"], rows["n"], rows["interval"]), flush=True)


def three(checkpoint):
    """actions a second with and without the KV cache, operations and bytes"""
    policy = Policy(checkpoint, device="cpu")
    picture = np.zeros((64, 64, 3), np.uint8)
    for cache in (True, False):
        policy.cache, times = cache, []
        for _ in range(30):
            begin = time.perf_counter()
            policy.episode(0).act(picture, "pick apple")
            times.append(time.perf_counter() - begin)
        print(f"cache {str(cache):6} {1000 * np.median(times):6.1f} ms an action (median of 30)")
    c = policy.model.config
    print(f"weights {policy.model.n_weights():,}, operations of a training sample of 64 tokens, 16 of them "
          f"with loss: {policy.model.flops(64, 16) / 1e6:.0f} million")
    print(f"keys and values of one token: {2 * c.n_layer * c.n_embd * 4} bytes in float32")


def five(checkpoint):
    """what a model would say without the constraint: share of answers that are no action"""
    policy = Policy(checkpoint, device="cpu")
    line = world_lines(policy)[0]
    pictures, prompts = zip(*[(env.reset(seed=s)[0]["image"], line.prompt(env.instruction))
                              for s in range(1_000_000, 1_000_200) for env in [line.make()]])
    uniform = torch.from_numpy(np.random.default_rng(0).random((200, 8)))
    web = ["Q: where is the apple? A:"] * 200
    for asked, words in (("its own prompt", prompts), ("a web question", web)):
        for temperature in (.5, 1., 2.):
            ids = policy.generate(list(pictures), list(words), 8, temperature=temperature, uniform=uniform)
            ids = ids.numpy()
            ok = np.array([[policy.actions.allowed[d, i] for d, i in enumerate(row)] for row in ids])
            bad = int((~ok.all(1)).sum())
            print(f"{asked:16} temperature {temperature}: no action " + percent(bad, 200, wilson(bad, 200)))


def six(_):
    """two policies: one learnt where words were needed, one where they were not; which is deaf?"""
    for name, squares in (("A", 2), ("B", 1)):
        config = tiny.config(steps=500, robot_fraction=1., lr_muon=1e-2, lr_adam=4e-3,
                             robot=[{"format": "tiny", "squares": squares}])
        everything = tiny.made(config)
        tiny.train(config, everything)
        print(f"policy {name}, 500 steps")
        rows = measure(policy_of(config, everything), [ONE, TWO], 200, quiet=True)
        print(table({"rows": rows}), "\n", flush=True)


def seven(_):
    """three recipes with the same robot samples: what only the web named, and what the web taught"""
    begin = dict(lr_muon=1e-2, lr_adam=4e-3)
    web = tiny.made(tiny.config(robot_fraction=0., steps=400, **begin))
    tiny.train(tiny.config(robot_fraction=0., steps=400, **begin), web)
    new = Line("new colours", lambda: tiny.Env(2, tiny.NEW))
    print(f"{'recipe':18}{'seen':>18}{'new colours':>18}{'web questions':>18}")
    for name, known, share, steps in (("the web alone", web, 1., 0), ("co-fine-tuning", web, .5, 600),
                                      ("fine-tuning", web, 1., 300), ("from scratch", None, 1., 300)):
        config = tiny.config(robot_fraction=share, steps=max(1, steps), **begin)
        everything = tiny.made(config, known)
        if steps:
            tiny.train(config, everything)
        policy, rng = policy_of(config, everything), np.random.default_rng(7)
        asked = [(tiny.picture(s), *tiny.question(s, rng), 0)
                 for s, _ in (tiny.scene(rng, list(tiny.COLOURS), 2) for _ in range(200))]
        rows = measure(policy, [TWO, new], 200, ("policy",), quiet=True)
        cells = [(row["success"], row["n"]) for row in rows]
        print(f"{name:18}" + "".join(f"{percent(k, n, wilson(k, n)):>18}"
                                     for k, n in (*cells, quiz(policy, asked))), flush=True)


def world_lines(policy):
    settings = data.settings_of("robot", policy.config["robot"][0])
    kind = data.log_class("robot", settings["format"])
    return [Line(*line) for line in kind.lines(settings, policy.config["image_size"])]


def nine(checkpoint):
    """success by how many actions are carried out before the next look, and by the bits of a weight"""
    chunks()
    bits_of_a_weight(checkpoint)


def chunks():
    """a tiny model whose answer holds two actions; in one of two worlds half of all moves slip"""
    config = tiny.config(steps=500, robot_fraction=1., lr_muon=1e-2, lr_adam=4e-3,
                         robot=[{"format": "tiny", "chunk": 2}])
    everything = tiny.made(config)
    tiny.train(config, everything)
    print(f"{'execute':10}{'no move slips':>18}{'half of them do':>18}   actions/s")
    for execute in (1, 2):
        policy = policy_of(config, everything, execute=execute)
        lines = [TWO, Line("half of them slip", lambda: tiny.Env(2, slip=.5))]
        cells = [percent(row["success"], row["n"], row["interval"])
                 for row in measure(policy, lines, 200, ("policy",), quiet=True)]
        rate = latency(policy, 100)["actions_per_s"]
        print(f"{execute:<10}" + "".join(f"{cell:>18}" for cell in cells) + f"{rate:12.0f}", flush=True)


def bits_of_a_weight(checkpoint, trials=100):
    from course.grading import ROOT
    if (ROOT / "course/int8.py").exists():
        from course import int8
    else:
        from course.solutions import int8
    policy = Policy(checkpoint, device="cpu")
    whole, line = policy.model, world_lines(policy)[0]
    for bits in (32, 8, 6, 5, 4, 3, 2):
        policy.model = whole if bits == 32 else int8.quantize_model(copy.deepcopy(whole), bits)
        begin = time.perf_counter()
        row = measure(policy, [line], trials, ("policy",), quiet=True)[0]
        speed = time.perf_counter() - begin
        rate = latency(policy, 10)["actions_per_s"]
        print(f"{bits:2} bits: {line.name} {percent(row['success'], row['n'], row['interval'])}   "
              f"{rate:5.1f} actions/s   {int8.n_bytes(policy.model) / 1e6:.2f} MB   ({speed:.0f} s)",
              flush=True)


def main():
    known = {1: one, 2: two, 3: three, 5: five, 6: six, 7: seven, 9: nine}
    parser = argparse.ArgumentParser(prog="python -m course.experiments", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, choices=known)
    parser.add_argument("--checkpoint", default="out/checkpoint.pt")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(known[args.number].__doc__)
    begin, used = time.monotonic(), time.process_time()
    try:
        known[args.number](args.checkpoint)
    except (ValueError, NotImplementedError) as error:
        sys.exit(f"error: {error}")
    print(f"{time.monotonic() - begin:.0f} seconds, {time.process_time() - used:.0f} of them on the CPU")


if __name__ == "__main__":
    main()
