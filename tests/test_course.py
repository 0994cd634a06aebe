"""
The course: a student's copy gives nothing away, every test of it fails there for the right reason and passes
with the reference, and plausible wrong solutions are caught. COURSE_SLOW=1 also trains the tiny model of
assignment 7.
"""
import compileall
import contextlib
import io
import json
import multiprocessing
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import __main__ as course
from course import grading
from course.__main__ import anchors, body
from course.assignments import ASSIGNMENTS, ROOT, missing, needs, place_of

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
        (T, "(bins < 0) | (bins >= self.bins_of)", "bins < 0", "no sense"),
        (T, "tiny = 1e-6 *", "tiny = 0 *", "float32"),                                  # no tolerance
        (T, "tiny = 1e-6 *", "tiny = 1e-2 *", "1/400"),                                 # 1 % of the bound
        (T, "if a.ndim == 0 or a.shape[-1] != len(self.names):", "if a.ndim == 0:", "one number where"),
        (T, "ids.shape[-1] != len(self.names) or ids", "ids", "one token where"),
        (T, "inside = (ids >= 0) & (ids", "inside = (ids", "negative token"),
        (T, "wrong = off > tiny[d]", "wrong = (off > tiny[d]) & (name not in self.categories)", "1.8")],
    # transposed
    2: [(M, "rank[:, None, :] <= rank[:, :, None]", "rank[:, None, :] >= rank[:, :, None]", "example"),
        # one too far
        (M, "rank[:, None, :] <= rank[:, :, None]", "rank[:, None, :] < rank[:, :, None] + 2", "example"),
        (M, " | (segment[:, None, :] == 0)  ", "  ", "two questions"),                  # blind to the picture
        (M, "return before & same", "return before", "two questions"),
        # counted from the first word
        (M, "same.tril(-1).sum(2)", "torch.ones_like(same).tril(-1).sum(2)", "as if alone"),
        (M, "masked_fill(~see, -torch.inf)", "masked_fill(~see, -1.)", "bias"),
        # padding that sees nothing, not even the picture
        (M, "return before & same", "return before & same & (segment[:, :, None] >= 0)", "softmax"),
        (M, "self.wpe(N + position)", "self.wpe(position)", "word 0 of a question")],
    3: [(M, "q * q.size(-1) ** -0.5", "q", "by hand"),                                  # not scaled
        (M, "F.softmax(att, dim=-1)", "F.softmax(att, dim=-2)", "by hand"),
        (M, "        self.k, self.v = k, v\n", "", "cache"),                            # keeps nothing
        (M, "x = x + self.mlp(self.ln_2(x))", "x = x + self.mlp(x)", "block"),
        (M, "q, k, v = qkv.permute", "k, q, v = qkv.permute", "torchs"),
        (M, "y.transpose(1, 2).reshape(B, T, C)", "y.reshape(B, T, C)", "torchs"),
        (M, "return 6 * (c.pictures", "return 2 * (c.pictures", "operations"),          # forward alone
        (M, "T = patches + c.vit_cls", "T = patches", "class token"),
        (M, "(c.pictures * vit", "(vit", "two pictures"),
        (M, "torch.eye(k.size(2), device=x.device), bias))", "torch.eye(k.size(2)), bias)[:, 0])", "who looked"),
        (M, "        if self.watch is not None:      # with", "        if 0:       # with", "watch")],
    4: [(D, "segment += [n] * len(ids)", "segment += [0] * len(ids)", "pack"),
        (D, "[-1] * empty", "[0] * empty", "pack"),
        (D, "[*tokenizer.encode(found[1]), tokenizer.eos]", "tokenizer.encode(found[1])", "fill"),
        (D, "if found is None or found in asked:", "if found is None:", "fill"),
        (D, "(ACTION, self.answers[n].tolist()),", "(ASKED, self.answers[n].tolist()),", "each token"),
        (D, "rng = np.random.default_rng([self.seed, step, k])",
         "rng = np.random.default_rng([self.seed, k])", "depends"),
        (D, "if row < n_robot else self.webs", "if rng.random() < self.robot_fraction else self.webs", "share"),
        (D, "rng.random() * weights[-1]", "rng.random()", "weight"),
        (D, "            break\n        asked.add", "            continue\n        asked.add", "shorter one follows"),
        (D, "for _ in range(20):", "for _ in range(100):", "tries"),
        (D, "questions = [action] if self.augment else", "questions = [action] if 0 else", "a crop moves"),
        (D, "pictures = jitter(pictures, self.size, rng) if self.augment else", "pictures =", "jitter"),
        (D, "which if row < n_robot else -1))", "0 if row < n_robot else -1))", "two robots")],
    5: [(M, "~allowed(tokens[:, P:P + t])", "allowed(tokens[:, P:P + t])", "allowed"),
        (M, "N + lengths - 1]", "N + P - 1]", "beside"),                                # reads the padding
        # positions after the padding
        (M, "lengths[:, None] + index - P, index)", "index, index)", "beside"),
        (M, "if t == 0 else x[:, -1]", "if t == 0 else x[:, 0]", "without the cache"),
        (M, "else P + t - 1 ", "else P + t - 2 ", "cache"),
        (M, "choice = torch.where(done, eos, choice)", "choice = choice", "eos"),
        (M, "logits / temperature", "logits", "draws"),
        (M, "uniform[:, t, None]", "uniform[:, 0, None]", "of its own"),
        (M, "if eos is not None and done.all():", "if False:", "passes"),
        (M, "                tokens[:, P + t:] = eos\n", "", "eos"),
        (M, "bias = self.attention_bias(segment, answer)", "bias = self.attention_bias(segment, answer & False)",
         "is `answer`"),
        (M, "self.watch.append((raw, logits, choice))", "pass", "watch"),
        (M, "self.watch.append((raw, logits, choice))", "self.watch.append((logits, logits, choice))", "watch"),
        (M, "        if not prompts or not all(prompts):", "        if False:", "without tokens")],
    6: [(V, "half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))",
         "half = d * z * math.sqrt(p * (1 - p) / n)",
         "wilson"),         # the interval of the wrong kind
        (V, "while going := [i for i, result in enumerate(results) if result is None]:",
         "while (going := list(range(len(envs)))) and None in results:", "own end"),
        (V, "bool(info.get(\"success\", reward > 0))", "bool(terminated)", "success"),
        (V, "line.prompt(env.swapped())", "line.prompt(env.instruction)", "words"),
        (V, "policy.act([episodes[i] for i in going]", "policy.act(episodes[:len(going)]", "words"),
        (V, "stop = [rngs[i].random() < .05 for i in going]", "stop = bins[:, 0]", "random"),
        (V, "{**info, \"success\": bool", "{\"success\": bool", "outcome"),
        (V, "info.get(\"success\", reward > 0)", "info.get(\"success\", True)", "reward 0"),
        (V, "            pictures[i] = obs[\"image\"]\n", "", "brightness")],
    7: [(R, "answer = batch[\"label\"] != ASKED", "answer = batch[\"label\"] == batch[\"label\"]",
         "answered"),
        (R, "answer = batch[\"label\"] != ASKED        #", "answer = batch[\"label\"] == ACTION        #",
         "answered"),
        (R, "(losses.sum() * ranks.world / n_target).backward()", "losses.mean().backward()", "micro"),
        (R, "            group[\"lr\"] = lr * scale", "            group[\"lr\"] = lr", "clipping"),
        (R, "        optimizer.zero_grad(set_to_none=True)\n", "", "micro"),
        (R, "(step + 1) / max(1, config.warmup), (total - step) / down)",
         "(step + 1) / max(1, config.warmup), 1.0)", "rate"),
        (R, "(losses.sum() * ranks.world / n_target)", "(losses.sum() / n_target)", "two ranks"),
        (R, "n_target = ranks.total(sum(", "n_target = (sum(", "two ranks"),
        (R, "last=k == len(micro_batches) - 1", "last=True", "last"),
        (R, "    with autocast(device, config.dtype):\n        answer", "    if True:\n        answer", "bfloat16"),
        (R, "(optimizers[\"adam\"], config.lr_adam)", "(optimizers[\"adam\"], config.lr_muon)", "lr_adam = 4")],
    8: [(V, "rules[-1] = begin", "rules[-1] = words", "stops thinking"),
        (V, "words[tok.eos], begin", "words[tok.eos + 0 * 1 - 1], begin", "stops thinking"),
        (V, "begun.sum(1) - 1", "begun.sum(1)", "slot"),
        (V, "row[:max(0, i - 1)]", "row[:max(0, i)]", "thought"),
        (V, "rules[self.slot(tokens)]", "rules[0 * self.slot(tokens) + n - 1]", "slot"),
        (V, "rng.random(room, np.float32) for rng in rngs", "rngs[0].random(room, np.float32) for rng in rngs",
         "own generator")],
    # one scale
    9: [(Q, "weight.abs().amax(dim=1, keepdim=True)", "weight.abs().max().expand(len(weight), 1)", "row"),
        (Q, "torch.round(weight / scale)", "(weight / scale)", "half a step"),          # cut off, not rounded
        # 128 does not fit
        (Q, "most = 2 ** (bits - 1) - 1", "most = 2 ** (bits - 1)", "row"),
        (Q, "(*model.vit.blocks, *model.blocks)", "model.blocks", "memory"),
        (V, "            if action[0] == 1:\n                break\n", "", "carried"),
        (V, "asked = [k for k, e in enumerate(episodes) if not e.to_do]",
         "asked = list(range(len(episodes)))", "asked"),
        (V, "for action in answer[:self.execute]", "for action in answer", "carried"),
        (V, "seen = [e.with_picture(picture) for e, picture in zip(episodes, pictures)]",
         "seen = [setattr(e, 'history', e.with_picture(p)) or e.history for e, p in zip(episodes, pictures)]",
         "saw last"),
        (V, "[[picture for step in seen[k] for picture in step] for k in asked]", "[seen[k][-1] for k in asked]",
         "two frames"),
        (V, "[episodes[k].rng for k in asked]", "[episodes[0].rng for k in asked]", "generators")],
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
    whole = filled(fresh, top / "whole", ASSIGNMENTS)
    change(whole / "study/suites.py", *LINE)
    for name in (".", "course", "world", "study"):
        compileall.compile_dir(whole / name, maxlevels=0, quiet=2,
                               invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return fresh, whole


def twin(folder, new):
    """
    A copy that shares its files, compiled ones included, until write() gives it one of its own. That saves most
    of the time of a mutant.
    """
    large = shutil.ignore_patterns("*.gif", "*.png", "*.svg", "*.pt", "examples")
    return Path(shutil.copytree(folder, new, ignore=large, copy_function=os.link))


def write(path, text):
    path.unlink(missing_ok=True)
    path.write_text(text)


def change(path, old, new):
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r} any more"
    write(path, text.replace(old, new, 1))


def filled(folder, new, numbers):
    """a copy in which these assignments are written, and no others"""
    new = twin(folder, new)
    for file in {file for a in ASSIGNMENTS.values() for file in a.cut}:
        text = place_of(file).read_text()
        for n in set(ASSIGNMENTS) - set(numbers):
            text = course.cut(text, ASSIGNMENTS[n].cut.get(file, []), n)
        write(new / file, text)
    return new


def enter(folder):
    """the modules of a process are those of this folder from now on"""
    for name in list(sys.modules):
        if name.split(".")[0] in {*grading.FIVE, "world", "study", "formats", "course"}:
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    os.chdir(folder)


def graded(job):
    """in a process of its own, so that modules are those of that copy: (folder, number, changes, skip)"""
    folder, number, changed, skip = job
    if changed:
        folder = twin(folder, Path(folder).parent / f"{os.getpid()}-{abs(hash(job))}")
        change(folder / changed[0], changed[1], changed[2])
    enter(folder)
    from course import grading as its_own
    assert its_own.ROOT == Path(folder).resolve()
    if skip:
        declared = its_own.declared
        its_own.declared = lambda path: [t for t in declared(path) if t[0] != "it_learns"]
    result = its_own.grade(number, its_own.ROOT / f"course/{number:02}_test.py", quiet=True)
    if changed:
        shutil.rmtree(folder)
    return result


def experimented(job):
    """(folder, number, checkpoint) -> what `python -m course.experiments number --quick` printed"""
    folder, number, checkpoint = job
    enter(folder)
    from course import experiments
    sys.argv, printed = ["", str(number), "--quick", "--checkpoint", str(checkpoint)], io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            experiments.main()
        except SystemExit as error:
            print(error)
    return printed.getvalue()


def run(jobs, function=graded):
    """each in a child of its own, two at a time; torch is imported once, before, and what optimizers import"""
    import torch._dynamo                                                    # noqa: F401

    import eval                                                             # noqa: F401
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        return pool.map(function, jobs, chunksize=1)


def test_points_add_up_to_one_hundred():
    tests = [t for n in ASSIGNMENTS for t in grading.declared(ROOT / f"course/{n:02}_test.py")]
    assert sum(t[2] for t in tests) == 100 and len({t[0] for t in tests}) == len(tests)
    assert all(t[3] for t in tests), "every test says what to read when it fails"


def test_in_a_fresh_copy_every_test_fails_for_the_right_reason(copies):
    """its own functions are missing, or those of an assignment that its handout says it needs"""
    for number, result in zip(ASSIGNMENTS, run([(copies[0], n, None, False) for n in ASSIGNMENTS])):
        assert len(result["tests"]) == len(grading.declared(ROOT / f"course/{number:02}_test.py"))
        for test in result["tests"]:
            assert test["score"] == 0 and test["status"] == "failed", test
            others = "|".join(f"this test needs assignment {n}, too: .*" for n in ASSIGNMENTS[number].tests)
            own = f"NotImplementedError: assignment {number}: write .*" if number < 10 else ".* no new line yet"
            assert re.search(own, test["output"]) or re.fullmatch(others, test["output"]), test


def test_with_the_reference_every_test_passes_and_what_a_handout_says_is_all_it_needs(copies, tmp_path):
    """each assignment in a copy where nothing is written but itself and what its handout names"""
    jobs = [(copies[1], list(ASSIGNMENTS)[-1], None, False)]
    for number, (_, _, tests, _) in list(ASSIGNMENTS.items())[:-1]:
        folder = filled(copies[1], tmp_path / str(number), [number, *tests])
        jobs.append((folder, number, None, not SLOW))
    for result in run(jobs):
        for test in result["tests"]:
            assert test["status"] == "passed" and test["score"] == test["max_score"], test


def test_each_experiment_starts_where_what_its_handout_names_is_written(copies, tmp_path):
    numbers = (1, 2, 3, 5, 6, 7, 9)
    checkpoint = untrained(tmp_path / "untrained.pt")
    jobs = [(filled(copies[1], tmp_path / str(n), ASSIGNMENTS[n].experiment), n, checkpoint) for n in numbers]
    for (_, number, _), printed in zip(jobs, run(jobs, experimented)):
        assert re.search(r"^\d+ seconds, ", printed, re.M) and "error:" not in printed, (number, printed)


def untrained(path):
    """a checkpoint of the built-in world, small and without any training"""
    import torch

    import data
    import train
    from model import VLA, ModelConfig
    from tokenizer import ActionTokenizer, Tokenizer, prompt
    from world.scene import ACTION_HIGH, ACTION_LOW, ACTION_NAMES
    config = train.Config(image_size=16, patch_size=8, vit_layer=1, vit_embd=8, vit_head=1, n_layer=1, n_embd=8,
                          n_head=1, robot=[{"format": "world", "vocabulary": "small", "skills": ["pick"]}])
    words = Tokenizer.train([prompt("pick the red can near apple")])
    torch.manual_seed(0)
    model = VLA(ModelConfig(words.n_vocab, 16, 8, 1, 1, 8, 1, 1, 8))
    robot = data.Robot(ActionTokenizer(words, ACTION_LOW, ACTION_HIGH, names=ACTION_NAMES))
    train.save(path, model=model.state_dict(), optimizers={}, step=0, config=train.asdict(config),
               model_config=train.asdict(model.config), tokenizer=words.state(), robots={"world": robot.state()},
               data={})
    return path


def test_what_is_missing_is_said_in_one_line_before_anything_starts(copies):
    """of experiments, and of train.py and the study, which would draw episodes for minutes first"""
    fresh, whole = copies
    assert not missing(ASSIGNMENTS, ROOT) and not missing(ASSIGNMENTS, whole)
    assert missing(ASSIGNMENTS, fresh) == {n: [f for names in a.cut.values() for f in names]
                                           for n, a in ASSIGNMENTS.items() if a.cut}
    printed, = run([(fresh, 2, "-")], experimented)
    assert printed.startswith("error: experiment 2 needs assignments 1 to 4; not written yet: 1 (ActionTok")
    assert printed.count("\n") == 1
    for program in ("train", "study"):
        told = subprocess.run([sys.executable, "-m", "course", program, "--out_dir", "x"], cwd=fresh,
                              capture_output=True, text=True)
        assert told.returncode and told.stderr.startswith(f"error: python -m course {program} needs assignments")
        assert told.stderr.count("\n") == 1 and not (fresh / "x").exists() and not (fresh / "data").exists()


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
    for number, (_, cut, _, _) in ASSIGNMENTS.items():
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
        assert test["visibility"] in ("visible", "after_due_date", "after_published", "hidden")
        assert 0 <= test["score"] <= test["max_score"] and test["status"] in ("passed", "failed")


def test_a_file_that_does_not_load_and_a_loop_without_end_are_said(copies, tmp_path):
    broken = run([(copies[1], 1, ("tokenizer.py", "import re\n", "import re re\n"), True)])[0]
    assert broken["score"] == 0 and all("does not load" in t["output"] for t in broken["tests"])
    with pytest.raises(TimeoutError, match="loop"), grading.time_limit(.1):
        while True:
            pass


def test_every_test_of_the_course_says_what_it_found_and_what_it_wanted():
    for number in ASSIGNMENTS:
        for line in (ROOT / f"course/{number:02}_test.py").read_text().splitlines():
            assert not line.strip().startswith("assert "), f"{number}: {line}: use expect() or fails()"
    for found, wanted, text in (([0, 3], [0, 2], "x: found [0, 3], wanted [0, 2]"), ((1, .123456), (1, 0),
                                "x: found (1, 0.1235), wanted (1, 0)")):
        with pytest.raises(AssertionError, match=re.escape(text)):
            grading.expect("x", found, wanted)
    grading.expect("x", [1., 2.], (1.0001, 2), off=.001)
    with pytest.raises(AssertionError, match="found 1, wanted more"):
        grading.expect("x", 1, "more", holds=False)
    with pytest.raises(AssertionError, match=r"shape \(2,\), wanted \(3,\)"):
        grading.expect("x", [1, 2], [1, 2, 3], off=.1)
    with pytest.raises(AssertionError, match="found no error but 5, wanted a ValueError"):
        grading.fails("x", int, 5)


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
    for number, (name, cut, _, _) in ASSIGNMENTS.items():
        text = (ROOT / f"course/{number:02}_{name}.md").read_text(encoding="utf-8")
        assert len(text.split()) < 1100 and text.count("\n") <= 110, f"{name}: {len(text.split())} words"
        assert f"\n{needs(number)}\n" in text[:text.index("## By hand")], f"{name}: {needs(number)}"
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
