"""README.md: its commands run, its files are there, its code is the code, its numbers are those of the results files"""
import json
import re
import shlex
from pathlib import Path

import eval as evaluation
import train
from study import tables

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def small_table():
    """the table of `python train.py`, as markdown"""
    rows = json.loads((ROOT / "study/small.json").read_text())["rows"]
    lines = ["| task | " + " | ".join(evaluation.DRIVERS) + " |", "|---" * 6 + "|"]
    for name in dict.fromkeys(r["line"] for r in rows):
        cells = {r["driver"]: f"{100 * r['success'] / r['n']:.0f} % [{100 * r['interval'][0]:.0f}, {100 * r['interval'][1]:.0f}]"
                 for r in rows if r["line"] == name}
        lines.append(f"| {name} | " + " | ".join(cells[d] for d in evaluation.DRIVERS) + " |")
    return "\n".join(lines)


def study_table():
    """seen, unseen and emergent of the three recipes, from RESULTS.md's first table"""
    found = tables.tables(json.loads((ROOT / "study/results.json").read_text()))
    rows = [line for line in next(iter(found.values())).splitlines()
            if re.match(r"\| large, (co-fine-tuning|fine-tuning|from scratch) \|", line)]
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    lines = ["| recipe | seen | unseen | emergent | emergent, by seed | web questions, before | after |", "|---" * 7 + "|"]
    return "\n".join(lines + ["| " + " | ".join([c[0].removeprefix("large, "), *c[1:7]]) + " |" for c in cells])


def metaworld_tables():
    """the two tables of Meta-World: with the controls, and by the number of actions in an answer"""
    found = json.loads((ROOT / "examples/metaworld/results.json").read_text())

    def cell(k, n):
        return evaluation.percent(k, n).strip().replace("[ ", "[").replace(",  ", ", ")
    tasks = list(dict.fromkeys(r["line"] for r in found["rows"]))
    one = ["| task | " + " | ".join(evaluation.DRIVERS) + " |", "|---" * 6 + "|"]
    for task in tasks:
        cells = {r["driver"]: cell(r["success"], r["n"]) for r in found["rows"] if r["line"] == task}
        one.append(f"| {task} | " + " | ".join(cells[d] for d in evaluation.DRIVERS) + " |")
    two = ["| chunk | execute | " + " | ".join(tasks) + " | all | actions a second |", "|---" * 8 + "|"]
    policy = [r for r in found["rows"] if r["driver"] == "policy"]
    for c in [{"chunk": 1, "execute": 1, "rows": policy}, *found["chunks"]]:
        rates = [f"{r['success']}" for r in c["rows"]]
        every = cell(sum(r["success"] for r in c["rows"]), sum(r["n"] for r in c["rows"]))
        speed = found["actions_per_s"][f"{c['chunk']} {c['execute']}"]
        two.append(f"| {c['chunk']} | {c['execute']} | " + " | ".join(rates) + f" | {every} | {speed} |")
    return "\n".join(one), "\n".join(two)


def test_the_tables_of_meta_world_are_those_of_its_results_file():
    text = (ROOT / "examples/metaworld/README.md").read_text()
    assert all(table in text for table in metaworld_tables())


def test_the_results_tables_are_those_of_the_results_files():
    assert small_table() in TEXT and study_table() in TEXT


def test_every_command_is_understood_by_its_script():
    """train.py's arguments are read as a run would read them; other scripts are there"""
    commands = {c.strip() for c in re.findall(r"(?:python|torchrun --nproc_per_node 8) (train\.py[^`\n&#]*)", TEXT)}
    assert len(commands) >= 4
    for command in commands:
        _, *args = shlex.split(command)
        if "--resume" not in args:
            train.read_config(args)
    assert "python -m study" in TEXT and (ROOT / "study/__main__.py").exists() and (ROOT / "eval.py").exists()


def test_the_test_command_is_the_one_of_ci():
    command = "pip install -r requirements.txt && python -m pytest -q"
    assert command in TEXT and "pip install -q -r requirements.txt && python -m pytest -q" in (ROOT / ".ci/run").read_text()


def test_every_file_it_links_is_there():
    for readme in [ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8")):
            assert link.startswith("http") or (readme.parent / link).exists(), f"{readme}: {link}"


def test_the_code_it_shows_is_the_code():
    page = TEXT.split("## The idea in one page")[1].split("## The files")[0]
    shown = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    code = {re.sub(r"\s+", " ", " ".join(path.read_text(encoding="utf-8").split())) for path in ROOT.glob("*.py")}
    for line in shown:
        assert any(re.sub(r"\s+", " ", line) in text for text in code), line


def test_it_can_be_read_in_one_sitting():
    assert len(TEXT.split()) < 2000
