"""
Which assignments there are, what is cut out for each, and what must be written before its tests and its
experiment can run. The line "Needs: ..." in the header of each handout is needs().
"""
import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Assignment(NamedTuple):
    """
    name: of its files NN_name.md and NN_test.py. cut: file -> the functions that students write. tests: the
    other assignments that must be written for its tests; experiment: all that its experiment needs.
    """
    name: str
    cut: dict
    tests: tuple
    experiment: tuple


ASSIGNMENTS = {
    1: Assignment("numbers", {"tokenizer.py": ["ActionTokenizer.bins", "ActionTokenizer.encode",
                                               "ActionTokenizer.decode", "ActionTokenizer.centres"]},
                  (), (1,)),
    2: Assignment("mask", {"model.py": ["attention_mask", "VLA.embed", "VLA.attention_bias"]},
                  (), (1, 2, 3, 4)),
    3: Assignment("block", {"model.py": ["attend", "Attention.forward", "Block._forward", "KVCache.append",
                                         "VLA.flops"]}, (), (3,)),
    4: Assignment("sample", {"data.py": ["pack", "fill", "RobotData.sample", "Mix.__getitem__", "Mix.draw"]},
                  (1,), (1, 4)),
    5: Assignment("decoding", {"model.py": ["VLA.generate"]}, (2, 3), (2, 3, 5)),
    6: Assignment("closed_loop", {"eval.py": ["rollouts", "driver", "wilson"]}, (), (1, 2, 3, 4, 6)),
    7: Assignment("recipes", {"train.py": ["lr_scale", "forward", "train_step"]},
                  (1, 2, 3, 4), (1, 2, 3, 4, 6)),
    8: Assignment("thought", {"eval.py": ["Policy.decide", "Policy.slot"]}, (), tuple(range(1, 10))),
    9: Assignment("faster", {"eval.py": ["Policy.act", "Policy.carried_out"],
                             "course/int8.py": ["quantize", "dequantize", "Int8Linear.__init__",
                                                "Int8Linear.forward", "quantize_model"]},
                  (2, 3), (1, 2, 3, 4, 5, 6, 8, 9)),
    10: Assignment("your_own", {}, (), tuple(range(1, 10))),
}
# train.py and study/ run the whole project
PROGRAMS = {"train": tuple(range(1, 10)), "study": tuple(range(1, 10))}


def listed(numbers):
    """Example: listed((1, 2, 3, 4, 6)) -> "1 to 4 and 6"; listed((2, 3)) -> "2 and 3" """
    runs = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    parts = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])


def needs(number):
    """Example: needs(5) -> "Needs: assignments 2 and 3 for the tests; 2, 3 and 5 for the experiment." """
    tests, experiment = ASSIGNMENTS[number][2:]
    before = f"assignments {listed(tests)}" if len(tests) > 1 else f"assignment {tests[0]}" if tests else \
        "no other assignment"
    return f"Needs: {before} for the tests; {listed(experiment)} for the experiment."


def functions(tree, prefix=""):
    """qualified name -> its node, of every function of a file. Example: "VLA.embed" """
    for node in getattr(tree, "body", ()):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")


def place_of(file, root=ROOT):
    """where a file stands; int8.py is not a part of RT-2, and in the whole project it is a solution"""
    return root / ("course/solutions/int8.py" if file == "course/int8.py" and not (root / file).exists()
                   else file)


def missing(numbers, root=ROOT):
    """
    Which functions of these assignments are not written yet: number -> names. The files are read, not run.

    Example: in a copy where only attend and assignment 1 are written, missing((1, 3)) ->
        {3: ["Attention.forward", "Block._forward", "KVCache.append", "VLA.flops"]}
    """
    found = {}
    for number in numbers:
        for file, names in ASSIGNMENTS[number].cut.items():
            nodes = dict(functions(ast.parse(place_of(file, root).read_text(encoding="utf-8"), file)))
            for name in names:
                if name not in nodes or f"'assignment {number}: write {name}'" in ast.dump(nodes[name]):
                    found.setdefault(number, []).append(name)
    return found


def look(numbers, what):
    """ValueError, in one line, if assignments that something needs are not written"""
    try:
        found = missing(numbers)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    if found:
        raise ValueError(f"{what} needs assignment{'s' * (len(numbers) > 1)} {listed(numbers)}; not written "
                         "yet: " + "; ".join(f"{n} ({', '.join(names)})" for n, names in found.items()))
