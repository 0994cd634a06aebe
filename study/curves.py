"""
The curves of a training run, from the log.jsonl that train.py writes.

    python -m study.curves out                  # out/curves.png
    python -m study.curves out --tensorboard    # and the same numbers for TensorBoard, in out/tensorboard

train.py draws them at each checkpoint. They need matplotlib (pip install matplotlib), and the second command
needs tensorboard; neither is among the requirements. Both commands read the log, so they may be given while a
run goes on or long after it, and training needs no key for them.
"""
import argparse
import functools
import json
import shutil
import sys
import time
from pathlib import Path


def read_log(out):
    """the lines of out/log.jsonl as dicts; and the rows of out/results.json, [] before the run is measured"""
    lines = []
    for line in (Path(out) / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:                                  # the last line, half written
            continue
    results, log = Path(out) / "results.json", Path(out) / "log.jsonl"
    measured = results.exists() and results.stat().st_mtime >= log.stat().st_mtime
    return lines, json.loads(results.read_text())["rows"] if measured else []


@functools.cache
def pyplot():
    """matplotlib without a screen; None, and a line once that says how to get it, where it is missing"""
    try:
        import matplotlib
    except ImportError:
        print("no curves.png: matplotlib is missing (pip install matplotlib); "
              "then: python -m study.curves OUT_DIR")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    return plt


due = {"at": time.monotonic() + 60}         # when a run draws next: a picture takes a second


def draw(out, now=True):
    """
    out/curves.png: losses of robot, view and web; accuracy of action tokens, in all and by number; learning
    rate; and, once the run has been measured, success by task with its interval. now=False: not if the last
    one was drawn a minute ago, or so recently that pictures would take more than 2 % of the time. Trouble is
    a line, because no run should die of its picture.
    """
    begin = time.monotonic()
    try:
        plt = pyplot() if now or begin >= due["at"] else None
        if plt:
            _draw(plt, Path(out))
            due["at"] = time.monotonic() + max(60, 50 * (time.monotonic() - begin))
    except Exception as e:                                  # a full disk, another matplotlib, ...: many kinds
        print(f"no curves.png ({type(e).__name__}: {e})")


def _draw(plt, out):
    lines, rows = read_log(out)
    if not lines:
        return
    figure, axes = plt.subplots(1, 4 if rows else 3, figsize=(18 if rows else 14, 4), layout="constrained")

    def curve(ax, take, **style):
        points = [(line["step"], take(line)) for line in lines if take(line) is not None]
        if points:
            ax.plot(*zip(*points), **style)
    for name, label in (("action", "robot: actions"), ("view", "robot: questions"), ("web", "web")):
        curve(axes[0], lambda line: line.get(name), label=label)
    axes[0].set(title="loss", yscale="log")
    curve(axes[1], lambda line: line.get("accuracy"), label="all", color="black", linewidth=2)
    for number in dict.fromkeys(n for line in lines for n in line.get("right", ())):
        curve(axes[1], lambda line: line.get("right", {}).get(number), label=number, linewidth=.8)
    axes[1].set(title="right action tokens, episodes not trained on", ylim=(0, 1.02))
    curve(axes[2], lambda line: line.get("lr_scale"), color="black", label="learning rate / its largest")
    axes[2].set(title="learning rate", ylim=(0, 1.05))
    for ax in axes[:3]:
        ax.set_xlabel("step")
        ax.grid(alpha=.3)
        if ax.lines:
            ax.legend(fontsize=8)
    if rows:
        rows = [row for row in rows if row["driver"] in ("policy", "blank instruction") and row["n"]]
        for at, row in enumerate(rows):
            rate, (low, high) = row["success"] / row["n"], row["interval"]
            axes[3].barh(at, rate, xerr=[[max(0, rate - low)], [max(0, high - rate)]], height=.6,
                         color="tab:blue" if row["driver"] == "policy" else "tab:gray")
        axes[3].set_yticks(range(len(rows)), [f"{r['line']}\n{r['driver']}" for r in rows], fontsize=8)
        axes[3].invert_yaxis()
        axes[3].set(title="success, with its 95 % interval", xlim=(0, 1))
    temporary = out / "curves.tmp.png"
    figure.savefig(temporary, dpi=80)
    temporary.replace(out / "curves.png")                   # whole, or as before
    plt.close(figure)


def tensorboard(out):
    """every number of log.jsonl as scalars in out/tensorboard, which is made anew"""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("tensorboard is missing; pip install tensorboard") from None
    lines, _ = read_log(out)
    shutil.rmtree(Path(out) / "tensorboard", ignore_errors=True)
    with SummaryWriter(Path(out) / "tensorboard") as writer:
        for line in lines:
            for key, value in line.items():
                for name, number in value.items() if isinstance(value, dict) else (("", value),):
                    if isinstance(number, (int, float)):
                        writer.add_scalar(f"{key}/{name}" if name else key, number, line["step"])
    print(f"wrote {len(lines)} steps; tensorboard --logdir {Path(out) / 'tensorboard'}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m study.curves", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the out_dir of a run")
    parser.add_argument("--tensorboard", action="store_true", help="write scalars for TensorBoard, too")
    args = parser.parse_args(argv)
    try:
        read_log(args.out)                                  # is there a log?
        draw(args.out)
        if args.tensorboard:
            tensorboard(args.out)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
