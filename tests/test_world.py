"""
The built-in world: seeds fix scenes, the expert succeeds, every number of an action matters, nothing leaks
into instructions, and questions of the web have true answers.
"""
import re
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from world import __main__ as world_command
from world import draw, scene, trials, web
from world.scene import (ACTION_HIGH, ACTION_LOW, ACTION_NAMES, INSTRUCTIONS, KINDS, MAX_STEPS, ROBOT_WORDS,
                         SKILLS, UNSEEN_PAIRS, VOCABULARIES, WEB_WORDS, Request, Task, Thing, World, level,
                         reword)

ROOT = Path(__file__).parent.parent


def blind(vocabulary="full", **settings):
    """a world that does not draw: physics alone is fast"""
    return World(vocabulary, size=0, **settings)


def run(world, drop=None):
    """the expert to the end; drop = the index of an action's number that is held back"""
    while True:
        action = world.expert()
        if drop is not None:
            action[drop] = 1.0 if ACTION_NAMES[drop] == "gripper" else 0.0
        _, reward, terminated, truncated, _ = world.step(action)
        if terminated or truncated:
            return reward


@pytest.mark.parametrize("skill", SKILLS)
def test_expert_succeeds_in_99_of_100_trials_on_500_seeds(skill):
    world, wins = blind(), 0
    for seed in range(500):
        world.reset(seed, skill)
        wins += run(world)
    assert wins >= 495


@pytest.mark.parametrize("skill", SKILLS)
def test_expert_recovers_from_noise_and_disorder(skill):
    world, wins = blind(noise=.006), 0
    for seed in range(100):
        world.reset(seed, skill, wild=True)
        wins += run(world)
    assert wins >= 97


@pytest.mark.parametrize("number, skill", [
    ("terminate", "pick"), ("dx", "pick"), ("dy", "pick"), ("dz", "pick"), ("gripper", "pick"),
    ("droll", "upright"), ("dpitch", "upright"), ("dyaw", "pick")])
def test_every_number_of_the_action_matters(number, skill):
    """the expert fails without one of its numbers: always, or (turns) where it needs that turn"""
    wins = needed = 0
    for seed in range(60):
        world = blind()
        world.reset(seed, skill)
        a = world.task.a
        if number == "droll" and abs(a.axis[1]) < .5 or number == "dpitch" and abs(a.axis[0]) < .5 \
                or number == "dyaw" and not (a.kind.long and abs(world.askew(a)) > .6):
            continue
        needed += 1
        wins += run(world, ACTION_NAMES.index(number))
    assert needed >= 2 and wins <= 0.1 * needed


def test_a_seed_fixes_scene_picture_and_instruction():
    for seed in (0, 7):
        for skill in SKILLS:
            (one, _), (two, _) = World(size=48).reset(seed, skill), World(size=48).reset(seed, skill)
            assert one["instruction"] == two["instruction"] and (one["image"] == two["image"]).all()
    pictures = {World(size=48).reset(seed)[0]["image"].tobytes() for seed in range(20)}
    assert len(pictures) == 20


def test_a_used_world_gives_the_same_scene_as_a_new_one():
    used, new = World(size=48, noise=.01), World(size=48, noise=.01)
    used.reset(3)
    for _ in range(5):
        used.step(used.expert())
    one, two = used.reset(11)[0], new.reset(11)[0]
    for _ in range(6):
        assert (one["image"] == two["image"]).all()
        one, two = used.step(used.expert())[0], new.step(new.expert())[0]


@pytest.mark.parametrize("skill", SKILLS)
def test_picture_shows_the_state_and_not_the_cache(skill):
    """a picture drawn step by step, in a used world, equals one drawn from nothing"""
    world = World(size=48)
    for seed in (5, 6):
        world.reset(seed, skill)
        for _ in range(8):
            seen = world.step(world.expert())[0]["image"]
            world.render(8)                                 # the cache keeps one picture: this one, now
            assert (world.render() == seen).all()


def test_no_robot_instruction_contains_a_web_only_word():
    world = blind()
    said = {world.reset(seed, skill)[0]["instruction"] for skill in SKILLS for seed in range(300)}
    words = {w for text in said for w in re.findall(r"\w+", text)}
    assert words <= ROBOT_WORDS and not words & WEB_WORDS
    assert not ROBOT_WORDS & WEB_WORDS
    small = VOCABULARIES["small"]
    assert set(" ".join(small["robot"]).split()) <= ROBOT_WORDS
    assert set(" ".join(small["web"]).split()) <= WEB_WORDS


def test_no_demonstration_shows_a_web_only_thing_or_an_unseen_pair():
    two = ("pick", "move near")
    for vocabulary, skills in (("full", SKILLS), ("medium", two), ("small", two)):
        world = blind(vocabulary, skills=skills)
        for seed in range(400):
            world.reset(seed)
            for thing in world.things:
                assert thing.name in (*VOCABULARIES[vocabulary]["robot"], *VOCABULARIES[vocabulary]["mats"])
                assert thing.name not in VOCABULARIES["full"]["web"] and thing.name not in UNSEEN_PAIRS


def test_web_only_targets_are_web_only_and_not_alone():
    world = blind("small", skills=("pick",))
    for seed in range(50):
        world.reset(seed, "pick", targets="web")
        strange = [t for t in world.things if t.name in VOCABULARIES["small"]["web"]]
        assert world.task.a in strange and len(strange) == 2 and len(world.things) >= 2


def test_things_are_moved_near_cards_and_cards_cannot_be_taken():
    world, wins = World(size=32), 0
    face = dict(hair="white", glasses=True, hat=False, beard=False)
    for seed in range(100):
        what = Request("move near", ("red can", "apple", "3", face), 0, 2 + seed % 2, "move red can there")
        obs, _ = world.reset(seed, request=what)
        cards = world.things[2:]
        assert [t.name for t in cards] == ["3", "person with white hair"] and world.task.b is cards[seed % 2]
        assert obs["instruction"] == "move red can there" and world.things[0] is world.task.a
        picture = obs["image"]
        cards[0].position = cards[0].position + [.03, 0, 0]
        assert (world.render() != picture).any()            # and they are drawn
        cards[0].position = cards[0].position - [.03, 0, 0]
        world.size, before = 0, [c.position.copy() for c in cards]
        wins += run(world)
        assert all((c.position == p).all() for c, p in zip(cards, before))
        world.size = 32
    assert wins >= 97


def test_stopping_executes_nothing_and_pays_only_in_the_goal():
    world = blind()
    world.reset(0, "pick")
    before = world.hand.copy()
    _, reward, terminated, truncated, info = world.step([1, .08, .08, -.08, 0, 0, 0, 0])
    assert terminated and not truncated and reward == 0 and not info["success"]
    assert (world.hand == before).all()


def test_what_is_in_a_bowl_goes_where_the_hand_takes_the_bowl():
    """taken beside its middle, carried, let go; and pulled out with the drawer"""
    world = blind(skills=("pick",))
    world.reset(0)
    bowl = Thing("blue bowl", np.zeros(3))
    apple = Thing("apple", np.array([0, 0, .012]), inside=bowl)
    world.things, world.hand[:3] = [apple, bowl], (.03, 0, .03)
    world._take(bowl)
    for action in ([0, 0, 0, .08, 0, 0, 0, 0], [0, .08, .08, 0, 0, 0, 0, 0], [0, 0, 0, -.05, 0, 0, 0, 1]):
        world.step(action)
        assert np.allclose(apple.position - bowl.position, (0, 0, .012)) and apple.inside is bowl
    assert world.held is None and bowl.position[2] == 0
    world.opening, world.held, bowl.inside, world.gripper = .02, "drawer", "drawer", 0.0
    world.step([0, -.05, 0, 0, 0, 0, 0, 0])
    assert world.opening > .03 and np.allclose(apple.position - bowl.position, (0, 0, .012))


def test_a_closed_drawer_hides_what_is_in_it():
    world = World("full", size=32)
    world.reset(0, "close")
    for opening, hidden in ((0., True), (scene.DRAWER_LENGTH, False)):
        world.opening, world.things = opening, []
        empty, place = world.render(), np.array([scene.CABINET_X - opening / 2, world.drawer_y, .01])
        world.things = [Thing("apple", place, inside="drawer")]
        assert (world.render() == empty).all() == hidden


def test_episode_is_cut_at_the_limit():
    world = blind()
    world.reset(0, "pick")
    ends = [world.step([0, 0, 0, 0, 0, 0, 0, 1])[2:4] for _ in range(MAX_STEPS)]
    assert ends[-1] == (False, True) and not any(t for _, t in ends[:-1])


def test_actions_beyond_the_limits_are_limited_and_bad_ones_refused():
    world = blind()
    world.reset(1, "pick")
    z = world.hand[2]
    world.step([0, 0, 0, -9, 0, 0, 0, 1])
    assert world.hand[2] >= max(.02, z - .08) - 1e-9
    for bad in ([0] * 7, [np.nan] * 8):
        with pytest.raises(ValueError, match="eight finite numbers"):
            world.step(bad)


def test_expert_stays_within_the_tokenizers_bounds():
    world = blind(noise=.006)
    for seed in range(50):
        world.reset(seed, wild=True)
        for _ in range(10):
            action = world.expert()
            assert (action >= ACTION_LOW).all() and (action <= ACTION_HIGH).all()
            if world.step(action)[2]:
                break


@pytest.mark.parametrize("error, step", [(.05, .04), (-.3, -.08), (.019, 0), (.021, .04)])
def test_level_examples(error, step):
    assert level(error, .08) == pytest.approx(step)


def test_unknown_skill_and_vocabulary_are_named():
    with pytest.raises(ValueError, match="juggle"):
        World(skills=("juggle",))
    with pytest.raises(ValueError, match="huge"):
        World("huge")


@pytest.mark.parametrize("size", [32, 64, 224])
def test_the_hand_and_all_things_are_in_the_picture_at_any_size(size):
    world = World(size=size)
    for seed in range(5):
        obs, _ = world.reset(seed)
        assert obs["image"].shape == (size, size, 3) and obs["image"].dtype == np.uint8
        for fact in world.facts():
            assert 0 <= fact["column"] < 1 and 0 <= fact["row"] < 1


def test_everything_named_can_be_drawn_and_looks_different():
    assert set(draw.THINGS) == set(KINDS)
    camera, pictures = draw.Camera(), set()
    for noun in KINDS:
        pixels = np.ones((64, 64, 3), np.float32) * .7
        color = draw.COLORS["red"] if KINDS[noun].colored else None
        draw.draw_thing(pixels, camera, noun, color, np.zeros(3))
        pictures.add(pixels.tobytes())
    for card in draw.CARDS:
        pixels = np.ones((64, 64, 3), np.float32) * .7
        draw.draw_card(pixels, camera, card, np.zeros(3))
        pictures.add(pixels.tobytes())
    assert len(pictures) == len(KINDS) + len(draw.CARDS)


# -- trials

SETTINGS = {"vocabulary": "full", "skills": list(SKILLS), "days": True}


def drive(trial, seed, act):
    """one trial to its end -> reward, the last info"""
    trial.reset(seed=seed)
    while True:
        _, reward, terminated, truncated, info = trial.step(act(trial))
        if terminated or truncated:
            return reward, info


def test_a_seed_fixes_scene_look_and_task_of_a_trial():
    for _, make, _ in trials.lines(SETTINGS, 32):
        (one, _), (two, _), (other, _) = (make().reset(seed=s) for s in (1_000_000, 1_000_000, 1_000_001))
        assert one["instruction"] == two["instruction"] and (one["image"] == two["image"]).all()
        assert (one["image"] != other["image"]).any()


def test_the_table_has_a_line_for_each_skill_and_one_for_what_only_the_web_names():
    lines = trials.lines(SETTINGS, 0)
    assert [name for name, *_ in lines] == [*(f"seen: {s}" for s in SKILLS), "only the web names it: pick"]
    assert [group for *_, group in lines] == ["seen"] * len(SKILLS) + ["unseen"]
    for name, make, group in lines:
        trial = make()
        trial.reset(seed=1_000_000)
        skill, a = trial.world.task.skill, trial.world.task.a
        assert name.endswith(f": {skill}") and trial.instruction == trial.world.task.instruction
        assert a is None or (a.name in VOCABULARIES["full"]["web"]) == (group == "unseen")
    assert len(trials.lines({**SETTINGS, "skills": ["move near"]}, 0)) == 1


@pytest.mark.parametrize("line", range(len(SKILLS) + 1))
def test_the_expert_does_what_a_trial_asks(line):
    name, make, _ = trials.lines(SETTINGS, 0)[line]
    ends = [drive(make(), seed, lambda trial: trial.expert()) for seed in range(1_000_000, 1_000_020)]
    assert sum(reward for reward, _ in ends) >= 19
    assert all("outcome" not in info for reward, info in ends if reward)
    if name.endswith(("pick", "move near", "into", "out")):
        assert all(info["counts"]["right first"] for _, info in ends)


@pytest.mark.parametrize("skill", SKILLS)
def test_the_swapped_instruction_asks_for_something_else_in_the_scene(skill):
    trial = trials.Trial("full", SKILLS, 0, trials.plain([skill]))
    for seed in range(10_000, 10_020):
        trial.reset(seed=seed)
        other, task, things = trial.swapped(), trial.world.task, trial.world.things
        fits = {"knock": lambda t: t.kind.tall and t.upright, "upright": lambda t: t.kind.tall and not t.upright,
                "put into": lambda t: not t.kind.container and not t.kind.long,
                "take out": lambda t: t.inside is task.b}.get(skill, lambda t: True)
        if other is None:
            assert not [t for t in things if t not in (task.a, task.b) and t.noun in KINDS and fits(t)]
            continue
        assert other != trial.instruction
        if task.a:
            first = next(t for t in things if other.split(" ", 1)[1].startswith(t.name))
            assert first not in (task.a, task.b) and fits(first)
            assert other == World.describe(skill, first, task.b)


def test_a_failed_trial_says_how_it_failed():
    """the expert does another task than the one that is asked, and then it stops too early or not at all"""
    def failure(asked, done):
        world = World("medium", ("pick", "move near"), size=0)
        world.reset(3, request=Request(asked[0], ("red can", "blue cup", "apple"), 0, 1, ""))
        task, world.task = (Task(skill, *(world.things[k] for k in which)) for skill, *which in (asked, done))
        while not world.step(world.expert())[2]:
            pass
        world.task = task
        return trials.failure(world, terminated=True)
    move, pick = ("move near", 0, 1), ("pick", 0)
    assert failure(move, done=("move near", 2, 1)) == "wrong thing"
    assert failure(move, done=("move near", 0, 2)) == "wrong place"
    assert failure(move, done=pick) == failure(pick, done=move) == "wrong skill"
    rest, stop = [0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 1]
    trial = trials.Trial("small", ["pick"], 0, trials.plain(["pick"]))
    reward, info = drive(trial, 5, lambda trial: stop)
    assert reward == 0 and info["outcome"] == "target missed" and info["counts"] == {"right first": False}
    assert drive(trial, 5, lambda trial: rest)[1]["outcome"] == "never stopped"
    # the thing is in the hand, but low
    _, info = drive(trial, 5, lambda trial: stop if trial.world.held else trial.expert())
    assert info["outcome"] == "stopped too early" and info["counts"] == {"right first": True}


def test_in_a_request_it_must_be_a_that_was_moved():
    """
    Move a near b: a success for who carries a to b. For who carries b to a it is one only where the two are
    to be put together, and never for who carries c.
    """
    world = World("medium", ("pick", "move near"), size=0)
    for either, (moved, to) in product((False, True), ((0, 1), (1, 0), (2, 1))):
        things = ("red can", "blue cup", "apple")
        world.reset(3, request=Request("move near", things, 0, 1, "move red can near blue cup", either))
        asked = world.task
        world.task = Task("move near", world.things[moved], world.things[to])
        while not (done := world.step(world.expert()))[2]:
            pass
        world.task = asked
        assert done[2] and world.near(world.things[moved], world.things[to])
        assert world.success() == (moved == 0 or either and moved == 1)
        assert (trials.failure(world, terminated=True) == "wrong thing") == (not world.success())


def test_looks_change_what_they_say_and_a_seed_fixes_them():
    def drawn(name, days=True):
        return [trials.look(name, np.random.default_rng([seed, 4]), days) for seed in range(6)]

    def tilt(camera):
        return np.degrees(np.arcsin(-camera.axes[2, 2]))
    names = ("as in training", "another table", "patterned table", "another room", "another camera")
    seen, table, pattern, room, camera = (drawn(name) for name in names)
    assert [style for style, _ in drawn("another room")] == [style for style, _ in room]
    assert all(style.texture == "plain" and style.clutter is None for style, _ in (*seen, *table, *room))
    assert all(style.texture != "plain" and style.clutter is not None for style, _ in (*pattern, *camera))
    assert all(62.9 < tilt(c) < 67.1 for _, c in (*seen, *table, *pattern))
    assert not any(62 < tilt(c) < 68 for _, c in room) and not any(57 < tilt(c) < 73 for _, c in camera)
    assert {style for style, _ in drawn("as in training", days=False)} == {draw.Style()}
    with pytest.raises(ValueError, match="the moon"):
        trials.look("the moon", np.random.default_rng(0), False)


# -- the web

@pytest.mark.parametrize("name, language, text", [
    ("red cup", "es", "la taza roja"), ("green cup", "es", "la taza verde"), ("apple", "de", "der apfel"),
    ("red cup", "de", "die rote tasse"), ("red cup", "fr", "la tasse rouge"), ("apple", "fr", "la pomme"),
    ("white bowl", "fr", "le bol blanc")])
def test_translations(name, language, text):
    assert web.translate(name, language) == text


@pytest.mark.parametrize("skill, language, a, b, text", [
    ("move near", "es", "apple", "green cup", "mueve la manzana cerca de la taza verde"),
    ("move near", "es", "can", "purple block", "mueve la lata cerca del bloque morado"),
    ("pick", "de", "blue block", "", "nimm den blauen klotz"),
    ("move near", "de", "apple", "red cup", "bewege den apfel neben die rote tasse"),
    ("pick", "fr", "white bottle", "", "prends la bouteille blanche"),
    ("move near", "fr", "sponge", "brown bag", "déplace l'éponge près du sac marron")])
def test_sentences_in_other_languages(skill, language, a, b, text):
    assert web.say(skill, language, a, b) == text


def test_every_thing_has_a_name_in_every_language():
    for language in web.LANGUAGES:
        for name in (*VOCABULARIES["full"]["robot"], *VOCABULARIES["full"]["web"]):
            assert web.translate(name, language)


def test_answers_of_questions_are_true():
    """each answer, checked against the facts by another way than the one that made it"""
    rng = np.random.default_rng(0)
    facts = [{"name": "duck", "column": .4, "row": .65, "category": "toy"},
             {"name": "3", "column": .1, "row": .1, "category": "number"},
             {"name": "7", "column": .8, "row": .1, "category": "number"},
             {"name": "red cup", "column": .9, "row": .9, "category": "dish"}]
    where = {"duck": " 12 20", "3": " 3 3", "7": " 25 3", "red cup": " 28 28"}
    for _ in range(30):
        question, answer = web.ask(facts, "locate", rng)
        assert where[re.search(r"the (.*)\?", question)[1]] == answer
        question, answer = web.ask(facts, "what at", rng)
        assert where[answer[1:]] == re.search(r" at( .*)\?", question)[1]
        question, answer = web.ask(facts, "where sum", rng)
        a, b = re.search(r"sum of (\w+) plus (\w+)", question).groups()
        assert where[str(web.NUMBERS.index(a) + web.NUMBERS.index(b))] == answer
        question, answer = web.ask(facts, "where size", rng)
        assert answer == where["3" if "smallest" in question else "7"]
    assert web.ask(facts, "caption", rng)[1] == " 3, duck, 7, red cup"
    assert web.ask(facts, "color", rng) == ("Q: what colour is the cup? A:", " red")
    assert web.ask(facts, "where face", rng) is None
    with pytest.raises(ValueError, match="unknown question type 'gossip'"):
        web.ask(facts, "gossip", rng)


def test_the_way_to_a_thing_is_the_expert_s_step():
    """away and left are above 128, in the words of the arm's bins; the docstring's example is one of them"""
    a, b = {"x": .13, "y": -.09}, {"x": .10, "y": 0.}
    assert web.step_toward(b, a) == " 192 0" and " 192 0" in web.step_toward.__doc__
    assert web.step_toward(a, b) == " 64 255" and web.step_toward(a, a) == " 128 128"


def test_the_different_one_is_not_another_by_its_colour():
    """two cans and a cup: the cup is meant, unless one of the cans is alone in its colour"""
    rng = np.random.default_rng(0)

    def difference(*names):
        return web.by_difference([{"name": name} for name in names], rng)
    assert difference("red can", "blue can", "red cup") is None
    assert difference("red can", "blue can", "green cup")[1]["name"] == "green cup"


def test_a_wish_means_one_thing_alone():
    rng, drinks = np.random.default_rng(0), ("I am thirsty", "bring me something to drink")
    assert web.wish_for(["apple", "blue can"], "pick blue can", rng) in drinks
    assert web.wish_for(["red can", "blue can"], "pick blue can", rng) is None           # which of the two?
    together = [text.format("red") for text in web.TOGETHER]
    assert web.wish_for(["apple", "red can", "orange"], "move apple near red can", rng) in together
    assert web.wish_for(["apple", "orange"], "move apple near orange", rng) is None
    for text in (*web.WISHES, *web.TOGETHER):
        assert set(text.split()) - ROBOT_WORDS              # no demonstration of plain RT-2 says it


def test_facts_name_the_column_and_the_row_where_a_thing_is_seen():
    """the pixel there has the colour that the name says; with columns and rows swapped it seldom has"""
    shown, right = {**web.on_the_web("medium"), "cards": [], "hair": []}, {True: [], False: []}
    for i in range(80):
        picture, facts = web.draw_picture(np.random.default_rng([i, 7]), 64, **shown)
        for f in facts:
            colour = f["name"].split()[0]
            if colour in ("red", "green", "blue"):
                for swap in right:
                    column, row = (f["row"], f["column"]) if swap else (f["column"], f["row"])
                    pixel = picture[min(63, int(row * 64)), min(63, int(column * 64))].astype(int)
                    channel = ("red", "green", "blue").index(colour)
                    right[swap].append(pixel[channel] > np.delete(pixel, channel).max() + 25)
    assert len(right[True]) > 30 and np.mean(right[False]) > .8 > .5 > np.mean(right[True])


def test_a_cards_column_says_how_far_left_it_lies_and_its_row_how_far_away():
    shown = {**web.on_the_web("medium"), "names": [], "hair": []}
    cards = [f for i in range(80) for f in web.draw_picture(np.random.default_rng([i, 8]), 16, **shown)[1] if f["name"] in shown["cards"]]
    x, y, column, row = (np.array([f[key] for f in cards]) for key in ("x", "y", "column", "row"))
    assert len(cards) > 80 and abs(np.corrcoef(x, row)[0, 1]) > .8 and abs(np.corrcoef(y, column)[0, 1]) > .8
    assert abs(np.corrcoef(x, column)[0, 1]) < .4


def test_a_wish_on_the_web_is_answered_by_the_plan_alone():
    """the things of the plan stand in the picture, and nothing else there would do"""
    shown, rng, asked = web.on_the_web("medium"), np.random.default_rng(0), {"pick": 0, "move": 0}
    for i in range(400):
        _, facts = web.draw_picture(np.random.default_rng([i, 1]), 16, **shown)
        question, answer = web.ask(facts, "wish", rng) or ("", "")
        if question:
            text = re.fullmatch(r"Instruction: (.+)\.", question)[1]
            skill, _, what = re.fullmatch(r" Plan: (.+)\.", answer)[1].partition(" ")
            if skill == "pick":
                wanted = {*web.WISHES[text]}
                fits = [f["name"] for f in facts if {f.get("category"), f["name"].split()[-1]} & wanted]
            else:
                fits = [f["name"] for f in facts if web.colour_of(f["name"]) in text.split()]
            assert sorted(what.split(" near ")) == sorted(fits), (text, what)
            asked[skill] += 1
    assert min(asked.values()) > 15


def test_an_instruction_is_answered_on_the_web_by_the_way_that_it_goes():
    """to what it names last: from what is moved, or, where that is picked, from the thing that the question names"""
    shown, rng, asked = web.on_the_web("medium"), np.random.default_rng(0), Counter()
    numbers = {n: i for i, n in enumerate(web.NUMBERS)}

    def means(form, text, a, b, skill):
        names = [f["name"] for f in (a, b)] if skill == "move near" else [b["name"]]
        if form == "go sentence":
            known = all(name.split()[-1] in KINDS for name in names)
            return known and text in [web.say(skill, language, *names) for language in web.LANGUAGES]
        if form == "go sum":
            one, other = re.search(r"the sum of (\w+) plus (\w+)$", text).groups()
            last = b["name"] == str(numbers[one] + numbers[other])
        elif form == "go es":
            last = b["name"].split()[-1] in KINDS and text.endswith(web.translate(b["name"], "es"))
        else:
            last = text.endswith(b["name"])
        return last and (skill == "pick" or f"{a['name']} " in text)
    for i in range(200):
        _, facts = web.draw_picture(np.random.default_rng([i, 1]), 16, **shown)
        things = [f for f in facts if f["name"] != "gripper"]
        for form in ("go", "go sum", "go es", "go sentence"):
            question, answer = web.ask(facts, form, rng) or ("", "")
            if question:
                text, start = re.fullmatch(r"Q: which way should the robot go to (.+?)(?:, from the (.+))?\? A:", question).groups()
                skill = "pick" if start else "move near"
                ways = [web.step_toward(a, b) for a in things for b in things
                        if a is not b and start in (None, a["name"]) and means(form, text, a, b, skill)]
                assert answer in ways, (question, answer)
                asked[form, skill] += 1
    assert len(asked) == 7 and min(asked.values()) > 10, asked         # a sum is never picked


def test_an_arm_hides_a_part_of_a_thing_and_all_of_none():
    """of a square around each thing a third stays visible"""
    hidden = []
    for i in range(200):
        rng = np.random.default_rng(i)
        facts = [{"column": c, "row": r} for c, r in rng.uniform(.15, .85, (2, 2))]
        pixels = np.full((128, 128, 3), -1.)
        web.draw_arm(pixels, facts, rng)
        for f in facts:
            column, row = int(f["column"] * 128), int(f["row"] * 128)
            hidden.append((pixels[row - 10:row + 11, column - 10:column + 11] != -1).any(-1).mean())
    assert max(hidden) < .66 and sum(.05 < h for h in hidden) > 40 and hidden.count(0) > 100


def test_questions_of_the_quiz_are_about_the_names_that_were_asked_for():
    names = VOCABULARIES["small"]["web"]
    pictures, questions, answers = trials.questions("small", 24, "locate", 5, names)
    assert len(pictures) == len(questions) == len(answers) == 5 and pictures[0].shape == (24, 24, 3)
    assert all(any(name in question for name in names) for question in questions)
    assert trials.questions("small", 24, "where face", 5, names) == ([], [], [])    # it has no people
    _, faces, _ = trials.questions("medium", 16, "locate", 5, names, about="hair")
    assert len(faces) == 5 and all("hair" in question for question in faces)
    _, _, left = trials.questions("small", 16, "locate", 5, names, fits=lambda a: int(a.split()[0]) < 10)
    assert len(left) == 5 and all(int(answer.split()[0]) < 10 for answer in left)


# -- demonstrations in other words, and the picture of everything

def test_other_words_still_mean_the_same_thing():
    """a noun or a colour alone is said only where nothing else has it, and each wording names what it must"""
    world, shortened = World("medium", ("pick", "move near"), 0), 0
    for seed in range(400):
        world.reset(seed)
        text, task = reword(world, np.random.default_rng(seed)), world.task
        for thing in filter(None, (task.a, task.b)):
            if thing.name not in text:
                shortened += 1
                others = [t for t in world.things if t is not thing]
                noun, color = f"the {thing.noun}" in text, f"the {thing.color} item" in text
                assert noun and all(t.noun != thing.noun for t in others) \
                    or color and all(t.color not in (None, thing.color) for t in others)
    assert shortened > 30
    world.things = [Thing(name, np.zeros(3)) for name in ("red can", "apple")]
    world.task = Task("move near", world.things[0], world.things[1])
    texts = {reword(world, np.random.default_rng(i)) for i in range(300)}
    assert {"bring the can to the apple", "move red can near apple"} <= texts


def test_instructions_have_the_papers_form():
    assert World.describe("move near", Thing("blue can", np.zeros(3)), Thing("apple", np.zeros(3))) \
        == INSTRUCTIONS["move near"].format(a="blue can", b="apple") == "move blue can near apple"
    assert World.describe("open") == "open the drawer"


def test_python_m_world_draws_everything_and_says_so(tmp_path):
    command = [sys.executable, "-m", "world", str(tmp_path / "world.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "world.png").exists()
    assert f"{len(SKILLS)} skills, {len(KINDS)} things" in done.stdout
    with pytest.raises(SystemExit) as left:                 # without a file it overwrites nothing
        world_command.main([])
    assert left.value.code == 2
    with pytest.raises(SystemExit, match="^error: [^\n]*$"):
        world_command.main([str(tmp_path / "no such folder" / "world.png")])


def test_a_photographed_hand_tells_how_it_stands_and_what_it_holds_and_never_a_step():
    """a hand in a picture of the web is asked for as in the robot's own picture, but no way leads from it"""
    rng, held, states = np.random.default_rng(0), set(), set()
    for seed in range(60):
        _, facts = web.draw_picture(np.random.default_rng([seed, 1]), 32, **web.on_the_web("medium"))
        hand = [f for f in facts if f["name"] == "gripper"]
        if not hand:
            continue
        held.add(hand[0]["held"])
        assert hand[0]["held"] not in [f["name"] for f in facts]
        assert web.ask(facts, "below", rng)[1] == web.place(hand[0]["below"])
        assert (web.ask(facts, "height", rng)[1], web.ask(facts, "state", rng)[1]) == (f" {hand[0]['height']}", f" {hand[0]['state']}")
        states.add(hand[0]["state"])
        assert (hand[0]["state"] == "full") == (hand[0]["held"] != "nothing")
        assert web.ask(facts, "gripper", rng)[1] == web.place(hand[0])
        assert web.ask(facts, "held", rng)[1] == f" {hand[0]['held']}"
        for question_type in ("way", "go", "go category", "go es", "go sentence"):
            found = web.ask(facts, question_type, rng)
            assert found is None or "gripper" not in found[0]
    assert "nothing" in held and len(held) > 3 and states == {"open", "closed", "full"}


def test_how_a_hand_stands_is_read_from_the_picture_alone():
    """the same words for the same picture, whatever metres it stands for: a camera twice as near sees half the world"""
    for tilt, at in ((65, (.05, -.08, .12)), (50, (-.1, .1, .06)), (80, (0, 0, .2))):
        whole, half = draw.Camera(tilt, 1.2, .5, (0, 0, 0)), draw.Camera(tilt, .6, .25, (0, 0, 0))
        assert scene.over_the_table(whole, np.array(at)) == scene.over_the_table(half, np.array(at) / 2)
    on_the_table = scene.over_the_table(draw.Camera(), np.array([.05, .1, 0]))
    assert on_the_table["height"] == 0
    np.testing.assert_allclose([*on_the_table["below"].values()], draw.Camera().project(np.array([.05, .1, 0]))[:2], atol=1e-4)
