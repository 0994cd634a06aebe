"""examples/babyai: the environment, what it records, and the numbers of its README. It needs minigrid."""
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("minigrid")

from minigrid.envs.babyai.core.verifier import ObjDesc, PickupInstr
from minigrid.utils.baby_ai_bot import BabyAIBot

import data
from eval import Line, rollouts
from examples.babyai.__main__ import LEVELS, PICK_UP, SHOWN, Level, questions, record, summary

FOLDER = Path(__file__).parent.parent / "examples" / "babyai"


def drive(env, seed, act):
    """one trial of env; act(env) -> action"""
    result, = rollouts([env], [seed], lambda *args: [act(env)])
    return result


@pytest.mark.parametrize("name", LEVELS)
def test_the_bot_solves_every_level_and_its_trials_are_the_same_again(name):
    env = Line(name, lambda: Level(name)).make()
    results = [drive(env, seed, Level.expert) for seed in range(20)]
    assert all(result["success"] for result in results)
    assert results == [drive(env, seed, Level.expert) for seed in range(20)]


def test_the_picture_is_of_49_tiles_of_8_pixels_and_a_seed_gives_the_same_one():
    env = Level("GoToLocal")
    first, other, again = (env.reset(seed)[0]["image"] for seed in (1, 2, 1))
    assert first.shape == (56, 56, 3) and first.dtype == np.uint8
    assert (first == again).all() and (first != other).any()
    agents = [picture.reshape(7, 8, 7, 8, 3)[6, :, 3] for picture in (first, other)]
    assert (agents[0] == agents[1]).all()               # it stands in the same tile


def test_terminate_ends_the_trial_and_moves_nothing():
    env = Level("GoToLocal")
    obs, _ = env.reset(3)
    after, reward, terminated, _, info = env.step(np.array([1., 0.]))
    assert terminated and not reward and not info["success"] and info["outcome"] == "stopped early"
    assert (obs["image"] == after["image"]).all()


def test_left_right_left_and_one_more_turn_do_what_they_say():
    env = Level("GoToObj")
    obs, _ = env.reset(4)
    turned = env.step(np.array([0., 0.]))[0]["image"]
    assert (turned != obs["image"]).any()
    assert (env.step(np.array([0., 1.]))[0]["image"] == obs["image"]).all()


def test_success_within_8_steps_counts_within_16_too():
    for seed in range(30):
        result = drive(Level("PickupDist"), seed, Level.expert)
        counts = [result["counts"][f"within {n} steps"] for n in (8, 16, 32)]
        assert counts == [result["steps"] <= n for n in (8, 16, 32)]


@pytest.mark.parametrize("name", LEVELS)
def test_the_swapped_mission_asks_for_a_thing_of_the_room_that_the_mission_does_not_mean(name):
    env, some = Level(name), 0
    for seed in range(100):
        env.reset(seed)
        swapped, desc = env.swapped(), env.env.instrs.desc
        if swapped is None:
            continue
        some += 1
        verb, thing = swapped.rsplit(" the ", 1) if " the " in swapped else swapped.rsplit(" a ", 1)
        color, kind = thing.split() if " " in thing else (None, thing)
        meant = [o for o in env.env.grid.grid if o and o.type != "wall" and kind in (o.type, "object")
                 and color in (o.color, None)]
        assert meant and not any(o in desc.obj_set for o in meant), (env.instruction, swapped)
        assert env.instruction.startswith(f"{verb} ")
    assert some == 0 if name == "GoToObj" else some > 90       # a room of GoToObj has one thing


def test_the_bot_told_the_swapped_mission_fails_the_one_it_was_not_told():
    env = Level("PickupDist")
    for seed in range(20):
        env.reset(seed)
        mission, words = env.env.instrs, env.swapped().split()[3:]          # pick up the | red ball
        kind, color = words[-1], words[0] if len(words) == 2 else None
        env.env.instrs = PickupInstr(ObjDesc(None if kind == "object" else kind, color))
        env.env.instrs.reset_verifier(env.env)
        env.bot = BabyAIBot(env.env)
        env.env.instrs, done, late = mission, False, False
        while not (done or late or env.env.carrying):
            _, _, done, late, info = env.step(env.expert())
        assert not info["success"]


def test_what_is_recorded_is_a_log_of_four_moves_and_a_web_of_questions(tmp_path):
    record(tmp_path / "babyai", 5, 10)
    with pytest.raises(ValueError, match="is there already"):
        record(tmp_path / "babyai", 5, 10)
    log = data.open_log("robot", {"format": "folder", "path": str(tmp_path / "babyai" / "robot"),
                                  "names": ["move"]}, tmp_path / "cache", quiet=True)
    assert list(log.names) == ["terminate", "move"] and len(set(log.episode)) == 10
    assert set(np.unique(log.actions[:, 1])) <= set(range(PICK_UP + 1))
    web = data.open_log("web", {"format": "vqa", "path": str(tmp_path / "babyai" / "web")},
                        tmp_path / "cache", quiet=True)
    assert len(web) == 10 and web.picture(0).shape == log.picture(0).shape == (56, 56, 3)


def test_the_logged_actions_carried_out_in_the_same_room_finish_the_task(tmp_path):
    record(tmp_path / "babyai", 5, 1)
    steps = [json.loads(line) for line in open(tmp_path / "babyai" / "robot" / "steps.jsonl")]
    env = Level(SHOWN[0])
    mine = [step for step in steps if step["episode"] == 0]
    env.reset(0)
    assert mine[0]["instruction"] == env.instruction
    for step in mine:
        assert not env.env.instrs.verify(None) == "success"
        _, _, done, _, info = env.step(np.array([0, *step["action"]]))
    assert done and info["success"]


def test_questions_agree_with_what_is_in_the_room():
    env = Level("GoToLocal")
    for seed in range(30):
        env.reset(seed)
        every, level = questions(env.env, np.random.default_rng(seed)), env.env
        asked = dict(every)
        for question in asked:
            assert [q for q, _ in every].count(question) == (3 if question.startswith("what color") else 1)
        here = {}
        for x in range(level.width):
            for y in range(level.height):
                place = level.relative_coords(x, y)
                if place and level.grid.get(x, y) and level.grid.get(x, y).type != "wall":
                    here[tuple(map(int, place))] = level.grid.get(x, y)
        for place, thing in here.items():
            assert asked["what is at {} {}?".format(*place)] == thing.type
            assert asked["what color is at {} {}?".format(*place)] == thing.color
        for question, answer in asked.items():
            if question.startswith("where is ") and answer != "nowhere":
                *_, color, kind = question.rstrip("?").split()
                thing = here[tuple(map(int, answer.split()))]
                assert kind in (thing.type, "object") and color in (thing.color, "a", "the")
            elif answer == "nowhere":
                *_, color, kind = question.rstrip("?").split()
                assert not [o for o in here.values()
                            if kind in (o.type, "object") and color in (o.color, "a", "the")]


def test_a_results_file_of_one_recipe_has_its_tables():
    found = json.loads((FOLDER / "results.json").read_text())
    assert "web and robot" not in summary({"robot alone": found["robot alone"]})


def test_the_readme_has_the_numbers_of_results_json():
    assert (FOLDER / "results.json").stat().st_size < 100_000
    assert summary(json.loads((FOLDER / "results.json").read_text())) in (FOLDER / "README.md").read_text()
