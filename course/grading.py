"""
Tests with points. A file NN_test.py is a list of functions, each under a line that says what it is worth:

    @points(3, read="model.py: the docstring of attention_mask")
    def an_answer_does_not_see_the_future():
        expect("row i, column j = i sees j", found, wanted)

grade() runs them and returns what Gradescope wants to know. A test passes if nothing is raised in time.
Points stand in the source as plain numbers, so that a test counts even where a student's file does not load.
"""
import ast
import contextlib
import importlib
import os
import re
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from course.assignments import ROOT

FIVE = ("tokenizer", "model", "data", "train", "eval")


def points(n, read="", seconds=30, visibility="visible"):
    """
    n: what the test is worth. read: where to look when it fails. seconds: more of computing fails.
    visibility: when Gradescope shows the result (visible, after_due_date, after_published, hidden).
    """
    return lambda function: function


def plain(x):
    """tensors and arrays as lists and numbers"""
    x = x.detach() if hasattr(x, "detach") else x
    return x.tolist() if hasattr(x, "tolist") else x


def show(x):
    """what was found or wanted, as text, a matrix by rows. Example: show([.5, 2]) -> "[0.5, 2]" """
    x = plain(x)
    if type(x) is float:
        return f"{x:.4g}"
    if type(x) in (list, tuple):
        matrix = len(x) > 1 and all(type(row) is list and len(row) > 2 for row in x)
        begin, between, end = ("\n    ", "\n    ", "") if matrix else ("[", ", ", "]") if type(x) is list \
            else ("(", ", ", ")")
        return begin + between.join(map(show, x)) + end
    return repr(x)


def expect(what, found, wanted, holds=None, off=0.):
    """
    The one way in which a test says what is wrong. Fails unless found is wanted (numbers may be off by
    `off`), or, where wanted is said in words, unless `holds`.

    Example: expect("bins", [0, 3], [0, 2])                  AssertionError: bins: found [0, 3], wanted [0, 2]
             expect("loss", 2.1, "below 1", holds=2.1 < 1)   AssertionError: loss: found 2.1, wanted below 1
    """
    found = plain(found)
    if holds is None:
        wanted = plain(wanted)
        holds = found == wanted
        if off and not holds:
            a, b = np.array(found, dtype=float), np.array(wanted, dtype=float)
            holds = a.shape == b.shape and np.allclose(a, b, rtol=0, atol=off)
            if a.shape != b.shape:
                found, wanted = f"numbers of shape {a.shape}", f"{b.shape}"
            elif a.size > 64 and not holds:                 # too many to print
                at = np.unravel_index(np.argmax(np.nan_to_num(np.abs(a - b), nan=np.inf)), a.shape)
                what += f", at {[int(i) for i in at]}, where they differ most"
                found, wanted = float(a[at]), float(b[at])
    if not holds:
        raise AssertionError(f"{what}: found {found if type(found) is str else show(found)}, "
                             f"wanted {wanted if type(wanted) is str else show(wanted)}")


def fails(what, call, *arguments, error=ValueError):
    """a test fails unless call(*arguments) raises this error"""
    try:
        found = call(*arguments)
    except error:
        return
    except (NotImplementedError, TimeoutError):
        raise
    except Exception as other:
        raise AssertionError(f"{what}: found {type(other).__name__}: {other}, "
                             f"wanted a {error.__name__}") from None
    raise AssertionError(f"{what}: found no error but {show(found)[:200]}, wanted a {error.__name__}")


def declared(path):
    """the tests of a file, not imported: [(name, what it shows, points, read, seconds, visibility)]"""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for line in getattr(node, "decorator_list", ()):
            if getattr(getattr(line, "func", None), "id", "") == "points":
                said = {key.arg: ast.literal_eval(key.value) for key in line.keywords}
                found.append((node.name, ast.get_docstring(node) or "", ast.literal_eval(line.args[0]),
                              said.get("read", ""), said.get("seconds", 30),
                              said.get("visibility", "visible")))
    return found


@contextlib.contextmanager
def time_limit(seconds):
    """TimeoutError after so many seconds of computing, where the system has alarms (Linux, macOS)"""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def over(*_):
        raise TimeoutError(f"not finished after {seconds} s of computing: is there a loop that does not end?")
    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def why(error):
    """an exception in a few lines: what it says, and the last line of the student's own files in it"""
    own = [f for f in traceback.extract_tb(error.__traceback__)
           if Path(f.filename).parent == ROOT or Path(f.filename).name == "int8.py"]
    where = f"\n  in {Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line}" if own else ""
    text = str(error) or "without a word of why"
    return f"{type(error).__name__}: {text}{where}"


def grade(number, path, quiet=False):
    """
    Runs the tests of one file against the project that it lies in -> {"score", "execution_time", "tests":
    [{"number", "name", "score", "max_score", "output", "status", "visibility"}]}, the results.json of
    Gradescope (its page "Autograder Specifications", section "Output format").
    """
    began, tests, module, broken = time.monotonic(), [], None, ""
    try:
        module = importlib.import_module(f"course.{path.stem}")
        for name in FIVE:               # the files of this folder, and no others of the same name
            file = getattr(sys.modules.get(name), "__file__", None)
            if file and Path(file).resolve().parent != ROOT:
                raise ImportError(f"{name} was read from {file}, not from {ROOT}; start from {ROOT}")
    except Exception as error:
        broken = f"nothing can be tested, because a file does not load\n{why(error)}"
    for k, (name, about, worth, read, seconds, visibility) in enumerate(declared(path), start=1):
        output, start = broken, time.monotonic()
        if not broken:
            try:
                with time_limit(seconds), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    getattr(module, name)()
            except Exception as error:
                other = re.match(r"assignment (\d+): write (.*)", str(error))
                if type(error) is NotImplementedError and other and int(other[1]) != number:
                    output = f"this test needs assignment {other[1]}, too: {other[2]} is not written yet"
                    read = ""
                else:
                    output = why(error)
        test = {"number": f"{number}.{k}", "name": name.replace("_", " "), "max_score": worth,
                "score": 0 if output else worth, "status": "failed" if output else "passed",
                "output": output + f"\nread: {read}" * bool(read) if output else "passed",
                "visibility": visibility}
        tests.append(test)
        if not quiet:
            mark = "ok  " if not output else "FAIL"
            print(f"  {mark} {test['number']:5} {test['score']:2} of {worth:2} points "
                  f"{time.monotonic() - start:5.1f} s  {test['name']}", flush=True)
            if output:
                about = f"{' '.join(about.split())}\n" if about else ""
                print("".join(f"       {line}\n" for line in (about + test["output"]).splitlines()), end="")
    return {"score": sum(t["score"] for t in tests), "execution_time": round(time.monotonic() - began, 1),
            "tests": tests}


def same_folder():
    """imports come from this copy, whatever PYTHONPATH says"""
    sys.path[:] = [str(ROOT)] + [p for p in sys.path if os.path.realpath(p or ".") != str(ROOT)]
