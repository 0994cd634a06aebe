"""ranks: two processes on the CPU (gloo) do what one does, with DDP and with FSDP, and may take over from each other"""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import train
from world import record

# Muon works in bfloat16, which turns the last bit of a sum into a hundredth of a step: so the sums must be the same sums. Two
# micro-batches are (a + b on one rank as on two), and the norm, which ranks add up in another order, clips nothing
ROOT = Path(__file__).parent.parent
TINY = ["--robot", 'format="world", episodes=25', "--web", 'format="world", pictures=40', "--image_size", "32", "--vit_layer", "1",
        "--n_layer", "2", "--vit_embd", "32", "--n_embd", "32", "--batch_size", "8", "--pretrain_steps", "2", "--steps", "4", "--warmup", "2",
        "--log_every", "2", "--save_every", "3", "--device", "cpu", "--trials", "0", "--dtype", "float32", "--micro_batches", "2", "--clip", "1e9"]


def torchrun(n, folder, out, *more):
    """train.py on n ranks, as the README starts it; its checkpoint"""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(n), "--master_port", "0", "--rdzv_backend", "c10d",
             "--rdzv_endpoint", "localhost:0"]
    said = subprocess.run([*start, "train.py", *arguments(folder, out, more)], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert said.returncode == 0, said.stderr
    return train.load(folder / out / "checkpoint.pt")


@pytest.fixture(scope="module")
def run(script):
    """the same, but the ranks are forks of this process"""
    def begin(n, folder, out, *more):
        with socket.socket() as s:
            s.bind(("localhost", 0))
            where = {"WORLD_SIZE": str(n), "MASTER_ADDR": "localhost", "MASTER_PORT": str(s.getsockname()[1])}
        ranks = [script(train.main, ["train.py", *arguments(folder, out, more)], folder / "said", {**where, "RANK": str(k), "LOCAL_RANK": str(k)})
                 for k in range(n)]
        for process in ranks:
            process.join(300)
        assert [process.exitcode for process in ranks] == [0] * n, (folder / "said").read_text()
        return train.load(folder / out / "checkpoint.pt")
    return begin


def arguments(folder, out, more):
    return [*("--resume" not in more) * TINY, "--data_dir", str(folder / "data"), "--out_dir", str(folder / out), *more]


def distance(a, b):
    assert a["model"].keys() == b["model"].keys()
    return max((a["model"][k] - b["model"][k]).abs().max().item() for k in a["model"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    record.corpus("small")                      # the words of the world, which forks then have
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(folder, run):
    return run(1, folder, "one")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_learn_what_one_learns_and_one_goes_on_where_two_stopped(folder, run, one, parallel):
    """the same weights to 1e-5, the same log; two ranks for the web stage, one from its checkpoint on, then two again: still the same"""
    two = (torchrun if parallel == "ddp" else run)(2, folder, parallel, "--parallel", parallel)
    assert distance(one, two) < 1e-5 < distance(one, train.load(folder / "one/web.pt"))
    logs = [[json.loads(line) for line in (folder / out / "log.jsonl").read_text().splitlines()] for out in ("one", parallel)]
    assert [m["step"] for m in logs[0]] == [m["step"] for m in logs[1]] == [2, 4, 6]
    assert [m["norm"] for m in logs[0]] == pytest.approx([m["norm"] for m in logs[1]], rel=1e-4)
    # goes on from the web stage: with DDP one rank where two stopped, with FSDP two where one stopped
    out, n = (parallel, 1) if parallel == "ddp" else ("one", 2)
    (folder / out / "checkpoint.pt").write_bytes((folder / out / "web.pt").read_bytes())
    assert distance(run(n, folder, out, "--resume", "--parallel", parallel), two) < 1e-5


def test_two_ranks_with_two_micro_batches_each_clip_and_recompute_as_one(folder, run):
    """sums in another order now: near, where Muon's steps are small"""
    more = ["--micro_batches", "4", "--clip", "0.5", "--recompute", "--lr_muon", "2e-5"]
    assert distance(run(1, folder, "four", *more), run(2, folder, "four2", "--parallel", "fsdp", *more)) < 1e-5


def test_ranks_that_cannot_share_the_micro_batches_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 ranks share micro_batches = 3; make it a multiple of 2"):
        train.Ranks(train.read_config([*TINY, "--micro_batches", "3"]))
