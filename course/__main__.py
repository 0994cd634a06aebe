"""
The course: ten assignments that begin with cut-out functions and end in this project's own code.

    python -m course start ../my-rt2        # a student's copy: the functions of all assignments are cut out
    python -m course start ../my-rt2 5      # only those of assignment 5; what is not its subject is whole
    python -m course check 2                # the tests of assignment 2, against the files of this folder
    python -m course check 2 --json results.json        # Gradescope's format, too
    python -m course check                  # all assignments
    python -m course train --steps 100      # train.py, once all that it needs is written (study: the same)

course/README.md is the syllabus.
"""
import argparse
import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path

ENVIRONMENT = dict(os.environ)                      # of train.py, which may use all cores
os.environ.setdefault("OMP_NUM_THREADS", "1")       # before torch: the models of the tests are tiny

from course import grading                                          # noqa: E402
from course.assignments import (ASSIGNMENTS, PROGRAMS, ROOT, functions, listed, look, missing,  # noqa: E402
                                place_of)

FOLDERS = ("configs", "world", "formats", "study", "examples", "course")
# no student's copy has these: answers, and what was made by running
WITHOUT = ("solutions", "TEACHING.md", "__pycache__", "*.pyc", ".*", "data", "out")
NOTE = """
> **A student's copy.** Begin with [course/README.md](course/README.md). What is yours to write is cut out of
> the five files and out of the lines below. The folder tests/ is not here: instead of `pytest` run
> `python -m course check`, and instead of tests/tiny.py read course/tiny.py.
"""


# --------------------------------------------------------------------------------------------------------
# start: a copy without the answers

def cut(source, names, number):
    """
    A file without the bodies of some functions. Signature and docstring stay.

    Example: cut('def f(x):\\n    "half of x"\\n    return x / 2\\n', ["f"], 3)
        -> 'def f(x):\\n    "half of x"\\n    raise NotImplementedError("assignment 3: write f")\\n'
    """
    found, lines = dict(functions(ast.parse(source))), source.splitlines(keepends=True)
    for name in sorted(names, key=lambda n: -found[n].lineno):          # from the end, so that numbers hold
        node = found[name]
        first, last = span(node, lines)
        lines[first:last] = [f"{' ' * (node.col_offset + 4)}raise NotImplementedError("
                             f"\"assignment {number}: write {name}\")\n"]
    return "".join(lines)


def span(node, lines):
    """which lines of a file are a function's body, after its docstring: lines[first:last]"""
    if ast.get_docstring(node, clean=False) is not None:
        return node.body[0].end_lineno, node.end_lineno
    first = node.body[0].lineno - 1
    while lines[first - 1].strip().startswith("#"):         # a comment above the first line belongs to it
        first -= 1
    return first, node.end_lineno


def body(source, name):
    """the lines that cut() takes away"""
    lines = source.splitlines(keepends=True)
    first, last = span(dict(functions(ast.parse(source)))[name], lines)
    return [line.strip() for line in lines[first:last]]


def start(folder, numbers):
    """writes a student's copy for these assignments into a folder that does not exist yet"""
    folder = Path(folder).resolve()
    if folder.exists():
        raise ValueError(f"{folder} exists already; name a new folder")
    if ROOT in folder.parents:
        raise ValueError(f"{folder} is inside the project; name a folder beside it, such as ../my-rt2")
    if not (ROOT / "course/solutions").exists():
        raise ValueError("this is a student's copy; start new ones from the whole project")
    folder.mkdir(parents=True)
    for name in [f"{name}.py" for name in grading.FIVE] + ["requirements.txt", "README.md"]:
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*WITHOUT))
    if 9 not in numbers:
        shutil.copy(place_of("course/int8.py"), folder / "course/int8.py")
    gone = set()
    for number in numbers:
        for file, names in ASSIGNMENTS[number].cut.items():
            whole, source = place_of(file).read_text(encoding="utf-8"), folder / file
            gone |= {line for name in names for line in body(whole, name) if len(line) > 20}
            text = source.read_text(encoding="utf-8") if source.exists() else whole
            source.write_text(cut(text, names, number), encoding="utf-8")
    for page in folder.rglob("*.md"):                       # pages that show lines of the answers
        lines = page.read_text(encoding="utf-8").splitlines()
        lines = ["    # (yours to write)" if shows(line.strip(), gone) else line for line in lines]
        lines = [line for line, before in zip(lines, ["", *lines])
                 if line != before or "(yours to" not in line]
        if page == folder / "README.md":
            lines[1:1] = NOTE.splitlines()
        page.write_text(anchors("\n".join(lines) + "\n", folder), encoding="utf-8")
    return folder


def shows(line, gone):
    """does a line of a page show a line of an answer, or the beginning of one?"""
    return any(answer in line or line in answer for answer in gone) if len(line) > 35 else line in gone


def anchors(text, root):
    """
    The links of a page to functions, with the line that each stands on in the files of root.

    Example: "[`pack`](../data.py#L1)" -> "[`pack`](../data.py#L461)"
    """
    def link(match):
        name, file = match["name"], root / match["file"]
        nodes = dict(functions(ast.parse(file.read_text(encoding="utf-8"))))
        line = nodes[name].lineno if name in nodes else next(
            i for i, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
            if line.startswith(f"class {name}"))
        return f"[`{name}`](../{match['file']}#L{line})"
    return re.sub(r"\[`(?P<name>[\w.]+)`\]\(\.\./(?P<file>\w+\.py)#L\d+\)", link, text)


# --------------------------------------------------------------------------------------------------------
# check

def check(number, quiet=False):
    """the result of one assignment, in Gradescope's format"""
    name, others = ASSIGNMENTS[number].name, ASSIGNMENTS[number].tests
    say = (lambda *_: None) if quiet else (lambda text: print(text, flush=True))
    say(f"assignment {number}: course/{number:02}_{name}.md" + (" (about 1 minute)" if number == 7 else ""))
    try:
        for n, names in missing(others).items():
            say(f"  these tests need assignment {n} as well, and it is not written yet: {', '.join(names)}")
    except SyntaxError:                                     # grade() says where
        pass
    result = grading.grade(number, ROOT / f"course/{number:02}_test.py", quiet)
    tests = result["tests"]
    most, passed = sum(t["max_score"] for t in tests), sum(t["status"] == "passed" for t in tests)
    say(f"  {result['score']} of {most} points" if most else f"  {passed} of {len(tests)} checks hold")
    if others and passed < len(tests):
        say(f"  what you wrote in {listed(others)} is used here, too: see that its own tests pass")
    say(f"  {result['execution_time']} s\n")
    return result


def main():
    parser = argparse.ArgumentParser(prog="python -m course", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("start", help="write a student's copy")
    new.add_argument("folder")
    new.add_argument("number", type=int, nargs="?", choices=ASSIGNMENTS, help="this assignment alone")
    test = commands.add_parser("check", help="run the tests of an assignment, or of all")
    test.add_argument("number", type=int, nargs="?", choices=ASSIGNMENTS)
    test.add_argument("--json", metavar="FILE", help="write the result in Gradescope's format")
    commands.add_parser("anchors", help="write the lines of functions anew into the pages of the course")
    for program in PROGRAMS:
        commands.add_parser(program, add_help=False,
                            help=f"python -m {program}, after a look whether all that it needs is written")
    args, rest = parser.parse_known_args()
    try:
        if args.command in PROGRAMS:
            look(PROGRAMS[args.command], f"python -m course {args.command}")
            os.execve(sys.executable, [sys.executable, "-m", args.command, *rest], ENVIRONMENT)
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        if args.command == "start":
            folder = start(args.folder, [args.number] if args.number else list(ASSIGNMENTS))
            print(f"cd {folder} and read course/README.md")
            return
        if args.command == "anchors":
            for page in (ROOT / "course").glob("*.md"):
                page.write_text(anchors(page.read_text(encoding="utf-8"), ROOT), encoding="utf-8")
            return
        grading.same_folder()
        results = [check(n) for n in ([args.number] if args.number else ASSIGNMENTS)]
        tests = [test for result in results for test in result["tests"]]
        whole = {"score": sum(r["score"] for r in results), "tests": tests,
                 "execution_time": round(sum(r["execution_time"] for r in results), 1)}
        print(f"{whole['score']} of {sum(t['max_score'] for t in tests)} points")
        if args.json:
            Path(args.json).write_text(json.dumps(whole, indent=1), encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
