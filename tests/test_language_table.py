"""examples/language_table: the README's table is results.json's; with the simulator, a log and a trial"""
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples/language_table"
NEEDED = ("pybullet", "scipy", "absl", "six", "gymnasium", "cv2")


def test_the_readmes_table_is_that_of_the_results_file():
    lines = []
    for run in json.loads((FOLDER / "results.json").read_text())["runs"]:
        for r in run["rows"]:
            low, high = (round(100 * x) for x in r["interval"])
            lines.append(f"| {run['name']} | {r['driver']} | {100 * r['success'] / r['n']:.0f} % [{low}, {high}] "
                         f"| {r['n']} | {r['counts']['moved the named block first']} |")
    assert "\n".join(lines) in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["language_table", "places"])
def test_a_preset_is_understood(name):
    import train
    config = train.read_config(["--config", str(FOLDER / f"{name}.toml")])
    assert config.frames == 2 and config.robot[0]["n_bins"] == 21


@pytest.fixture(scope="module")
def example():
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing or not (ROOT / "data/language_table/repo").exists():
        pytest.skip(f"no Language-Table: {missing or 'its repository is not there'}")
    from examples.language_table import __main__ as example
    return example


@pytest.fixture(scope="module")
def scene(example):
    return example.Scene()


def test_a_seed_gives_a_scene_and_an_instruction(scene):
    found = []
    for seed in (1_000_003, 1_000_004, 1_000_003):
        picture = scene.reset(seed=seed)[0]["image"]
        found.append((scene.instruction, scene.swapped(), *np.concatenate(list(scene.places().values()))))
        assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    assert found[0] == found[2] != found[1]
    assert not {*scene.pair} & {"_".join(words) for words in zip(scene.swapped().split(), scene.swapped().split()[1:])}


def test_the_expert_succeeds_and_terminate_ends_a_trial(scene):
    ends = []
    for seed in range(5):
        scene.reset(seed=seed)
        terminated = truncated = False
        while not terminated and not truncated:
            _, reward, terminated, truncated, info = scene.step(scene.expert())
        ends.append(reward == 1 and terminated and info["counts"]["moved the named block first"])
    assert sum(ends) >= 3
    scene.reset(seed=1_000_003)
    before = scene.arm()
    _, reward, terminated, _, _ = scene.step(np.array([1, .03, .03]))
    assert terminated and not reward and np.allclose(before, scene.arm(), atol=.002)


def test_terminate_is_ignored_where_the_simulator_knows_none(example):
    scene = example.Scene(stops=False)
    scene.reset(seed=1_000_003)
    before = scene.arm()
    for _ in range(3):
        _, _, terminated, _, _ = scene.step(np.array([1, .03, .03]))
    assert not terminated and np.linalg.norm(scene.arm() - before) > .05


def test_a_thought_is_the_way_to_the_block_and_from_there_to_its_goal(example, scene):
    assert example.way([.3, 0], [.3, 0]) == "15 15"
    assert example.way([.3, 0], [.55, .01]) == "16 30"
    scene.reset(seed=1_000_003)
    block, goal = (scene.places()[name] for name in scene.pair)
    assert scene.thought() == f"{example.way(scene.arm(), block)} {example.way(block, goal)}"


def test_a_log_goes_on_where_it_stopped_and_opens(example, tmp_path):
    from data import open_log
    folder = tmp_path / "log"
    example.record(folder, 2, 4)
    first = (folder / "steps.jsonl").read_text()
    (folder / "steps.jsonl").write_text(first[:-30])                    # as if it had been cut off
    example.record(folder, 2, 4)
    again = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    numbers = [s["episode"] for s in again]
    assert numbers == sorted(numbers) and {*numbers} == {json.loads(line)["episode"] for line in first.splitlines()}
    example.web(folder)
    log = open_log("robot", {"format": "folder", "path": str(folder), "names": ["x", "y"], "n_bins": 21},
                   cache=tmp_path, quiet=True)
    assert len(log) == len(again) and log.picture(0).shape == (96, 96, 3)
    for step in again:
        assert len(numbers := step["thought"].split()) == 4 and all(0 <= int(n) <= 30 for n in numbers)
    questions = open_log("web", {"format": "vqa", "path": str(folder)}, cache=tmp_path, quiet=True)
    asked = {questions.ask(i, np.random.default_rng(0))[0] for i in range(len(questions))}
    assert len(asked) >= 4 and all(q.startswith("Q: ") for q in asked)
