"""
Many ranks: one process a GPU, started by torchrun (torchrun --nproc_per_node 8 train.py ...). Without it there is one rank.

A batch is cut into micro-batches, which do not depend on how many ranks there are; each rank takes its share of them, adds up
their gradients, and the ranks average. So a run gives the same weights, up to rounding, on one rank as on eight, and may be
resumed on another number of them.
"""
import contextlib
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.nn.parallel import DistributedDataParallel as DDP


def pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError):
        raise ValueError(f"device = {name!r} is not there on this machine; use auto or cpu") from None


class Ranks:
    """who we are among the processes of this run, and the few things they do together"""

    def __init__(self, c):
        self.rank, self.local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.first = self.rank == 0
        name = c.device if c.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and self.local >= torch.cuda.device_count() > 0:
            raise ValueError(f"more ranks than GPUs on this machine; start torchrun with --nproc_per_node {torch.cuda.device_count()}")
        self.device = pick_device(f"cuda:{self.local}" if name == "cuda" and self.world > 1 else name)
        if c.micro_batches % self.world:
            raise ValueError(f"{self.world} ranks share micro_batches = {c.micro_batches}; make it a multiple of {self.world}")
        self.parts = range(self.rank, c.micro_batches, self.world)          # the micro-batches of this rank
        if self.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
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

    def share(self, model, c):
        """
        The model as the loop runs it. ddp: each rank has all of it, and gradients are averaged. fsdp: each rank keeps a share of
        every weight, of its gradient and of the optimizer's memory of it; a block is put together when it is its turn.
        """
        blocks = [*model.vit.blocks, *model.blocks]
        if c.compile:
            for block in blocks:                            # block by block: the number of targets changes, a block's shapes do not
                block.compile()
        if self.world == 1:
            return model
        if c.parallel == "ddp":
            return DDP(model, device_ids=[self.device] if self.device.type == "cuda" else None)
        mesh = dist.init_device_mesh(self.device.type, (self.world,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    def part(self):
        """the end; nobody leaves before the first rank has written the checkpoint"""
        if self.world > 1:
            dist.barrier(self.patient)
            dist.destroy_process_group()

    def sync(self, run, last: bool):
        """gradients meet those of the other ranks after the last micro-batch only"""
        if isinstance(run, DDP):
            return contextlib.nullcontext() if last else run.no_sync()
        if self.world > 1:
            run.set_requires_gradient_sync(last)
        return contextlib.nullcontext()


class Muon(torch.optim.Muon):
    """
    Muon makes each gradient matrix orthogonal, for which it must see all of it. Where matrices are spread over the ranks,
    gradient and momentum are put together for the step; between steps every rank keeps its share of the momentum.
    """

    @torch.no_grad()
    def step(self, closure=None):
        spread_out = [p for group in self.param_groups for p in group["params"] if isinstance(p.grad, DTensor)]
        for p in spread_out:
            p.grad = p.grad.redistribute(placements=[Replicate()])
            if self.state[p]:
                self.state[p]["momentum_buffer"] = self.state[p]["momentum_buffer"].redistribute(placements=[Replicate()])
        super().step(closure)
        for p in spread_out:
            self.state[p]["momentum_buffer"] = self.state[p]["momentum_buffer"].redistribute(placements=p.placements)


def whole(state):
    """a tensor, or a state dict with every tensor that is spread over the ranks put together, on the CPU; all ranks must call it"""
    if isinstance(state, dict):
        return {k: whole(v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return [whole(v) for v in state]
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    return state


def spread(state, optimizer):
    """the reverse, for the state of an optimizer: what has the shape of a spread weight is spread alike"""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for i, values in state["state"].items():
        if isinstance(weights[i], DTensor):
            values.update({k: distribute_tensor(v.to(weights[i].device), weights[i].device_mesh, weights[i].placements)
                           for k, v in values.items() if v.shape == weights[i].shape})
    return state
