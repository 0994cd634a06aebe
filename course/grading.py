"""
Tests with points. A file NN_test.py is a list of functions, each under a line that says what it is worth:

    @points(3, read="model.py: the docstring of attention_mask")
    def an_answer_does_not_see_the_future():
        ...

grade() runs them and returns what Gradescope wants to know. A test passes if nothing is raised in time.
Points stand in the source as plain numbers, so that a test counts even where a student's file does not load.
"""
import ast
import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIVE = ("tokenizer", "model", "data", "train", "eval")


def points(n, read="", seconds=30):
    """n: what the test is worth. read: where to look when it fails. seconds: more than that fails."""
    return lambda function: function


def declared(path):
    """the tests of a file, without importing it: [(name, what it shows, points, read, seconds)]"""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for line in getattr(node, "decorator_list", ()):
            if getattr(getattr(line, "func", None), "id", "") == "points":
                said = {key.arg: ast.literal_eval(key.value) for key in line.keywords}
                found.append((node.name, ast.get_docstring(node) or "", ast.literal_eval(line.args[0]),
                              said.get("read", ""), said.get("seconds", 30)))
    return found


@contextlib.contextmanager
def time_limit(seconds):
    """TimeoutError after so many seconds, where the system has alarms (Linux, macOS)"""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def over(*_):
        raise TimeoutError(f"not finished after {seconds} s: is there a loop that does not end?")
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def why(error):
    """an exception in a few lines: what it says, and the last line of the student's own files in it"""
    own = [f for f in traceback.extract_tb(error.__traceback__)
           if Path(f.filename).parent == ROOT or Path(f.filename).name == "int8.py"]
    where = f"\n  in {Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line}" if own else ""
    text = str(error) or "the numbers are not what they should be"
    return f"{type(error).__name__}: {text}{where}"


def grade(number, path, quiet=False):
    """
    Runs the tests of one file against the project that it lies in -> {"score", "execution_time", "tests":
    [{"number", "name", "score", "max_score", "output", "status"}]}, the format of Gradescope's results.json.
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
    for k, (name, about, worth, read, seconds) in enumerate(declared(path), start=1):
        output, start = broken, time.monotonic()
        if not broken:
            try:
                with time_limit(seconds), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    getattr(module, name)()
            except Exception as error:
                output = why(error)
        test = {"number": f"{number}.{k}", "name": name.replace("_", " "), "max_score": worth,
                "score": 0 if output else worth, "status": "failed" if output else "passed",
                "output": f"{output}\nread: {read}" if output else "passed"}
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
