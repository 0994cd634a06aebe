"""
The course: a student's copy gives nothing away, every test of it fails there for the right reason and passes
with the reference, and plausible wrong solutions are caught. COURSE_SLOW=1 also trains the tiny model of
assignment 7.
"""
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import __main__ as course
from course import grading
from course.__main__ import ASSIGNMENTS, ROOT, anchors, body, place_of

SLOW = bool(os.environ.get("COURSE_SLOW"))
LINE = ('        "categories": (',
        '        "sweets and more": ("pick {category}",),\n        "categories": (')

# assignment -> wrong solutions: (file, what stands there, what a student might write, a word of the test that
# must fail)
T, M, D, V, R, Q = "tokenizer.py", "model.py", "data.py", "eval.py", "train.py", "course/int8.py"
MUTANTS = {
    1: [(T, "(bins + 0.5) *", "bins *", "centre"),                                      # the left edge
        (T, "* self.bins_of).clip(", "* (self.bins_of - 1)).clip(", "by hand"),         # n - 1 bins
        (T, "np.floor((a", "np.round((a", "by hand"),
        (T, "return self.ids[self.bins(actions, quiet)]", "return 256 + self.bins(actions, quiet)",
         "schemes"),
        (T, "b[..., d], off = distance.argmin(-1), distance.min(-1)", "off = distance.min(-1)", "category"),
        (T, "(bins < 0) | (bins >= self.bins_of)", "bins < 0", "no sense")],
    # transposed
    2: [(M, "rank[:, None, :] <= rank[:, :, None]", "rank[:, None, :] >= rank[:, :, None]", "example"),
        # one too far
        (M, "rank[:, None, :] <= rank[:, :, None]", "rank[:, None, :] < rank[:, :, None] + 2", "example"),
        (M, " | (segment[:, None, :] == 0)  ", "  ", "two questions"),                  # blind to the picture
        (M, "return before & same", "return before", "two questions"),
        # counted from the first word
        (M, "same.tril(-1).sum(2)", "torch.ones_like(same).tril(-1).sum(2)", "as if alone"),
        (M, "masked_fill(~see, -torch.inf)", "masked_fill(~see, -1.)", "bias")],
    3: [(M, "q * q.size(-1) ** -0.5", "q", "by hand"),                                  # not scaled
        (M, "F.softmax(att, dim=-1)", "F.softmax(att, dim=-2)", "by hand"),
        (M, "        self.k, self.v = k, v\n", "", "cache"),                            # keeps nothing
        (M, "x = x + self.mlp(self.ln_2(x))", "x = x + self.mlp(x)", "block"),
        (M, "q, k, v = qkv.permute", "k, q, v = qkv.permute", "torchs"),
        (M, "y.transpose(1, 2).reshape(B, T, C)", "y.reshape(B, T, C)", "torchs"),
        (M, "return 6 * (c.pictures", "return 2 * (c.pictures", "operations")],         # forward alone
    4: [(D, "segment += [n] * len(ids)", "segment += [0] * len(ids)", "pack"),
        (D, "[-1] * empty", "[0] * empty", "pack"),
        (D, "[*tokenizer.encode(found[1]), tokenizer.eos]", "tokenizer.encode(found[1])", "fill"),
        (D, "if found is None or found in asked:", "if found is None:", "fill"),
        (D, "(ACTION, self.answers[n].tolist()),", "(ASKED, self.answers[n].tolist()),", "each token"),
        (D, "rng = np.random.default_rng([self.seed, step, k])",
         "rng = np.random.default_rng([self.seed, k])", "depends"),
        (D, "if row < n_robot else webs", "if rng.random() < self.robot_fraction else webs", "share"),
        (D, "rng.random() * weights[-1]", "rng.random()", "weight")],
    5: [(M, "~allowed(tokens[:, P:P + t])", "allowed(tokens[:, P:P + t])", "allowed"),
        (M, "N + lengths - 1]", "N + P - 1]", "beside"),                                # reads the padding
        # positions after the padding
        (M, "lengths[:, None] + index - P, index)", "index, index)", "beside"),
        (M, "if t == 0 else x[:, -1]", "if t == 0 else x[:, 0]", "without the cache"),
        (M, "else P + t - 1 ", "else P + t - 2 ", "cache"),
        (M, "choice = torch.where(done, eos, choice)", "choice = choice", "eos"),
        (M, "logits / temperature", "logits", "draws")],
    6: [(V, "half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))",
         "half = d * z * math.sqrt(p * (1 - p) / n)",
         "wilson"),         # the interval of the wrong kind
        (V, "while going := [i for i, result in enumerate(results) if result is None]:",
         "while (going := list(range(len(envs)))) and None in results:", "own end"),
        (V, "bool(info.get(\"success\", reward > 0))", "bool(terminated)", "success"),
        (V, "line.prompt(env.swapped())", "line.prompt(env.instruction)", "words"),
        (V, "policy.act([episodes[i] for i in going]", "policy.act(episodes[:len(going)]", "words"),
        (V, "stop = [rngs[i].random() < .05 for i in going]", "stop = bins[:, 0]", "random")],
    7: [(R, "answer = batch[\"label\"] != ASKED", "answer = batch[\"label\"] == batch[\"label\"]",
         "answered"),
        (R, "answer = batch[\"label\"] != ASKED        #", "answer = batch[\"label\"] == ACTION        #",
         "answered"),
        (R, "(losses.sum() * ranks.world / n_answer).backward()", "losses.mean().backward()", "micro"),
        (R, "            group[\"lr\"] = lr * scale", "            group[\"lr\"] = lr", "clipping"),
        (R, "        optimizer.zero_grad(set_to_none=True)\n", "", "micro"),
        (R, "(step + 1) / max(1, config.warmup), (total - step) / down)",
         "(step + 1) / max(1, config.warmup), 1.0)", "rate")],
    8: [(V, "rules[-1] = begin", "rules[-1] = words", "stops thinking"),
        (V, "words[tok.eos], begin", "words[tok.eos + 0 * 1 - 1], begin", "stops thinking"),
        (V, "t - 1 - said.argmax(1), -1)", "t - said.argmax(1), -1)", "slot"),
        (V, "row[:max(0, i - 1)]", "row[:max(0, i)]", "thought"),
        (V, "rules[self.slot(tokens)]", "rules[0 * self.slot(tokens) + n - 1]", "slot")],
    # one scale
    9: [(Q, "weight.abs().amax(dim=1, keepdim=True)", "weight.abs().max().expand(len(weight), 1)", "row"),
        (Q, "torch.round(weight / scale)", "(weight / scale)", "half a step"),          # cut off, not rounded
        # 128 does not fit
        (Q, "most = 2 ** (bits - 1) - 1", "most = 2 ** (bits - 1)", "row"),
        (Q, "(*model.vit.blocks, *model.blocks)", "model.blocks", "memory"),
        (V, "            if action[0] == 1:\n                break\n", "", "carried"),
        (V, "asked = [k for k, e in enumerate(episodes) if not e.to_do]",
         "asked = list(range(len(episodes)))", "asked"),
        (V, "for action in answer[:self.execute]", "for action in answer", "carried")],
    # no way to refer
    10: [("study/suites.py", LINE[1], LINE[1].replace("category}\",)", "a}\",)"), "drawn"),
         ("world/scene.py", '"pick": ("pick the {a}",', '"pick": ("pick the drink", "pick the {a}",',
          "gives it away"),
         ("study/suites.py", LINE[1], LINE[0], "new line")],
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """a student's copy with everything cut out, and one that has been filled in with the reference"""
    top = tmp_path_factory.mktemp("course")
    fresh = course.start(top / "fresh", list(ASSIGNMENTS))
    whole = shutil.copytree(fresh, top / "whole")
    for file in {file for _, cut in ASSIGNMENTS.values() for file in cut}:
        shutil.copy(place_of(file), whole / file)
    change(whole / "study/suites.py", *LINE)
    return fresh, whole


def change(path, old, new):
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r} any more"
    path.write_text(text.replace(old, new, 1))


def graded(job):
    """in a process of its own, so that modules are those of that copy: (folder, number, changes, slow)"""
    folder, number, changed, skip = job
    if changed:
        mutant = Path(folder).parent / f"{os.getpid()}-{abs(hash(job))}"
        large = shutil.ignore_patterns("*.gif", "*.png", "*.svg", "*.json", "examples")
        shutil.copytree(folder, mutant, ignore=large)
        change(mutant / changed[0], changed[1], changed[2])
        folder = mutant
    for name in list(sys.modules):
        if name.split(".")[0] in {*grading.FIVE, "world", "study", "formats", "course"}:
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    from course import grading as its_own
    assert its_own.ROOT == Path(folder).resolve()
    if skip:
        declared = its_own.declared
        its_own.declared = lambda path: [t for t in declared(path) if t[0] != "it_learns"]
    result = its_own.grade(number, its_own.ROOT / f"course/{number:02}_test.py", quiet=True)
    if changed:
        shutil.rmtree(folder)
    return result


def run(jobs):
    """each in a child of its own, two at a time; torch is imported once, before, and what optimizers import"""
    import eval                                                             # noqa: F401
    import torch._dynamo                                                    # noqa: F401
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        return pool.map(graded, jobs, chunksize=1)


def test_points_add_up_to_one_hundred():
    tests = [t for n in ASSIGNMENTS for t in grading.declared(ROOT / f"course/{n:02}_test.py")]
    assert sum(t[2] for t in tests) == 100 and len({t[0] for t in tests}) == len(tests)
    assert all(t[3] for t in tests), "every test says what to read when it fails"


def test_in_a_fresh_copy_every_test_fails_for_the_right_reason(copies):
    for number, result in zip(ASSIGNMENTS, run([(copies[0], n, None, False) for n in ASSIGNMENTS])):
        assert len(result["tests"]) == len(grading.declared(ROOT / f"course/{number:02}_test.py"))
        for test in result["tests"]:
            assert test["score"] == 0 and test["status"] == "failed", test
            right = "NotImplementedError: assignment " if number < 10 else "EMERGENT has no new line"
            assert right in test["output"], f"{number}: {test['name']}: {test['output']}"


def test_with_one_assignment_cut_its_tests_name_it(tmp_path):
    jobs = []
    for number in list(ASSIGNMENTS)[:-1]:
        jobs.append((course.start(tmp_path / str(number), [number]), number, None, False))
    for (_, number, *_), result in zip(jobs, run(jobs)):
        for test in result["tests"]:
            assert f"NotImplementedError: assignment {number}: write" in test["output"], test


def test_with_the_reference_every_test_passes(copies, tmp_path):
    """what comes later is still cut out: no assignment needs a later one"""
    jobs = [(copies[1], list(ASSIGNMENTS)[-1], None, False)]
    for number in list(ASSIGNMENTS)[:-1]:
        later = [n for n in ASSIGNMENTS if n > number]
        jobs.append((course.start(tmp_path / str(number), later), number, None, not SLOW))
    for result in run(jobs):
        for test in result["tests"]:
            assert test["status"] == "passed" and test["score"] == test["max_score"], test


@pytest.mark.parametrize("number", ASSIGNMENTS)
def test_plausible_wrong_solutions_are_caught(copies, number):
    assert len(MUTANTS[number]) >= 3
    jobs = [(copies[1], number, (file, old, new), True) for file, old, new, _ in MUTANTS[number]]
    for (file, old, new, where), result in zip(MUTANTS[number], run(jobs)):
        failed = [t["name"] + t["output"] for t in result["tests"] if t["status"] == "failed"]
        assert failed, f"nobody noticed {new.strip()!r} instead of {old.strip()!r} in {file}"
        assert any(where in text for text in failed), (where, new, failed)
        assert not any("does not load" in text for text in failed), failed


def test_the_copy_does_not_hold_the_solution(copies):
    fresh, _ = copies
    texts = {p: p.read_text(errors="replace") for p in fresh.rglob("*")
             if p.suffix in (".py", ".md", ".toml", ".json")}
    for number, (_, cut) in ASSIGNMENTS.items():
        for file, names in cut.items():
            source = place_of(file).read_text()
            kept = (fresh / file).read_text()
            lines = {line for name in names for line in body(source, name)
                     if len(line) > 35 and not line.startswith(("#", "raise", "f\"", "\""))
                     and line not in kept}
            assert len(lines) >= 3, f"assignment {number}, {file}: three distinctive lines"
            for line in lines:
                found = [str(p) for p, text in texts.items() if line in text]
                assert not found, f"{line!r} stands in {found}"
            pages = {line.strip() for p, text in texts.items() if p.suffix == ".md"
                     for line in text.splitlines()}
            shown = [page for page in pages if len(page) > 35 and any(page in line for line in lines)]
            assert not shown, shown
    names = {p.name for p in fresh.rglob("*")}
    assert not names & {".git", "tests", "__pycache__", "solutions", "TEACHING.md", "out", "data"}


def test_the_command_line_grades_the_students_file_and_writes_gradescopes_json(copies, tmp_path):
    """an edit of the student's file changes the verdict, although PYTHONPATH names the reference"""
    fresh, _ = copies
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "course", "check", "1", "--json", str(tmp_path / "r.json")]
    subprocess.run(command, cwd=fresh, env=environment, check=True, capture_output=True)
    assert json.loads((tmp_path / "r.json").read_text())["score"] == 0
    mine = (fresh / "tokenizer.py").read_text()
    try:
        shutil.copy(ROOT / "tokenizer.py", fresh / "tokenizer.py")
        shown = subprocess.run(command, cwd=fresh, env=environment, check=True, capture_output=True,
                               text=True).stdout
    finally:
        (fresh / "tokenizer.py").write_text(mine)
        for folder in fresh.rglob("__pycache__"):
            shutil.rmtree(folder)
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["score"] == sum(t["score"] for t in result["tests"]) == 10 and "10 of 10 points" in shown
    for test in result["tests"]:
        assert {"name", "score", "max_score", "output"} <= test.keys() and type(test["output"]) is str
        assert 0 <= test["score"] <= test["max_score"] and test["status"] in ("passed", "failed")


def test_a_file_that_does_not_load_and_a_loop_without_end_are_said(copies, tmp_path):
    broken = run([(copies[1], 1, ("tokenizer.py", "import re\n", "import re re\n"), True)])[0]
    assert broken["score"] == 0 and all("does not load" in t["output"] for t in broken["tests"])
    with pytest.raises(TimeoutError, match="loop"), grading.time_limit(.1):
        while True:
            pass


def test_start_refuses_what_would_hurt(tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        course.start(tmp_path, [1])
    with pytest.raises(ValueError, match="inside the project"):
        course.start(ROOT / "my-rt2", [1])


def test_cut_keeps_signature_and_docstring():
    head, tail = 'class A:\n    def f(self, x):\n        """half of x"""\n', '\n    y = 1\n'
    source = f"{head}        # a hint\n        return x / 2\n{tail}"
    assert course.cut(source, ["A.f"], 3) == \
        f'{head}        raise NotImplementedError("assignment 3: write A.f")\n{tail}'


def test_every_assignment_has_a_handout_that_names_its_functions_and_fits_two_pages():
    for number, (name, cut) in ASSIGNMENTS.items():
        text = (ROOT / f"course/{number:02}_{name}.md").read_text(encoding="utf-8")
        assert len(text.split()) < 1100, f"{name}: {len(text.split())} words"
        for function in (f for names in cut.values() for f in names):
            assert f"`{function}`" in text, f"{number:02}_{name}.md does not name {function}"
        for part in ("## The question", "## By hand", "## What to write", "## What to measure",
                     "## In words"):
            assert part in text or number == 10, f"{name}: {part}"


def test_the_pages_of_the_course_name_lines_and_files_that_are_there(copies):
    for root in (ROOT, copies[0]):
        for page in (root / "course").glob("*.md"):
            text = page.read_text(encoding="utf-8")
            assert anchors(text, root) == text, f"{page.name}: run python -m course anchors"
            for link in re.findall(r"\]\(([^)#]+)", text):
                assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)
    stops = (ROOT / "course/SEVEN_STOPS.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^## \d", stops, re.M)) == 7 and stops.count("#L") >= 7
