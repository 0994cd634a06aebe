"""
The measurements of the handouts: python -m course.experiments N

The header of a handout says which assignments its experiment needs; if one is missing, the experiment says so
at once. 5 and 9 measure a trained model: out/checkpoint.pt, which `python train.py` leaves there, or else
study/cofine/checkpoint.pt, which comes with the project, or any other with --checkpoint FILE. --quick takes a
few steps and trials, to see that it runs. Each prints how long it took.
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
from course.assignments import ASSIGNMENTS, ROOT, look
from eval import Line, Policy, latency, measure, percent, quiz, table
from model import VLA, KVCache, ModelConfig

TWO = Line("two squares", lambda: tiny.Env(2))
ONE = Line("one square", lambda: tiny.Env(1))
QUICK = False


def few(n, quick):
    """n, or so many as --quick takes"""
    return quick if QUICK else n


def rate(k, n):
    """percent with its interval; until assignment 6 is written, without"""
    try:
        return percent(k, n)
    except NotImplementedError:
        return f"{100 * k / n:3.0f} % ({k} of {n})"


def trained(config, known=None):
    """what tiny.made gives, after config.steps"""
    everything = tiny.made(config, known)
    tiny.train(config, everything)
    return everything


def one(_):
    """round-trip error of 100,000 displacements by the number of bins"""
    from tokenizer import ActionTokenizer, Tokenizer, prompt
    tok = Tokenizer.train([prompt("pick up the apple")], 4096)
    x = np.random.default_rng(0).uniform(-.08, .08, (few(100_000, 100), 1))
    print("bins    mean error mm   largest mm   half a bin mm")
    for n in (4, 16, 64, 256, 1000):
        a = ActionTokenizer(tok, [-.08], [.08], names=("dx",), n_bins=n)
        off = 1000 * np.abs(a.decode(a.encode(x)) - x)
        print(f"{n:4}  {off.mean():12.3f} {off.max():12.3f} {80 / n:15.3f}")


def two(_):
    """answers that see the future: the same world, the same steps, one mask"""
    for leak in (False, True):
        config = tiny.config(steps=few(500, 2), robot_fraction=1., lr_muon=1e-2, lr_adam=4e-3)
        everything = tiny.made(config)
        model, right = everything[4], type(everything[4]).attention_bias
        if leak:                        # every token of a question sees all of that question
            model.attention_bias = lambda segment, answer: right(model, segment, torch.zeros_like(answer))
        curve = tiny.train(config, everything)
        envs = [tiny.Env(2) for _ in range(few(200, 4))]
        pictures = [env.reset(seed=1_000_000 + i)[0]["image"] for i, env in enumerate(envs)]
        moves = tiny.Policy(everything).act(None, pictures, [TWO.prompt(env.instruction) for env in envs])
        there = sum(abs(move[1] - env.expert()[1]) < .25 for env, move in zip(envs, moves))
        name = "all of their question" if leak else "what came before (the paper)"
        print(f"answers see {name:30} loss {np.mean(curve[-20:]):.3f}   goes to the right square "
              + rate(int(there), len(envs)), flush=True)


def three(_):
    """eight words with and without the KV cache, operations and bytes, in a model of the small preset"""
    c = ModelConfig(n_vocab=1669, n_layer=4)
    torch.manual_seed(0), torch.set_num_threads(1)
    model, n = VLA(c).eval(), 20                            # a prompt of 20 words, and 8 new ones
    images, T = torch.zeros(1, 64, 64, 3, dtype=torch.uint8), c.n_image + n
    x = torch.randn(1, T + 8, c.n_embd)
    see = (torch.arange(T + 8)[None] < T) | torch.ones(T + 8, T + 8).tril().bool()
    bias = torch.zeros(1, 1, T + 8, T + 8).masked_fill(~see, -torch.inf)

    def say(cached):
        model.encode_images(images)
        caches = [KVCache() for _ in model.blocks] if cached else None
        for end in range(T, T + 8):
            begin = end - 1 if cached and end > T else 0
            model.logits(model.transform(x[:, begin:end], bias[:, :, begin:end, :end], caches)[:, -1])

    for cached in (True, False):
        times = []
        with torch.no_grad():
            for _ in range(few(50, 2)):
                start = time.process_time()                 # of this process alone, on one core
                say(cached)
                times.append(time.process_time() - start)
        print(f"cache {str(cached):6} {1000 * np.median(times):6.1f} ms of CPU for a picture and 8 words "
              f"(median of {len(times)})")
    print(f"weights {model.n_weights():,}, operations of a training sample of 64 tokens, 16 of them "
          f"with loss: {model.flops(64, 16) / 1e6:.0f} million")
    print(f"keys and values of one token: {2 * c.n_layer * c.n_embd * 4} bytes in float32")


def five(checkpoint):
    """what a model would say without the constraint: share of answers that are no action"""
    policy, n = Policy(checkpoint, device="cpu"), few(200, 2)
    line, thought_len = world_lines(policy)[0], policy.config["thought_len"]
    pictures, prompts = zip(*[(env.reset(seed=s)[0]["image"], line.prompt(env.instruction))
                              for s in range(1_000_000, 1_000_000 + n) for env in [line.make()]])
    D, begin = len(policy.slots), policy.tokenizer.begin_action
    room = D + (thought_len + 1 if thought_len else 0)
    uniform = torch.from_numpy(np.random.default_rng(0).random((n, room)))

    def is_action(row):
        """are the D words where an action belongs the bins of one? (after " Action:", if the model thinks)"""
        if thought_len:
            row = row[row.index(begin) + 1:] if begin in row else []
        return len(row) >= D and all(policy.slots[d, row[d]] for d in range(D))

    for asked, words in (("its own prompt", prompts),
                         ("where is the apple?", ["Q: where is the apple? A:"] * n)):
        for temperature in (.5, 1., 2.):
            ids = policy.generate(list(pictures), list(words), room, temperature=temperature, uniform=uniform)
            bad = sum(not is_action(row) for row in ids.tolist())
            print(f"{asked:20} temperature {temperature}: no action " + rate(bad, n))


def six(_):
    """two policies: one learnt where words were needed, one where they were not; which is deaf?"""
    for name, squares in (("A", 2), ("B", 1)):
        config = tiny.config(steps=few(500, 2), robot_fraction=1., lr_muon=1e-2, lr_adam=4e-3,
                             robot=[{"format": "tiny", "squares": squares}])
        policy = tiny.Policy(trained(config))
        print(f"policy {name}, {config.steps} steps")
        print(table({"rows": measure(policy, [ONE, TWO], few(200, 4), quiet=True)}), "\n", flush=True)


def seven(_):
    """three recipes with the same robot samples: what only the web named, and what the web taught"""
    begin, n = dict(lr_muon=1e-2, lr_adam=4e-3), few(200, 4)
    web = trained(tiny.config(robot_fraction=0., steps=few(400, 2), **begin))
    new = Line("new colours", lambda: tiny.Env(2, tiny.NEW))
    print(f"{'recipe':18}{'seen':>18}{'new colours':>18}{'web questions':>18}")
    for name, known, share, steps in (("the web alone", web, 1., 0), ("co-fine-tuning", web, .5, 600),
                                      ("fine-tuning", web, 1., 300), ("from scratch", None, 1., 300)):
        config = tiny.config(robot_fraction=share, steps=few(max(1, steps), 2), **begin)
        everything = trained(config, known) if steps else tiny.made(config, known)
        policy, rng = tiny.Policy(everything), np.random.default_rng(7)
        asked = [(tiny.picture(s), *tiny.question(s, rng), 0)
                 for s, _ in (tiny.scene(rng, list(tiny.COLOURS), 2) for _ in range(n))]
        rows = measure(policy, [TWO, new], n, ("policy",), quiet=True)
        cells = [*((row["success"], row["n"]) for row in rows), quiz(policy, asked)]
        print(f"{name:18}" + "".join(f"{rate(*cell):>18}" for cell in cells), flush=True)


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
    config = tiny.config(steps=few(500, 2), robot_fraction=1., lr_muon=1e-2, lr_adam=4e-3,
                         robot=[{"format": "tiny", "chunk": 2}])
    everything = trained(config)
    print(f"{'execute':10}{'no move slips':>18}{'half of them do':>18}   actions/s")
    for execute in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            policy = Policy(tiny.save(Path(folder) / "c.pt", config, everything), "cpu", execute=execute)
        lines = [TWO, Line("half of them slip", lambda: tiny.Env(2, slip=.5))]
        cells = [rate(row["success"], row["n"])
                 for row in measure(policy, lines, few(200, 4), ("policy",), quiet=True)]
        per_s = latency(policy, few(100, 2))["actions_per_s"]
        print(f"{execute:<10}" + "".join(f"{cell:>18}" for cell in cells) + f"{per_s:12.0f}", flush=True)


def bits_of_a_weight(checkpoint):
    if (ROOT / "course/int8.py").exists():
        from course import int8
    else:
        from course.solutions import int8
    policy = Policy(checkpoint, device="cpu")
    whole, line = policy.model, world_lines(policy)[0]
    for bits in few((32, 8, 6, 5, 4, 3, 2), (32, 2)):
        policy.model = whole if bits == 32 else int8.quantize_model(copy.deepcopy(whole), bits)
        begin = time.perf_counter()
        row = measure(policy, [line], few(100, 1), ("policy",), quiet=True)[0]
        speed = time.perf_counter() - begin
        per_s = latency(policy, few(10, 1))["actions_per_s"]
        print(f"{bits:2} bits: {line.name} {rate(row['success'], row['n'])}   {per_s:5.1f} actions/s   "
              f"{int8.n_bytes(policy.model) / 1e6:.2f} MB   ({speed:.0f} s)", flush=True)


def default_checkpoint():
    """the model of `python train.py`, or else the one that comes with the project"""
    here = "out/checkpoint.pt", str(ROOT / "study/cofine/checkpoint.pt")
    return next((path for path in here if Path(path).exists()), here[0])


EXPERIMENTS = {1: one, 2: two, 3: three, 5: five, 6: six, 7: seven, 9: nine}


def main():
    global QUICK
    parser = argparse.ArgumentParser(prog="python -m course.experiments", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, choices=EXPERIMENTS)
    parser.add_argument("--checkpoint", default=default_checkpoint())
    parser.add_argument("--quick", action="store_true", help="a few steps and trials, to see that it runs")
    args = parser.parse_args()
    QUICK = args.quick
    if QUICK:
        tiny.Robot.options["episodes"] = tiny.Web.options["pictures"] = 20
    warnings.simplefilter("ignore")
    try:
        look(ASSIGNMENTS[args.number].experiment, f"experiment {args.number}")
        print(EXPERIMENTS[args.number].__doc__)
        begin, used = time.monotonic(), time.process_time()
        EXPERIMENTS[args.number](args.checkpoint)
    except (ValueError, NotImplementedError) as error:
        sys.exit(f"error: {error}")
    print(f"{time.monotonic() - begin:.0f} seconds, {time.process_time() - used:.0f} of them on the CPU")


if __name__ == "__main__":
    main()
