"""
Train a vision-language-action model: first on the web, then on web and robot together, with one next-token
loss.

    python train.py                           # the preset configs/small.toml, on a GPU if there is one
    python train.py --config configs/study.toml --steps 2000 --robot_fraction 0.66
    python train.py --resume                  # go on where out/checkpoint.pt stopped
    torchrun --nproc_per_node 8 train.py --config configs/bridge.toml

The three recipes of the paper's table 6, with the same number of robot samples (2700 steps of half a batch
are 1350 of a whole one):

    # co-fine-tuning
    python train.py --out_dir out/cofine
    # fine-tuning
    python train.py --out_dir out/fine --init_from out/cofine/web.pt --robot_fraction 1 --steps 1350
    # from scratch
    python train.py --out_dir out/scratch --pretrain_steps 0 --robot_fraction 1 --steps 1350

Read in this order: Config, the recipe; train_step(), one step; train(), the whole run. What follows them is
craft: presets, checkpoints, many GPUs.
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
import zipfile
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel as DDP
from tqdm import tqdm

import data
from data import ACTION, ASKED
from model import VLA, ModelConfig
from tokenizer import Tokenizer

VERSION = 3             # of the checkpoint's format


# --------------------------------------------------------------------------------------------------------
# configuration

def key(default, help, *allowed, least=-math.inf, most=2**31):
    """
    one key of a preset: its default, what --help says, the words that it may be or the range of its number
    """
    make = {"default": default} if type(default) not in (list, dict) else \
           {"default_factory": lambda: json.loads(json.dumps(default))}
    return dataclasses.field(**make, metadata=dict(help=help, allowed=allowed, least=least, most=most))


@dataclass
class Config:
    # what it learns from
    robot: list = key([{"format": "world"}], "robot logs: tables of format world, rlds, lerobot or folder")
    web: list = key([{"format": "world"}], "pictures with questions: tables of format world or vqa")
    data_dir: str = key("data", "folder where recordings and indexes of logs are kept")
    # the model
    pretrained: dict = key({}, "published weights to start from: {gpt2 = folder, vit = folder}")
    scheme: str = key("integer", "tokens that are an action's bins: integer (PaLI-X) or overwrite (PaLM-E)",
                      "integer", "overwrite")
    attention: str = key("prefix", "how a prompt sees itself: prefix (PaLI-X) or causal (PaLM-E)",
                         "prefix", "causal")
    n_vocab: int = key(4096, "most tokens of a vocabulary that is trained here", least=1260, most=1_000_000)
    image_size: int = key(64, "pixels a side", least=8, most=4096)
    frames: int = key(1, "steps that a sample shows, the last ones (in Language-Table: 2)", least=1, most=64)
    patch_size: int = key(8, "pixels a side of a ViT patch", least=1, most=4096)
    vit_layer: int = key(2, "blocks of the ViT", least=1, most=1000)
    vit_head: int = key(4, "heads of the ViT", least=1, most=1000)
    vit_embd: int = key(96, "width of the ViT", least=1, most=100_000)
    n_layer: int = key(4, "blocks of the GPT", least=1, most=1000)
    n_head: int = key(4, "heads of the GPT", least=1, most=1000)
    n_embd: int = key(96, "width of the GPT", least=1, most=100_000)
    text_len: int = key(64, "tokens of text behind a picture, filled with questions", least=24, most=100_000)
    thought_len: int = key(0, "most tokens of a thought (section 4.4); 0 = none", least=0, most=10_000)
    # the recipe
    init_from: str = key("", "start from the weights of this checkpoint (then pretrain_steps is skipped)")
    seed: int = key(0, "of weights and of the order of samples", least=0)
    pretrain_steps: int = key(1000, "first steps, on the web alone; saved as web.pt", least=0)
    steps: int = key(2700, "steps of (co-)fine-tuning after that", least=1)
    robot_fraction: float = key(0.5, "share of robot samples after that; 1 = fine-tuning", least=0, most=1)
    batch_size: int = key(64, "samples a step", least=1, most=1_000_000)
    micro_batches: int = key(1, "cut a batch into this many; ranks share them, and gradients add up", least=1)
    lr_muon: float = key(3e-3, "learning rate of Muon, for the matrices of the blocks", least=0)
    lr_adam: float = key(2e-3, "learning rate of AdamW, for everything else", least=0)
    weight_decay: float = key(0.01, "of both", least=0)
    warmup: int = key(100, "steps of linear warm-up", least=0)
    cooldown: float = key(0.4, "share of steps, the last, over which the rates fall to 0", least=0, most=1)
    clip: float = key(1.0, "largest norm of the gradient", least=0)
    # the machine
    device: str = key("auto", "auto, cpu, cuda, cuda:N or mps")
    dtype: str = key("auto", "auto: bfloat16 where the hardware multiplies it", "auto", "float32", "bfloat16")
    compile: bool = key(False, "torch.compile the blocks (worth it on a GPU)")
    recompute: bool = key(False, "compute activations again on the way back: less memory, 1/3 more time")
    parallel: str = key("ddp", "on several ranks: ddp = the whole model on each, fsdp = a shard of it",
                        "ddp", "fsdp")
    workers: int = key(0, "processes that prepare batches; 0 = the training itself", least=0, most=256)
    # files
    out_dir: str = key("out", "folder for checkpoints, log, table and pictures")
    log_every: int = key(100, "steps between lines of the log", least=1)
    save_every: int = key(500, "steps between checkpoints", least=1)
    trials: int = key(200, "closed-loop trials for a row of the table at the end; 0 = no table", least=0)

    def __post_init__(self):
        for f in dataclasses.fields(self):
            value, about = getattr(self, f.name), f.metadata
            if f.type is float and type(value) is int:
                setattr(self, f.name, value := float(value))
            if type(value) is not f.type:
                raise ValueError(f"{f.name} = {value!r} must be of type {f.type.__name__}")
            if about["allowed"] and value not in about["allowed"]:
                raise ValueError(f"{f.name} = {value!r}; use one of: {', '.join(about['allowed'])}")
            # NaN is in no range
            if f.type in (int, float) and not about["least"] <= value <= about["most"]:
                raise ValueError(f"{f.name} = {value}; it must be from {about['least']} to {about['most']}")
        for side in data.COMMON:
            for table in getattr(self, side):
                if type(table) is not dict:
                    raise ValueError(f"{side} must be tables, each under a line [[{side}]]; it has {table!r}")
                data.settings_of(side, table)
        if self.init_from and self.pretrained:
            raise ValueError("init_from has words and weights already; leave pretrained out")
        if self.micro_batches > self.batch_size:
            raise ValueError(f"micro_batches = {self.micro_batches}, "
                             f"but a batch has only {self.batch_size} samples")
        if self.robot_fraction == 0 and self.trials:
            raise ValueError("robot_fraction = 0 trains no robot that could be measured; set trials = 0")
        if 0 < self.robot_fraction and round(self.batch_size * self.robot_fraction) == 0:
            raise ValueError(f"robot_fraction = {self.robot_fraction} of batch_size = {self.batch_size} "
                             "is no sample; raise either")

    @property
    def n_pretrain(self) -> int:
        """steps on the web alone; 0 with init_from, whose weights know the web"""
        return 0 if self.init_from else self.pretrain_steps


# what weights are made for: neither init_from nor --resume may change it
SHAPE = ("scheme", "attention", "image_size", "frames", "patch_size", "vit_layer", "vit_head", "vit_embd",
         "n_layer", "n_head", "n_embd", "text_len")
# what --resume may change, and nothing else
FREE = ("steps", "trials", "lr_muon", "lr_adam", "device", "dtype", "compile", "recompute", "parallel",
        "workers", "data_dir", "out_dir", "log_every", "save_every")


# --------------------------------------------------------------------------------------------------------
# one step

def make_optimizers(model, config: Config) -> dict:
    """Muon for the matrices inside the blocks, AdamW for all else: embeddings, norms, biases, projections"""
    inner, outer = [], []
    for name, p in model.named_parameters():
        (inner if ".blocks." in f".{name}" and p.ndim == 2 else outer).append(p)
    muon = Muon(inner, dict(lr=config.lr_muon, weight_decay=config.weight_decay, momentum=0.95))
    adam = torch.optim.AdamW([{"params": [p for p in outer if p.ndim > 1],
                               "weight_decay": config.weight_decay},
                              {"params": [p for p in outer if p.ndim < 2], "weight_decay": 0.0}],
                             lr=config.lr_adam, betas=(0.9, 0.98))
    return {"muon": muon, "adam": adam}


def lr_scale(step: int, total: int, config: Config) -> float:
    """up over warmup steps, flat, then down to zero in a straight line"""
    down = max(1, int(config.cooldown * total))
    return min(1.0, (step + 1) / max(1, config.warmup), (total - step) / down)


def autocast(device, dtype: str):
    """bfloat16 products where asked for, or, for "auto", where the hardware multiplies it"""
    if dtype == "auto":
        # elsewhere slower than float32
        on_cpu = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if on_cpu or on_gpu else "float32"
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()


def forward(model, batch, config: Config, device):
    """
    a batch of data.Mix -> logits (M, n_vocab) and losses (M,) of its answer tokens; and the moved batch
    """
    batch = {name: x.to(device, non_blocking=device.type == "cuda") for name, x in batch.items()}
    with autocast(device, config.dtype):
        answer = batch["label"] != ASKED        # answers are predicted: words and actions alike
        logits, losses = model(batch["images"], batch["tokens"], batch["segment"], answer)
    return logits, losses, batch


def train_step(model, micro_batches, optimizers, scale, config: Config, ranks):
    """
    One step on this rank's micro-batches of one batch: forward, backward, clip, update. scale: of both
    learning rates. Returns the norm of the gradient before clipping, and what forward() gave for the last
    micro-batch.
    """
    for optimizer, lr in ((optimizers["muon"], config.lr_muon), (optimizers["adam"], config.lr_adam)):
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
    n_target = ranks.total(sum(int((batch["label"] != ASKED).sum()) for batch in micro_batches))
    for k, batch in enumerate(micro_batches):
        with ranks.sync(model, last=k == len(micro_batches) - 1):
            logits, losses, batch = forward(model, batch, config, ranks.device)
            # one mean over the targets of all micro-batches and ranks: robot and web have the same loss.
            # (the ranks' gradients are averaged, hence the factor)
            (losses.sum() * ranks.world / n_target).backward()
    norm = gather(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)).item()
    if not math.isfinite(norm):
        raise FloatingPointError(f"the gradient became {norm}; lower lr_muon and lr_adam, "
                                 "then --resume from the last checkpoint")
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm, logits.detach(), losses.detach(), batch


# --------------------------------------------------------------------------------------------------------
# the whole run

def train(config: Config, resume=False, other_data=False) -> Path:
    """
    Runs the recipe: n_pretrain steps on the web, then steps on web and robot. Returns the last checkpoint's
    path. other_data: a resumed run takes the logs as they are, although they have changed.
    """
    ranks, out = Ranks(config), Path(config.out_dir)
    with only_run(out, resume) if ranks.first else contextlib.nullcontext():
        quicken_cpu()
        state, logs, fingerprints, tokenizer, robots, model = set_up(config, ranks, resume, other_data)
        mix, held_out = data.make_mix(config, logs, robots, tokenizer)
        model.to(ranks.device)
        flops = model.flops(config.text_len, config.text_len // 4)      # about a quarter of the text has loss
        if ranks.first:
            print(f"{ranks.device} x {ranks.world}: {model.n_weights() / 1e6:.2f} M weights, "
                  f"{flops / 1e6:.0f} MFLOP a sample, {config.n_pretrain} steps of web, "
                  f"then {config.steps} with {config.robot_fraction:.0%} robot, batch {config.batch_size}")
        wrapped, optimizers = ranks.wrap(model, config), make_optimizers(model, config)
        start, total = state["step"] if resume else 0, config.n_pretrain + config.steps
        if resume:
            with damaged(out / "checkpoint.pt"):
                for name in optimizers:
                    optimizers[name].load_state_dict(shard(state["optimizers"][name], optimizers[name]))
        del state                                               # the optimizers have taken theirs

        def checkpoint(file, step):
            weights = gather(model.state_dict())                # all ranks take part, the first one writes
            states = {name: gather(o.state_dict()) for name, o in optimizers.items()}
            if ranks.first:
                save(out / file, model=weights, optimizers=states, step=step, config=asdict(config),
                     model_config=asdict(model.config), tokenizer=tokenizer.state(),
                     robots={name: robot.state() for name, robot in robots.items()}, data=fingerprints)

        batches = make_batches(mix, config, ranks, range(start, total))
        done, halt = start, False
        with stop_between_steps() as stopped, Progress(config, ranks, start, total, flops) as progress:
            for step in range(start, total):
                before = time.monotonic()
                micro_batches = [next(batches) for _ in ranks.micro]
                progress.waited += time.monotonic() - before        # for data
                scale = lr_scale(step, total, config)
                norm, *results = train_step(wrapped, micro_batches, optimizers, scale, config, ranks)
                done = step + 1
                progress.bar.update()
                if done % config.log_every == 0 or done == total:
                    found = metrics(*results, mix)
                    # what is logged about the robot comes from held-out episodes, if there are any
                    if step >= config.n_pretrain and held_out:
                        with torch.no_grad():
                            results = forward(wrapped, held_out[step, 0], config, ranks.device)
                        found.update(metrics(*results, held_out))
                    progress.write(done, norm=norm, lr_scale=scale, **found)
                if done == config.n_pretrain:
                    checkpoint("web.pt", done)
                halt = ranks.total(bool(stopped)) > 0           # a signal may reach one rank alone
                if done % config.save_every == 0 or done == total or halt:
                    checkpoint("checkpoint.pt", done)
                    if ranks.first:
                        show(config, done, halt)
                if halt:
                    break
        ranks.finish()
    if halt and done < total:
        how = "python" if ranks.world == 1 else f"torchrun --nproc_per_node {ranks.world}"
        sys.exit(f"\nstopped after step {done}; go on with: {how} train.py --resume --out_dir {out}"
                 if ranks.first else 1)
    return out / "checkpoint.pt"


def make_batches(mix, config: Config, ranks, steps):
    """Yields the micro-batches of this rank for these steps. ValueError, in one line, if a worker ends."""
    loader = torch.utils.data.DataLoader(
        mix, batch_size=None, sampler=[(step, k) for step in steps for k in ranks.micro],
        num_workers=config.workers, pin_memory=ranks.device.type == "cuda", worker_init_fn=data.helper,
        # forked workers share the logs; spawned ones would copy them
        multiprocessing_context="fork" if config.workers and sys.platform == "linux" else None)
    try:
        yield from loader
    except (ValueError, OSError, RuntimeError) as e:
        if "DataLoader worker" not in str(e):
            raise
        why = str(e).strip().splitlines()[-1]               # above it stands the worker's traceback
        raise ValueError(f"a process that prepares batches ended: {why}; go on with --resume, "
                         "or with --workers 0 as well") from None


def set_up(config: Config, ranks, resume: bool, other_data: bool):
    """
    Logs, words and model: of a checkpoint, of published weights, or new. Returns the checkpoint's state (None
    without one), the logs, their fingerprints, the tokenizer, the robots by name, and the model.
    """
    path = Path(config.out_dir) / "checkpoint.pt" if resume else config.init_from
    state = load(path) if path else None
    for name in SHAPE if state else ():
        before, now = state["config"].get(name), getattr(config, name)
        if before != now:
            raise ValueError(f"{path} has {name} = {before!r}, not {now!r}; leave it as it was")
    logs = ranks.in_turn(lambda: data.open_logs(config, quiet=not ranks.first))
    fingerprints = {f"{side} {name}": log.fingerprint
                    for side in logs for name, (log, _) in logs[side].items()}
    if resume and not other_data and state["data"] != fingerprints:
        raise ValueError(f"the logs are not those that {path} was trained on: they were {state['data']} and "
                         f"are {fingerprints}; bring them back as they were, or give --other_data")
    if state:
        tokenizer, known, model = rebuild(path, state)
        robots = data.make_robots(config, logs, tokenizer, known)
        return state, logs, fingerprints, tokenizer, robots, model
    published = {}
    if config.pretrained:
        from formats import weights                             # needed only to start from published weights
        published = weights.settings(config.pretrained)
    tokenizer = weights.gpt2_tokenizer(config.pretrained["gpt2"]) if "gpt2" in config.pretrained else \
        data.make_tokenizer(logs, config.n_vocab)
    robots = data.make_robots(config, logs, tokenizer, {})
    torch.manual_seed(config.seed)
    sizes = {name: value for name, value in vars(config).items() if name in ModelConfig.__annotations__}
    model = VLA(ModelConfig(**{**sizes, **published, "n_vocab": tokenizer.n_vocab,
                               "max_text": config.text_len,
                               "pictures": config.frames * data.most_cameras(robots)}))
    model.add_sinusoids(tokenizer.integers[:256])
    if config.scheme == "overwrite" and robots:     # there the bins are other tokens than the numbers of text
        model.add_sinusoids(next(iter(robots.values())).actions.ids)
    if config.pretrained:
        weights.load(model, config.pretrained)
    return None, logs, fingerprints, tokenizer, robots, model


# --------------------------------------------------------------------------------------------------------
# the optimizer of the blocks' matrices

class Muon(torch.optim.Optimizer):
    """
    Moves each matrix along its momentum, made orthogonal, so that it learns in all directions alike. The
    steps are those of torch.optim.Muon(adjust_lr_fn="match_rms_adamw"), bit for bit, but matrices of one
    shape are computed together. With fsdp the momentum stays sharded; only the update is gathered, made
    orthogonal, and sharded again.
    """

    @torch.no_grad()
    def step(self):
        group, = self.param_groups
        for shape in dict.fromkeys(p.shape for p in group["params"]):
            weights, updates = [p for p in group["params"] if p.shape == shape], []
            for p in weights:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                momentum = self.state[p]["momentum_buffer"]
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"])               # Nesterov's
                updates.append(update.full_tensor() if isinstance(p, DTensor) else update)
            for p, update in zip(weights, orthogonal(torch.stack(updates))):
                if isinstance(p, DTensor):
                    update = distribute_tensor(update, p.device_mesh, p.placements, src_data_rank=None)
                # the factor makes it as long as a step of AdamW
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                    update, alpha=-.2 * group["lr"] * max(shape) ** .5)


def orthogonal(x):
    """matrices (n, A, B) -> the same with all singular values near 1, by five Newton-Schulz steps"""
    if x.size(1) > x.size(2):
        return orthogonal(x.mT).mT
    x = torch.nn.functional.normalize(x.bfloat16(), dim=(1, 2), eps=1e-7)
    for _ in range(5):                  # x becomes 3.4445 x - 4.775 x x' x + 2.0315 x x' x x' x
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x


# --------------------------------------------------------------------------------------------------------
# what a person wants to know on the way

def metrics(logits, losses, batch, mix) -> dict:
    """
    Of one batch: the loss on actions, on all other words of robot samples ("view"), and on the web;
    the accuracy of action tokens, in all and by number; the mean distance of actions in their own units
    (l1). mix: which made the batch.
    """
    answer = batch["label"] != ASKED
    label, tokens = batch["label"][answer], batch["tokens"][answer]                                 # (M,)
    source = batch["source"][:, None].expand_as(answer)[answer]             # (M,) which robot, -1 = web
    is_action = label == ACTION
    parts = {"action": is_action, "view": (source >= 0) & ~is_action, "web": source < 0}
    out = {name: losses[mask].mean().item() for name, mask in parts.items() if mask.any()}
    hits, count = 0, 0
    for k, (demonstrations, settings) in enumerate(mix.robots):
        actions, mine = demonstrations.robot.actions, is_action & (source == k)
        if not mine.any():
            continue
        truth = tokens[mine].view(-1, len(actions.names))                                           # (n, D)
        allowed = torch.from_numpy(actions.allowed).to(logits.device)
        guess = logits[mine].view(*truth.shape, -1).masked_fill(~allowed, -math.inf).argmax(-1)     # (n, D)
        error = np.abs(actions.decode(guess.cpu().numpy()) - actions.decode(truth.cpu().numpy())).mean(0)
        numbers = [n if len(mix.robots) == 1 else f"{settings['name']} {n}" for n in actions.names]
        out.setdefault("right", {}).update(zip(numbers, (guess == truth).float().mean(0).tolist()))
        out.setdefault("l1", {}).update(zip(numbers, error.tolist()))
        hits, count = hits + (guess == truth).sum().item(), count + truth.numel()
    return {**out, "accuracy": hits / count} if count else out


class Progress:
    """The bar on the screen, and a line of out_dir/log.jsonl every log_every steps, by the first rank."""

    def __init__(self, config: Config, ranks, start: int, total: int, flops: int):
        self.config, self.device, self.flops, self.start = config, ranks.device, flops, start
        self.path = Path(config.out_dir) / "log.jsonl" if ranks.first else os.devnull
        if ranks.first:
            begin_log(self.path, start)
        self.bar = tqdm(total=total, initial=start, desc="training", unit="step", mininterval=2,
                        disable=not ranks.first)
        self.began, self.waited = time.monotonic(), 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def write(self, done: int, **found):
        seconds = max(time.monotonic() - self.began, 1e-9)
        speed = (done - self.start) * self.config.batch_size / seconds
        cuda = self.device.type == "cuda"
        line = {"step": done, "minutes": seconds / 60, "samples_per_s": speed,
                "waiting": self.waited / seconds, "gflops": self.flops * speed / 1e9,
                "memory_gb": torch.cuda.max_memory_allocated(self.device) / 1e9 if cuda else None, **found}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as e:
            raise OSError(f"{self.path} cannot be written ({e}); make room, then --resume") from None
        text = " ".join(f"{k} {found[k]:.2f}" for k in ("web", "view", "action", "accuracy") if k in found)
        self.bar.set_postfix_str(f"{text} {speed:.0f} samples/s")


def show(config: Config, done: int, halt: bool):
    """
    For a person who waits, if the folders study and world are there: out_dir/curves.png (needs matplotlib);
    and once, after the robot's first checkpoint, rollouts.gif, which eval.report() makes again in the end.
    """
    out = Path(config.out_dir)
    with contextlib.suppress(ImportError):
        from study import curves
        curves.draw(out, done == config.n_pretrain + config.steps)
    with contextlib.suppress(ImportError):
        if config.trials and not halt and 0 < done - config.n_pretrain <= config.save_every:
            from world.film import film_of
            film_of(out / "checkpoint.pt", config.device)


def quicken_cpu():
    """
    Two habits that cost a tenth of a step on a CPU: glibc hands every large block back to the system at once,
    and numbers below 1e-38, of which a softmax makes many, are computed the slow way.
    """
    torch.set_flush_denormal(True)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


# --------------------------------------------------------------------------------------------------------
# presets and the command line

def inline_table(text: str) -> dict:
    """
    Example: inline_table('format="rlds", path="/data/bridge"') -> {"format": "rlds", "path": "/data/bridge"}
    """
    try:
        return tomllib.loads(f"x = {{{text}}}")["x"]
    except tomllib.TOMLDecodeError as e:
        raise argparse.ArgumentTypeError(f"{text!r} is not an inline TOML table ({e}); "
                                         'write format="rlds", path="/data"') from None


def read_config(argv=None) -> Config:
    """
    Defaults < preset file < command line; to resume, the checkpoint's own configuration < command line. An
    unknown key or a wrong type is an error that names it.
    """
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="", help="preset file; without it configs/small.toml")
    parser.add_argument("--resume", action="store_true", help="go on from out_dir/checkpoint.pt")
    parser.add_argument("--other_data", action="store_true", help="resume although the logs have changed")
    kinds = {bool: {"action": argparse.BooleanOptionalAction},
             dict: {"type": inline_table, "metavar": 'gpt2="..."'},
             list: {"type": inline_table, "nargs": "+", "metavar": 'format="..."'}}
    for f in dataclasses.fields(Config):
        default = f.default if f.default is not dataclasses.MISSING else f.default_factory()
        parser.add_argument(f"--{f.name}", help=f"{f.metadata['help']} ({default})".replace("%", "%%"),
                            **kinds.get(f.type, {"type": f.type}))
    args = vars(parser.parse_args(argv))
    resume, _, path = args.pop("resume"), args.pop("other_data"), args.pop("config")
    given = {name: value for name, value in args.items() if value is not None}
    if resume:
        if path:
            raise ValueError("--resume reads the configuration from the checkpoint in --out_dir; "
                             "leave --config out")
        path = Path(given.get("out_dir", Config.out_dir)) / "checkpoint.pt"
        state = load(path)
        if not state.get("optimizers"):         # it was packed (study/ask.py)
            raise ValueError(f"{path} has weights alone; start a new run with --init_from {path}")
        preset = {**state["config"], "out_dir": str(path.parent)}
        for name in given.keys() - set(FREE):
            if given[name] != preset.get(name):
                raise ValueError(f"a resumed run cannot change {name} "
                                 f"from {preset.get(name)!r} to {given[name]!r}; "
                                 "leave it out, or start a new run with --init_from and another --out_dir")
    else:
        path = Path(path or Path(__file__).parent / "configs/small.toml")
        try:
            preset = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            presets = ", ".join(sorted(map(str, Path(__file__).parent.glob("configs/*.toml"))))
            raise ValueError(f"no preset {path}; there are: {presets}") from None
        except (ValueError, RecursionError) as e:       # not TOML, not UTF-8, a number of 5000 digits
            raise ValueError(f"{path}: {str(e)[:1000]}") from None
    for name in preset.keys() - {f.name for f in dataclasses.fields(Config)}:
        raise ValueError(f"{path}: unknown key {name!r}; see python train.py --help")
    try:
        return Config(**{**preset, **given})
    except (ValueError, OverflowError) as e:
        where = f"{path} with the command line" if given else path
        raise ValueError(f"{where}: {str(e)[:1000]}") from None


# --------------------------------------------------------------------------------------------------------
# checkpoints

def save(path, **state):
    """
    Write beside it, then rename: a checkpoint is there whole or not at all. OSError, which names the file, if
    it cannot be written; what was there before is as it was.
    """
    path = Path(path)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            torch.save({**state, "version": VERSION}, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as e:        # torch has a RuntimeError for a full disk
        raise OSError(f"{path} cannot be written ({str(e)[:100]}); make room, then --resume") from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path) -> dict:
    """
    what save() wrote; ValueError if it is not there, not of this project, of another version, or damaged
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compress, so a file that unpacks to more than its own size is a zip bomb
            if sum(entry.file_size for entry in archive.infolist()) > os.path.getsize(path):
                raise ValueError("it claims more than it holds")
            # torch writes a checksum of every tensor, but never checks it
            if archive.testzip():
                raise zipfile.BadZipFile("a checksum is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"no checkpoint {path}; train first (python train.py), "
                         "or name another file") from None
    except Exception as e:                      # pickle, zip and torch raise many kinds
        raise ValueError(f"{path} is damaged or not a checkpoint ({type(e).__name__}); "
                         "use another one") from None
    if not isinstance(state, dict) or "model" not in state:
        raise ValueError(f"{path} is not a checkpoint of this project")
    if state.get("version") != VERSION:
        raise ValueError(f"{path} is of an earlier version of this project, which cannot be read any more; "
                         "train again, or use the commit that wrote it")
    return state


@contextlib.contextmanager
def damaged(path):
    """whatever goes wrong while a checkpoint's parts are put together is one error that names the file"""
    try:
        yield
    except Exception as e:
        what = " ".join(str(e).split())[:200]
        raise ValueError(f"{path} is damaged ({type(e).__name__}: {what}); use another one") from None


def rebuild(path, state):
    """a checkpoint's tokenizer, robots by name, and model"""
    with damaged(path):
        tokenizer = Tokenizer.from_state(state["tokenizer"])
        robots = {name: data.Robot.from_state(saved, tokenizer) for name, saved in state["robots"].items()}
        shape, weights = ModelConfig(**state["model_config"]), state["model"]
        if shape.n_layer + shape.vit_layer > len(weights):
            raise ValueError("model_config has more blocks than there are weights")
        with torch.device("meta"):      # it takes no memory: a damaged file may claim any size
            model = VLA(shape)
        config = state["config"]
        same = (config["image_size"], config["frames"] * data.most_cameras(robots), config["text_len"]) == \
            (shape.image_size, shape.pictures, shape.max_text)
        if not same or config["thought_len"] not in range(shape.max_text):
            raise ValueError("config has other sizes than model_config")
        # names and sizes must be the same; float(): a packed checkpoint holds bfloat16 (study/ask.py)
        model.load_state_dict({name: p.float() for name, p in weights.items()}, assign=True)
        if not all(torch.isfinite(p).all() for p in model.parameters()):
            raise ValueError("a weight is not finite")
    return tokenizer, robots, model


# --------------------------------------------------------------------------------------------------------
# one run in one folder, which may be stopped at any time

@contextlib.contextmanager
def only_run(out: Path, resume: bool):
    """out_dir for this run alone: no second run at the same time, and a finished one is not written over"""
    out.mkdir(parents=True, exist_ok=True)
    lock, elsewhere = out / "lock", "give this run another --out_dir"
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(lock.read_text())
        if os.name != "posix":                          # there os.kill would end it
            raise ProcessLookupError
        with contextlib.suppress(PermissionError):      # alive, and another user's
            os.kill(pid, 0)                             # asks whether that process is alive, and does nothing
        if pid != os.getpid():
            raise FileExistsError(f"process {pid} is training in {out}; stop it, or {elsewhere}, or delete "
                                  f"{lock} if that process is another program")
    if not resume and (out / "checkpoint.pt").exists():
        raise ValueError(f"{out} holds a run already; go on with it (--resume --out_dir {out}), delete it, "
                         f"or {elsewhere}")
    lock.write_text(str(os.getpid()))
    for unfinished in out.glob("*.tmp"):        # of a run that was killed while it saved
        unfinished.unlink()
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def begin_log(path: Path, start: int):
    """
    Keep the lines of log.jsonl up to step start. What a killed run wrote after its last checkpoint, perhaps
    half a line, is dropped.
    """
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= start:
                kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


@contextlib.contextmanager
def stop_between_steps():
    """
    Ctrl-C, or a scheduler's SIGTERM, ends the run after the step it comes in, so that nothing is half done.
    Yields a list that is empty until then.
    """
    stopped, previous = [], {}
    if threading.current_thread() is threading.main_thread():
        previous = {s: signal.signal(s, lambda *_: stopped.append(True))
                    for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


# --------------------------------------------------------------------------------------------------------
# many ranks: one process a GPU, started by torchrun; without it there is one rank

def pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")      # where a GPU multiplies float32: in TF32, which is faster
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError):
        raise ValueError(f"device = {name!r} is not there on this machine; use auto or cpu") from None


class Ranks:
    """
    Who we are among the processes of this run, and the few things they do together. A batch is cut into
    micro-batches that do not depend on the number of ranks; each rank takes its share of them, adds up
    their gradients, and the ranks average. So the weights do not depend on the number of ranks, up to
    rounding, and a run resumes on any number of ranks that divides micro_batches.
    """

    def __init__(self, config: Config):
        self.rank, self.local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
        self.world, self.first = int(os.environ.get("WORLD_SIZE", 1)), self.rank == 0
        name = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device
        if name == "cuda" and self.local >= torch.cuda.device_count() > 0:
            raise ValueError("more ranks than GPUs on this machine; start torchrun with --nproc_per_node "
                             f"{torch.cuda.device_count()}")
        self.device = pick_device(f"cuda:{self.local}" if name == "cuda" and self.world > 1 else name)
        if config.micro_batches % self.world:
            raise ValueError(f"{self.world} ranks share micro_batches = {config.micro_batches}; "
                             f"make it a multiple of {self.world}")
        self.micro = range(self.rank, config.micro_batches, self.world)     # the micro-batches of this rank
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world > 1:
            if self.device.type == "mps":
                raise ValueError("several ranks need GPUs of NVIDIA, or --device cpu; a Mac has one: leave "
                                 "torchrun out")
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
            # recording or indexing a log may take hours; the ranks that wait for it do so in this group
            self.patient = dist.new_group(backend="gloo", timeout=timedelta(hours=24))

    def in_turn(self, function):
        """the first rank of each machine goes ahead, to record or index logs; the others find them made"""
        if self.world > 1 and self.local:
            dist.barrier(self.patient)
        result = function()
        if self.world > 1 and not self.local:
            dist.barrier(self.patient)
        return result

    def total(self, number: float) -> float:
        """the sum of a number over all ranks"""
        if self.world == 1:
            return number
        x = torch.tensor(float(number), dtype=torch.float64)
        dist.all_reduce(x, group=self.patient)
        return x.item()

    def wrap(self, model: VLA, config: Config):
        """
        The model as the loop runs it. ddp: each rank has all of it, and gradients are averaged. fsdp: each
        rank keeps a shard of every weight, of its gradient and of the optimizer's state; a block is put
        together when it is its turn.
        """
        blocks = [*model.vit.blocks, *model.blocks]
        compiles = config.compile and can_compile(self.device)
        for block in blocks:
            block.recompute = config.recompute
            if compiles:                # by block: the number of targets changes, its shapes do not
                block.compile()
        if self.world == 1:
            return model
        if config.parallel == "ddp":
            return DDP(model)
        mesh = dist.init_device_mesh(self.device.type, (self.world,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    def sync(self, wrapped, last: bool):
        """gradients meet those of the other ranks after the last micro-batch only"""
        if isinstance(wrapped, DDP) and not last:
            return wrapped.no_sync()
        if self.world > 1 and not isinstance(wrapped, DDP):
            wrapped.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def finish(self):
        """nobody leaves before the first rank has written the checkpoint"""
        if self.world > 1:
            dist.barrier(self.patient)
            dist.destroy_process_group()


def can_compile(device) -> bool:
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as e:                                      # no compiler, no Triton, ...: many kinds
        print(f"torch.compile does not work here ({type(e).__name__}); going on without it")
        return False
    return True


def gather(state):
    """
    a tensor, or a state dict, with every sharded tensor put together, on the CPU; all ranks must call it
    """
    if isinstance(state, dict):
        return {k: gather(v) for k, v in state.items()}
    return state.full_tensor().cpu() if isinstance(state, DTensor) else state


def shard(state, optimizer):
    """the reverse, for the state of an optimizer: what has the shape of a sharded weight is sharded alike"""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for i, values in state["state"].items():
        w = weights[i]
        if isinstance(w, DTensor):
            values.update({k: distribute_tensor(v.to(w.device), w.device_mesh, w.placements)
                           for k, v in values.items() if v.shape == w.shape})
    return state


# --------------------------------------------------------------------------------------------------------
# the script

def main():
    try:
        config = read_config()
        # these two say how to begin, not what to train, so they are no part of the configuration
        path = train(config, resume="--resume" in sys.argv, other_data="--other_data" in sys.argv)
        if config.trials and os.environ.get("RANK", "0") == "0":
            import eval                             # it imports this file, so it cannot stand above
            eval.report(path, config.trials, device=config.device)
    except RuntimeError as e:                   # CUDA has a type of its own for this, Apple's GPUs do not
        if "out of memory" not in str(e):
            raise
        sys.exit("error: out of GPU memory; try --recompute, or, in a new run, --micro_batches "
                 f"{2 * config.micro_batches}")
    except (ValueError, FloatingPointError, OSError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("stopped; the last checkpoint, if there is one, is whole")


if __name__ == "__main__":
    main()
