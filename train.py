"""
Train a vision-language-action model: first on the web, then on web and robot together, with one next-token loss.

    python train.py                                    # preset by hardware: configs/cpu.toml or configs/gpu.toml
    python train.py --config configs/cpu.toml --steps 2000 --robot_fraction 0.66
    python train.py --resume                           # go on where out/checkpoint.pt stopped

The three arms of the paper's table 6, with the same number of robot samples (1850 * 0.6 = 1110; each also needs --config configs/cpu.toml where
there is a GPU):
    python train.py --out_dir out/cofine                                                                # co-fine-tuning
    python train.py --out_dir out/fine --init_from out/cofine/web.pt --robot_fraction 1 --steps 1110    # fine-tuning
    python train.py --out_dir out/scratch --pretrain_steps 0 --robot_fraction 1 --steps 1110            # from scratch
"""
import argparse
import contextlib
import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import data
from formats.log import leave_ctrl_c_to_the_parent
from formats.weights import load_gpt2, load_vit
from model import VLA, ModelConfig
from ranks import Muon, Ranks, spread, whole
from tokenizer import Tokenizer
from world import web
from world.scene import SKILLS, VOCABULARIES


def key(default, help):
    make = {"default_factory": lambda: list(default)} if isinstance(default, (list, tuple)) else {"default": default}
    return dataclasses.field(**make, metadata={"help": help})


@dataclass
class Config:
    # where samples come from
    robot: list[dict] = key(({"format": "world"},), "robot logs: tables with format (world, rlds, lerobot, folder), path, "
                                                    "weight and more, as in configs/bridge.toml")
    web: list[dict] = key(({"format": "world"},), "pictures with questions: tables with format (world, vqa), path, weight")
    # files
    out_dir: str = key("out", "folder for checkpoints, log, table and pictures")
    data_dir: str = key("data", "folder where logs of the world and the web are kept")
    init_from: str = key("", "start from the weights of this checkpoint (then pretrain_steps is skipped)")
    resume: bool = key(False, "go on from out_dir/checkpoint.pt")
    seed: int = key(0, "of weights and of the order of samples")
    # the built-in world and web
    vocabulary: str = key("small", "which things there are: small, medium or full (world.VOCABULARIES)")
    skills: list = key(("pick", "move near"), "what the robot demonstrations do (world.SKILLS)")
    robot_episodes: int = key(4000, "demonstrations")
    days: bool = key(False, "each demonstration in the light, and on the table, of its own day")
    wordings: bool = key(False, "each demonstration is told in words of its own: bring the red item to the apple")
    web_pictures: int = key(20000, "pictures without a robot")
    easy_steps: int = key(0, "the first steps see the web's easy pictures: things with names, no cards, no people, no riddles")
    web_questions: list = key(("locate", "way", "what at", "caption"), "kinds of questions about them (web.QUESTIONS)")
    # words
    tokenizer_from: str = key("", "folder with GPT-2's vocab.json and merges.txt; without it words are learnt from the sources")
    n_vocab: int = key(4096, "most tokens of a vocabulary trained here")
    scheme: str = key("integer", "which tokens are the action's bins: integer (PaLI-X) or overwrite (PaLM-E)")
    attention: str = key("prefix", "how a prompt sees itself: prefix (PaLI-X-like) or causal (PaLM-E-like)")
    # model
    image_size: int = key(64, "pixels a side")
    frames: int = key(1, "pictures a robot sample has: the step's and those before it (the paper's Language-Table runs: 2)")
    patch_size: int = key(8, "pixels a side of a ViT patch")
    vit_layer: int = key(2, "blocks of the ViT")
    vit_head: int = key(4, "heads of the ViT")
    vit_embd: int = key(96, "width of the ViT")
    vit_cls: bool = key(False, "a class token among the patches, as published ViTs have")
    vit_eps: float = key(1e-5, "epsilon of the ViT's LayerNorm (published ViTs: 1e-12)")
    n_layer: int = key(4, "blocks of the GPT")
    n_head: int = key(4, "heads of the GPT")
    n_embd: int = key(96, "width of the GPT")
    gelu: str = key("none", "the GPT's GELU: none = exact, tanh = GPT-2's approximation")
    shift: int = key(0, "how many positions farther on, at most, a training sample's words may stand, so that they mean the same wherever they stand")
    shift_from: int = key(0, "and from which step on: the first words have to be learnt at one place; with init_from, from the first")
    order: float = key(0.0, "how alike neighbouring numbers begin: size of the waves in their embeddings (0.06; 0 = all random)")
    vit_from: str = key("", "start the ViT from this file of published weights (safetensors)")
    gpt2_from: str = key("", "start the GPT from this file of GPT-2's weights (safetensors)")
    text_len: int = key(64, "tokens of text behind a picture; questions are added until it is full")
    # training
    pretrain_steps: int = key(950, "steps on the web alone, which make the vision-language model; saved as web.pt")
    steps: int = key(1850, "steps of (co-)fine-tuning after that")
    thoughts: float = key(0.0, "share of robot samples whose instruction takes a thought (chain of thought, section 4.4)")
    points: bool = key(False, "an action begins with two places in the picture: of what is to be taken, and where that is to go")
    plans: bool = key(True, "a thought is written as a plan before the action")
    robot_fraction: float = key(0.6, "share of robot samples in every batch of the second stage; 1 = fine-tuning")
    batch_size: int = key(64, "samples a step")
    micro_batches: int = key(1, "cut a batch into this many parts; ranks share them, and each adds up the gradients of its own")
    lr_muon: float = key(4e-3, "learning rate of Muon, for the matrices of the blocks")
    lr_adam: float = key(2e-3, "learning rate of AdamW, for everything else")
    weight_decay: float = key(0.01, "of both")
    warmup: int = key(100, "steps of linear warm-up")
    cooldown: float = key(0.4, "share of all steps over which the rate falls to zero at the end")
    clip: float = key(1.0, "largest norm of the gradient")
    # machine
    device: str = key("auto", "auto, cpu, cuda or cuda:N")
    dtype: str = key("auto", "float32, bfloat16, or auto: bfloat16 where the hardware multiplies it")
    compile: bool = key(False, "torch.compile the blocks (worth it on a GPU)")
    recompute: bool = key(False, "keep no activations inside blocks, compute them again (less memory, a third more time)")
    parallel: str = key("ddp", "on several ranks: ddp = the whole model on each, fsdp = a share of it on each")
    workers: int = key(0, "processes that prepare batches; 0 = the training process itself")
    log_every: int = key(100, "steps between lines of the log")
    save_every: int = key(500, "steps between checkpoints")
    # the end
    evaluate: bool = key(True, "after training, print the table and draw the pictures (eval.py)")
    trials: int = key(200, "closed-loop trials for a row of the table")

    def __post_init__(self):
        for name, allowed in (("vocabulary", VOCABULARIES), ("scheme", ("integer", "overwrite")),
                              ("attention", ("prefix", "causal")), ("gelu", ("none", "tanh")),
                              ("parallel", ("ddp", "fsdp")), ("dtype", ("auto", "float32", "bfloat16"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}; use one of: {', '.join(allowed)}")
        for name, known in (("skills", SKILLS), ("web_questions", web.QUESTIONS)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name} has {value!r}; there are: {', '.join(known)}")
        for name, least in dict(robot_episodes=1, web_pictures=1, image_size=8, patch_size=1, vit_layer=1, vit_head=1,
                                n_layer=1, n_head=1, text_len=24, steps=1, pretrain_steps=0, batch_size=1, micro_batches=1, frames=1,
                                warmup=0, workers=0, easy_steps=0, shift=0, shift_from=0, log_every=1, save_every=1, trials=1, seed=0).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}; it must be at least {least}")
        for half, known in data.SOURCE.items():
            for source in getattr(self, half):
                if "format" not in source or source["format"] != "world" and "path" not in source:
                    raise ValueError(f"a source under [[{half}]] needs a format, and a path unless the format is \"world\": {source}")
                for name, kind in known.items():
                    if type(source.get(name, kind())) not in (kind, int):
                        raise ValueError(f"[[{half}]] {name} = {source[name]!r} must be of type {kind.__name__}")
                if source.get("weight", 1) <= 0 or source.get("hold_out", 2) < 2:
                    raise ValueError(f"[[{half}]] needs weight above 0 and hold_out of at least 2: {source}")
        if not self.skills or not self.web_questions:
            raise ValueError("skills and web_questions need at least one entry each")
        for name in ("robot_fraction", "thoughts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}; it is a share, from 0 to 1")
        if self.init_from and (self.tokenizer_from or self.gpt2_from or self.vit_from):
            raise ValueError("init_from has words and weights already; leave tokenizer_from, gpt2_from and vit_from out")
        if self.micro_batches > self.batch_size:
            raise ValueError(f"micro_batches = {self.micro_batches}, but a batch has only {self.batch_size} samples")


def table(text: str) -> dict:
    """Example: table('format="rlds", path="/data/bridge"') -> {"format": "rlds", "path": "/data/bridge"}"""
    try:
        return tomllib.loads(f"x = {{{text}}}")["x"]
    except tomllib.TOMLDecodeError as e:
        raise argparse.ArgumentTypeError(f'{text!r} is no inline TOML table ({e}); write format="rlds", path="/data"') from None


def read_config(argv=None) -> Config:
    """
    defaults < preset file < command line; to resume, defaults < the checkpoint's own configuration < command line.
    Unknown keys and wrong types are errors that name the key.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="", help="preset file; without it configs/gpu.toml or configs/cpu.toml")
    kinds = {bool: {"action": argparse.BooleanOptionalAction}, list: {"type": str, "nargs": "+"},
             list[dict]: {"type": table, "nargs": "+", "metavar": 'format="...", path="...", ...'}}
    for f in dataclasses.fields(Config):
        kind = kinds.get(f.type, {"type": f.type})
        default = f.default if f.default is not dataclasses.MISSING else f.default_factory()
        parser.add_argument(f"--{f.name}", default=None, help=f"{f.metadata['help']} ({default})".replace("%", "%%"), **kind)
    args = vars(parser.parse_args(argv))
    if args["resume"] and args["config"]:
        raise ValueError("--resume reads the configuration from the checkpoint in --out_dir; leave --config out")
    by_hardware = Path(__file__).parent / "configs" / ("gpu.toml" if torch.cuda.is_available() else "cpu.toml")
    path = Path(args.pop("config") or by_hardware)
    try:
        if args["resume"]:
            path = Path(args["out_dir"] or Config.out_dir) / "checkpoint.pt"
            preset = {**load(path)["config"], "out_dir": str(path.parent)}
        else:
            preset = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"no preset {path}; there are: {', '.join(sorted(map(str, Path('configs').glob('*.toml'))))}") from None
    except tomllib.TOMLDecodeError as e:
        raise ValueError(f"{path}: {e}") from None
    types = {f.name: f.type for f in dataclasses.fields(Config)}
    for name, value in preset.items():
        if name not in types:
            raise ValueError(f"{path}: unknown key {name!r}; see python train.py --help")
        if types[name] is float and type(value) is int:
            preset[name] = float(value)
        elif types[name] == list[dict]:
            if type(value) is not list or not all(type(v) is dict for v in value):
                raise ValueError(f"{path}: {name} must be tables, each under a line [[{name}]]")
        elif type(value) is not types[name]:
            raise ValueError(f"{path}: {name} = {value!r} must be of type {types[name].__name__}")
    return Config(**{**preset, **{k: v for k, v in args.items() if v is not None}})


# ---------------------------------------------------------------------------------------------------------------------
# parts

def model_config(c: Config, n_vocab: int) -> ModelConfig:
    shared = [f.name for f in dataclasses.fields(ModelConfig) if f.name not in ("n_vocab", "max_text")]
    return ModelConfig(n_vocab=n_vocab, max_text=c.text_len, **{name: getattr(c, name) for name in shared})


def make_optimizers(model, c: Config):
    """Muon for the matrices inside the blocks, AdamW for embeddings, norms, biases and the ways in"""
    inner = [p for name, p in model.named_parameters() if ".blocks." in f".{name}" and p.ndim == 2]
    ids = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in ids]
    muon = Muon(inner, lr=c.lr_muon, weight_decay=c.weight_decay, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW([{"params": [p for p in outer if p.ndim > 1], "weight_decay": c.weight_decay},
                              {"params": [p for p in outer if p.ndim < 2], "weight_decay": 0.0}], lr=c.lr_adam, betas=(0.9, 0.98))
    return {"muon": muon, "adam": adam}


def lr_scale(step: int, total: int, c: Config) -> float:
    """up over warmup steps, flat, then down to zero in a straight line"""
    down = max(1, int(c.cooldown * total))
    return min(1.0, (step + 1) / max(1, c.warmup), (total - step) / down)


def save(path, **state):
    """write beside it, then rename: a checkpoint is there whole or not at all"""
    path = Path(path)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)


def load(path, device="cpu"):
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"no checkpoint {path}; train first (python train.py), or name another file") from None
    except Exception as e:
        raise ValueError(f"{path} cannot be read as a checkpoint ({type(e).__name__}); "
                         "it may be cut short: use another one") from None
    missing = {"model", "config", "tokenizer", "robots"} - set(state)
    if missing:
        raise ValueError(f"{path} is no checkpoint of this project: it has no {', '.join(sorted(missing))}")
    return state


def begin_log(path: Path, start: int):
    """keep the lines up to step start; what a killed run wrote after its last checkpoint, perhaps half a line, goes"""
    kept = []
    for line in path.read_text().splitlines() if start and path.exists() else ():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= start:
                kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def keep_memory():
    """glibc hands every large block back to the system at once; keeping them saves a tenth of a step on a CPU"""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def memory(device):
    """the most memory in use so far, GB: the GPU's, or this process's"""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource                                     # not on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def autocast(device, dtype: str):
    if dtype == "auto":
        # slower than float32 on processors that cannot multiply it
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        dtype = "bfloat16" if fast else "float32"
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()


def measure(logits, ce, batch, robots: dict):
    """
    What a person wants to know of a batch: the loss on actions, on other questions about the robot's view, and on the web;
    the share of action tokens that are right, in all and by number; the mean distance of actions in their own units.
    robots: name -> ActionTokenizer, in the order of batch["source"].
    """
    segment, target = batch["segment"], batch["target"]
    source = batch["source"][:, None].expand_as(segment)[target]                       # (M,) the robot of each target, -1 = web
    first = target & (segment == 1)
    left = first.flip(1).cumsum(1).flip(1)[target]                                     # (M,) how many targets of it are left
    length = torch.tensor([len(a.names) + 1 for a in robots.values()], device=left.device)[source.clamp(min=0)] if robots else left
    act = (source >= 0) & (segment[target] == 1) & (left <= length)                    # (M,) an action's token, or its eos
    out = {name: ce[mask].mean().item() for name, mask in (("action", act), ("view", (source >= 0) & ~act), ("web", source < 0))
           if mask.any()}
    hits, out_of = 0, 0
    for k, (name, actions) in enumerate(robots.items()):
        mine, D = act & (source == k), len(actions.names)
        if mine.any():
            wanted = batch["tokens"][target][mine].view(-1, D + 1)[:, :D]              # (n, D)
            allowed = torch.from_numpy(actions.allowed).to(logits.device)
            guess = logits[mine].view(-1, D + 1, logits.size(-1))[:, :D].masked_fill(~allowed, -math.inf).argmax(-1)
            error = np.abs(actions.decode(guess.cpu().numpy()) - actions.decode(wanted.cpu().numpy())).mean(0)
            numbers = [n if len(robots) == 1 else f"{name} {n}" for n in actions.names]
            out.setdefault("right", {}).update(zip(numbers, (guess == wanted).float().mean(0).tolist()))
            out.setdefault("l1", {}).update(zip(numbers, error.tolist()))
            hits, out_of = hits + (guess == wanted).sum().item(), out_of + wanted.numel()
    if out_of:
        out["accuracy"] = hits / out_of
    return out


# ---------------------------------------------------------------------------------------------------------------------
# the loop

def train(c: Config):
    """runs the recipe, returns the path of the last checkpoint"""
    ranks = Ranks(c)
    out, device = Path(c.out_dir), ranks.device
    out.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.manual_seed(c.seed)
    torch.set_float32_matmul_precision("high")
    state = load(out / "checkpoint.pt") if c.resume else load(c.init_from) if c.init_from else None
    for name in ("vocabulary", "scheme", "attention", "image_size", "frames", "patch_size", "vit_layer", "vit_head", "vit_embd",
                 "vit_cls", "vit_eps", "n_layer", "n_head", "n_embd", "gelu", "text_len") if state else ():
        if state["config"][name] != getattr(c, name):
            raise ValueError(f"the checkpoint has {name} = {state['config'][name]!r}, not {getattr(c, name)!r}; "
                             "leave it as it was")
    start = state["step"] if c.resume else 0
    pretrain = 0 if c.init_from else c.pretrain_steps       # the weights of init_from have been to the web
    total = pretrain + c.steps
    robots, webs = ranks.in_turn(lambda: data.open_sources(c, pretrain, quiet=not ranks.first))
    tokenizer = Tokenizer.from_state(state["tokenizer"]) if state else data.make_tokenizer(c, robots, webs)
    actions = data.make_actions(c, robots, tokenizer, state)
    mix, held_out = data.make_data(c, robots, webs, actions, tokenizer, pretrain)

    model = VLA(model_config(c, tokenizer.n_vocab)).to(device)
    model.recompute = c.recompute
    if state:
        model.load_state_dict(state["model"])
    else:
        if c.order:
            model.order(tokenizer.integers[:256], c.order)
            for a in actions.values() if c.scheme == "overwrite" else ():
                model.order(a.ids, c.order)
        for path, load_weights in ((c.vit_from, load_vit), (c.gpt2_from, load_gpt2)):
            if path:
                load_weights(model, path)
    n_weights, flops = model.n_weights(), model.flops(c.text_len, c.text_len // 4)
    run = ranks.share(model, c)
    optimizers = make_optimizers(model, c)
    if c.resume:
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(spread(state["optimizers"][name], optimizer))
        torch.set_rng_state(state["rng"])
    items = [(step, part) for step in range(start, total) for part in ranks.parts]
    del state                                               # a second copy of the weights
    loader = torch.utils.data.DataLoader(mix, batch_size=None, sampler=items, num_workers=c.workers,
                                         pin_memory=device.type == "cuda", worker_init_fn=leave_ctrl_c_to_the_parent,
                                         # forked workers share the logs; spawned ones would copy them
                                         multiprocessing_context="fork" if c.workers and sys.platform == "linux" else None)
    say = print if ranks.first else lambda *_: None
    where = f"{device} x {ranks.world}, {c.parallel}" if ranks.world > 1 else device
    say(f"{where}: {n_weights / 1e6:.2f} M weights, {flops / 1e6:.0f} MFLOP a sample, "
        f"{pretrain} steps of web then {c.steps} with {c.robot_fraction:.0%} robot, batch {c.batch_size}")

    def checkpoint(name, step):
        parts = dict(model=whole(model.state_dict()), optimizers={k: whole(o.state_dict()) for k, o in optimizers.items()})
        if ranks.first:
            save(out / name, **parts, step=step, rng=torch.get_rng_state(), config=asdict(c), model_config=asdict(model.config),
                 tokenizer=tokenizer.state(), robots={name: a.state() for name, a in actions.items()})

    if ranks.first:
        begin_log(out / "log.jsonl", start)
    stopped = []                    # Ctrl-C, or a scheduler's SIGTERM, ends the step it comes in, so that nothing is half done
    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {s: signal.signal(s, lambda *_: stopped.append(True)) for s in (signal.SIGINT, signal.SIGTERM)}
    began, waited, batches = time.time(), 0.0, iter(loader)
    bar = tqdm(total=total, initial=start, desc="training", unit="step", mininterval=2, disable=not ranks.first)
    try:
        with open(out / "log.jsonl" if ranks.first else os.devnull, "a") as log:
            for step in range(start, total):
                for optimizer, lr in ((optimizers["muon"], c.lr_muon), (optimizers["adam"], c.lr_adam)):
                    for group in optimizer.param_groups:
                        group["lr"] = lr * lr_scale(step, total, c)
                asked = time.time()
                parts = [next(batches) for _ in ranks.parts]
                waited += time.time() - asked
                n_target = max(1, ranks.total(sum(int(batch["target"].sum()) for batch in parts)))
                for k, batch in enumerate(parts):
                    batch = {name: x.to(device, non_blocking=True) for name, x in batch.items()}
                    with ranks.sync(run, last=k == len(parts) - 1):
                        with autocast(device, c.dtype):
                            logits, ce = run(batch["images"], batch["tokens"], batch["segment"], batch["target"], batch["shift"])
                        # the mean over all targets of all ranks, whose gradients will be averaged
                        (ce.sum() * (ranks.world / n_target)).backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
                norm = whole(norm).item()
                if not math.isfinite(norm):
                    raise FloatingPointError(f"the gradient became {norm} at step {step}; lower lr_muon and lr_adam, "
                                             f"then --resume from the last checkpoint in {out}")
                for optimizer in optimizers.values():
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                bar.update()
                if (step + 1) % c.log_every == 0 or step + 1 == total:
                    m = measure(logits.detach(), ce.detach(), batch, actions)
                    if step >= pretrain and held_out:       # what is said of the robot is said of episodes not trained on
                        test = {k: v.to(device) for k, v in held_out[step, 0].items()}
                        with torch.no_grad(), autocast(device, c.dtype):
                            said = run(test["images"], test["tokens"], test["segment"], test["target"])
                            m.update(measure(*said, test, actions))
                    seconds = time.time() - began
                    speed = (step + 1 - start) * c.batch_size / seconds
                    log.write(json.dumps({"step": step + 1, "minutes": seconds / 60, "samples_per_s": speed,
                                          "waiting": waited / seconds, "gflops": flops * speed / 1e9,
                                          "memory_gb": memory(device), "norm": norm, **m}) + "\n")
                    log.flush()
                    text = " ".join(f"{k} {m[k]:.2f}" for k in ("web", "view", "action", "accuracy") if k in m)
                    if list(actions) == ["world"] and "l1" in m:            # a log's units are its own
                        text += f" L1 {100 * np.mean([m['l1'][k] for k in ('dx', 'dy', 'dz')]):.1f} cm"
                    bar.set_postfix_str(f"{text} {speed:.0f} samples/s")
                if step + 1 == pretrain:
                    checkpoint("web.pt", step + 1)
                halt = ranks.total(bool(stopped)) > 0
                if (step + 1) % c.save_every == 0 or step + 1 == total or halt:
                    checkpoint("checkpoint.pt", step + 1)
                if halt:
                    ranks.part()
                    start_with = "python" if ranks.world == 1 else f"torchrun --nproc_per_node {ranks.world}"
                    sys.exit(f"\nstopped after step {step + 1}; go on with: {start_with} train.py --resume --out_dir {out}"
                             if ranks.first else 1)
    finally:
        bar.close()
        for s, handler in previous.items():
            signal.signal(s, handler)
    ranks.part()
    return out / "checkpoint.pt"


def main():
    try:
        c = read_config()
        path = train(c)
        if c.evaluate and os.environ.get("RANK", "0") == "0":
            import eval as evaluation
            evaluation.report(path, trials=c.trials, device="auto" if "RANK" in os.environ else c.device)
    except (ValueError, FloatingPointError, OSError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was being learnt")


if __name__ == "__main__":
    main()
