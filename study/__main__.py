"""
The paper's tables in small: trains every recipe, asks it every line, and keeps all numbers in one file.

    python -m study                                      # all runs of configs/study.toml; stop it at any time
    python -m study --only large/cofine/ large/fine/     # some of them; --seeds 0 for one seed
    python -m study --jobs 1                             # one run at a time, with all cores
    python -m study --config configs/full.toml --out_dir out/full
    python -m study --tables                             # the tables of RESULTS.md, from study/results.json
    python -m study --figures                            # its figures, beside the same file
    python -m study --checkpoint out/study/large/cofine/0/checkpoint.pt --lines sums people
    python -m study --checkpoint out/study/large/cofine/0/checkpoint.pt --pack study/cofine/checkpoint.pt

After a stop the same command goes on. study/README.md says more.
"""
import argparse
import json
import signal
import sys
from pathlib import Path

from study.ask import ask, pack
from study.runs import study
from study.tables import recipes_figure, samples_figure, tables

HERE = Path(__file__).parent


def arguments():
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", default="configs/study.toml", help="the preset that all runs are variants of")
    add("--out_dir", default="out/study", help="folder of the runs")
    add("--results", default="", help="the file with all numbers (out_dir/results.json; for --tables and "
        "--figures study/results.json)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--trials", type=int, default=70, help="of a line and seed (70); the tables add up the seeds")
    add("--jobs", type=int, help="trainings and measurements at a time, each with one thread (as many as "
        "there are cores; 1 on a GPU)")
    add("--only", nargs="+", default=(), metavar="RUN",
        help='runs whose names begin so, in this order: "large/cofine", "small" ...')
    add("--tables", action="store_true", help="print the tables of a results file and do nothing else")
    add("--figures", action="store_true", help="draw recipes.svg and samples.svg beside a results file "
        "and do nothing else")
    add("--checkpoint", default="", help="ask one trained model the lines of --lines and do nothing else; "
        "writes lines.json and lines.png beside it")
    add("--lines", nargs="+", default=["emergent"], metavar="NAME",
        help="tables, groups or lines of suites.py: generalisation, emergent, thought, symbols, sums ...")
    add("--pack", default="", metavar="FILE", help="write the weights of --checkpoint alone, in half the "
        "bytes, and do nothing else")
    return parser.parse_args()


def draw(results, folder):
    (folder / "recipes.svg").write_text(recipes_figure(results))
    if samples := samples_figure(results):
        (folder / "samples.svg").write_text(samples)
    else:
        print("samples.svg needs runs with a part of the samples: --only large/cofine- large/fine-")


def main():
    args = arguments()
    show = args.tables or args.figures
    path = Path(args.results or (HERE / "results.json" if show else Path(args.out_dir) / "results.json"))
    try:
        if args.trials < 1:
            raise ValueError(f"trials = {args.trials}; at least one is needed")
        if args.jobs is not None and args.jobs < 1:
            raise ValueError(f"jobs = {args.jobs}; at least one is needed")
        if args.pack:
            return pack(args.checkpoint, args.pack)
        if args.checkpoint:
            return ask(args.checkpoint, args.lines, args.trials)
        if not show:
            study(args.config, args.out_dir, path, args.seeds, args.trials, args.only, args.jobs)
        results = json.loads(path.read_text())
        if args.figures:
            draw(results, path.parent)
        else:
            print("\n\n".join(f"{name}\n\n{text}" for name, text in tables(results).items()))
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # a scheduler's stop is like Ctrl-C
    main()
