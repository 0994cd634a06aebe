"""
A run with worker processes is killed again and again (kill -9), at random moments. After each kill the
checkpoint must load, and its weights and optimizers must be, bit for bit, those of a run that nobody disturbed.

    python -m tests.kills --n 50            # minutes; not part of the suite
"""
import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import train

ARGS = ["--image_size", "32", "--vit_layer", "1", "--n_layer", "1", "--vit_embd", "32", "--n_embd", "32",
        "--batch_size", "8", "--pretrain_steps", "40", "--workers", "2", "--save_every", "7", "--trials", "0",
        "--robot", 'format="world", episodes=40', "--web", 'format="world", pictures=200']


def digest(state):
    """one text for all weights, momenta and counters of a checkpoint"""
    found = hashlib.sha256()

    def walk(x):
        if isinstance(x, dict):
            for key in sorted(x, key=str):
                found.update(str(key).encode())
                walk(x[key])
        elif isinstance(x, (list, tuple)):
            for y in x:
                walk(y)
        else:
            found.update(x.numpy().tobytes() if isinstance(x, torch.Tensor) else repr(x).encode())
    walk({"model": state["model"], "optimizers": state["optimizers"]})
    return found.hexdigest()


def undisturbed(folder, args):
    """step -> digest of every checkpoint of a run in this process"""
    found, save = {}, train.save

    def saved(path, **state):
        found[state["step"]] = digest(state)
        save(path, **state)
    train.save = saved
    train.train(train.read_config([*args, "--out_dir", str(folder / "whole")]))
    train.save = save
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50, help="kills (50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    rng, root = random.Random(given.seed), Path(train.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        args = [*ARGS, "--data_dir", str(folder / "data"), "--steps", str(given.steps)]
        right, equal, steps = undisturbed(folder, args), 0, []
        torch.set_num_threads(1)
        path = folder / "killed/checkpoint.pt"
        for k in range(given.n):
            # a run that is over begins anew, so that there is something left to kill
            if path.exists() and train.load(path)["step"] == max(right):
                path.unlink()
            how = ["--resume"] if path.exists() else args
            command = [sys.executable, "train.py", *how, "--out_dir", str(path.parent)]
            child = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                     start_new_session=True)
            time.sleep(rng.uniform(2, 9))
            if child.poll() not in (None, 0):
                sys.exit(f"kill {k}: the run ended by itself:\n{child.stderr.read().decode()[-2000:]}")
            if child.poll() is None:                        # else it was over sooner
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            state = train.load(path) if path.exists() else None
            steps.append(state["step"] if state else 0)
            equal += state is None or digest(state) == right[state["step"]]
            print(f"kill {k + 1}: after step {steps[-1]}, equal {equal} of {k + 1}", flush=True)
        left = [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"]
        print(f"{equal} of {given.n} checkpoints are bit-equal; {len(set(steps))} different steps; "
              f"left behind: {', '.join(left) or 'nothing'}")
        sys.exit(equal < given.n)


if __name__ == "__main__":
    main()
