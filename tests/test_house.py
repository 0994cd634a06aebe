"""where everything lives, and who may import whom"""
import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIVE = {"model", "tokenizer", "data", "train", "eval"}
FOLDERS = {"world", "formats", "study", "examples"}
# module or folder -> what of ours it may import. What a function imports when it runs is not among them: train.py opens formats.weights only
# for published weights, and eval.py, which imports it, at its very end.
MAY = {"model": set(), "tokenizer": set(), "data": {"tokenizer"}, "train": {"model", "tokenizer", "data"},
       "eval": {"model", "tokenizer", "data", "train"}, "world": {"world", "tokenizer", "data"},
       "formats": {"formats", "tokenizer", "model", "data"}, "study": FIVE | {"world", "study", "formats"}, "examples": FIVE | {"examples"}}


def ours(path):
    """names of this project's modules that a file imports when it is imported"""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name.split(".")[0] in FIVE | FOLDERS}


def files():
    return [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] in FOLDERS | {f"{n}.py" for n in FIVE}]


def test_the_top_level_has_the_five_files_and_no_other_python_file():
    assert {p.stem for p in ROOT.glob("*.py")} == FIVE


def test_imports_follow_the_arrows_of_the_house():
    for path in files():
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        wrong = {name for name in ours(path) if name.split(".")[0] not in MAY[room] | {room}}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_no_import_goes_in_a_circle():
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in files()}
    arrows = {name: {other for other in ours(path) if other in modules and other != name} for name, path in modules.items()}

    def walk(name, way):
        assert name not in way, " -> ".join((*way, name))
        for other in arrows[name]:
            walk(other, (*way, name))
    for name in modules:
        walk(name, ())


def test_no_module_uses_private_names_of_another():
    """x._y, where x is one of our modules"""
    for path in files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {name.split(".")[-1] for name in ours(path)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                assert not node.attr.startswith("_") or node.attr.startswith("__"), f"{path.name}: {node.value.id}.{node.attr}"


def test_lines_are_at_most_110_characters():
    for path in files():
        long = [i for i, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if len(line) > 110]
        assert not long, f"{path.relative_to(ROOT)}: lines {long[:10]}"


def test_no_function_has_more_than_sixty_lines():
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, f"{path.name}: {node.name}"


def test_a_step_of_training_fits_a_slide():
    step = next(n for n in ast.parse((ROOT / "train.py").read_text()).body if getattr(n, "name", "") == "train_step")
    assert step.end_lineno - step.lineno < 32
