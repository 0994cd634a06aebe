"""
Any line of the paper's tables, asked of one trained model: the rates with all controls, and a picture of how
the first trials ended; and a checkpoint made small.
"""
import hashlib
import json
from pathlib import Path

from PIL import Image

import eval as evaluation
import train
from eval import Policy
from study.suites import suites
from study.tables import average
from world import film


def lines_of(config, names):
    """the lines of all tables, groups and lines in names. Example: lines_of(config, ["sums", "people"])"""
    every = suites(config)
    known = list(dict.fromkeys(word for line in every for word in (line.table, line.group, line.name)))
    for name in names:
        if name not in known:
            raise ValueError(f"no line {name!r} for this model; there are: {', '.join(known)}")
    return [line for line in every if {line.table, line.group, line.name} & set(names)]


def ask(checkpoint, names, n_trials):
    """prints the table, and writes lines.json and lines.png beside the checkpoint"""
    policy, folder = Policy(checkpoint), Path(checkpoint).parent
    lines = lines_of(policy.config, names)
    rows = evaluation.measure(policy, lines, n_trials)
    (folder / "lines.json").write_text(json.dumps({"rows": rows, "config": policy.config}, indent=1))
    print("\n" + evaluation.table({"rows": rows}))
    for table in ("generalisation", "emergent"):    # the averages of tables that were asked as a whole
        whole = {line.name for line in suites(policy.config) if line.table == table}
        if whole and whole <= {line.name for line in lines}:
            means = {driver: average([row for row in rows if row["driver"] == driver], table)
                     for driver in evaluation.DRIVERS}
            print(f"{table}, average of groups: " + ", ".join(
                f"{driver} {100 * mean[0]:.0f} %" for driver, mean in means.items() if mean))
    sheet(policy, lines, folder / "lines.png")


def pack(checkpoint, path):
    """
    Writes the weights of a checkpoint alone, rounded to bfloat16. Whatever reads a checkpoint reads this one,
    too, but --resume: it has no memory of its optimizers. Prints its size and hash.
    """
    state, here = train.load(checkpoint), train.Config()
    state["model"] = {name: p.bfloat16() for name, p in state["model"].items()}
    state["config"].update(out_dir=here.out_dir, data_dir=here.data_dir, init_from="")  # paths of one machine
    del state["version"]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    train.save(path, **{**state, "optimizers": {}})
    content = Path(path).read_bytes()
    print(f"{path}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


def sheet(policy, lines, path, n=3, size=200):
    """the last picture of the first n trials of each line"""
    tiles = []
    for line in lines:
        seeds = range(evaluation.TRIAL_SEED, evaluation.TRIAL_SEED + n)
        envs, episodes = [line.make() for _ in seeds], [policy.episode(seed) for seed in seeds]

        def act(going, envs, pictures):
            prompts = [line.prompt(env.instruction) for env in envs]
            return policy.act([episodes[i] for i in going], pictures, prompts)
        for env, result in zip(envs, evaluation.rollouts(envs, seeds, act)):
            outcome, color = ("success", "green") if result["success"] else (result["outcome"], "red")
            tiles.append(film.tile(env.render(), size, env.instruction, outcome, color, rows=3))
    picture = film.paste(tiles, 6)
    picture.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
