"""the world: seeds fix scenes, the expert succeeds, every number of an action matters, nothing leaks into instructions"""
import re

import numpy as np
import pytest

from world import draw
from world import web
from world.scene import (ACTION_HIGH, ACTION_LOW, ACTION_NAMES, INSTRUCTIONS, KINDS, MAX_STEPS, ROBOT_WORDS, SKILLS, UNSEEN_PAIRS,
                   VOCABULARIES, WEB_WORDS, Request, World, level)


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
    """the same expert without one of its numbers fails where it would succeed: always, or (turns) where it needs that turn"""
    wins = needed = 0
    for seed in range(60):
        world = blind()
        world.reset(seed, skill)
        a = world.task.a
        if number == "droll" and abs(a.axis[1]) < .5 or number == "dpitch" and abs(a.axis[0]) < .5 \
                or number == "dyaw" and not (a.kind.long and abs(world._askew(a)) > .6):
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
            world._still = (None, None)
            assert (world.render() == seen).all()


def test_no_robot_instruction_contains_a_web_only_word():
    world = blind()
    said = {world.reset(seed, skill)[0]["instruction"] for skill in SKILLS for seed in range(300)}
    words = {w for text in said for w in re.findall(r"\w+", text)}
    assert words <= ROBOT_WORDS and not words & WEB_WORDS
    assert not ROBOT_WORDS & WEB_WORDS
    small = VOCABULARIES["small"]
    assert set(" ".join(small["robot"]).split()) <= ROBOT_WORDS and set(" ".join(small["web"]).split()) <= WEB_WORDS


def test_no_demonstration_shows_a_web_only_thing_or_an_unseen_pair():
    for vocabulary, skills in (("full", SKILLS), ("medium", ("pick", "move near")), ("small", ("pick", "move near"))):
        world = blind(vocabulary, skills=skills)
        for seed in range(400):
            world.reset(seed)
            for thing in world.things:
                assert thing.name in VOCABULARIES[vocabulary]["robot"] + VOCABULARIES[vocabulary]["mats"]
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
    assert terminated and not truncated and reward == 0 and (world.hand == before).all() and not info["success"]


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
        draw.draw_thing(pixels, camera, noun, draw.COLORS["red"] if KINDS[noun].colored else None, np.zeros(3))
        pictures.add(pixels.tobytes())
    for card in draw.CARDS:
        pixels = np.ones((64, 64, 3), np.float32) * .7
        draw.draw_card(pixels, camera, card, np.zeros(3))
        pictures.add(pixels.tobytes())
    assert len(pictures) == len(KINDS) + len(draw.CARDS)


@pytest.mark.parametrize("name, language, text", [
    ("red cup", "es", "la taza roja"), ("green cup", "es", "la taza verde"), ("red cup", "fr", "la tasse rouge"),
    ("red cup", "de", "die rote Tasse"), ("apple", "de", "der Apfel"), ("apple", "fr", "la pomme"), ("white bowl", "fr", "le bol blanc")])
def test_translations(name, language, text):
    assert web.translate(name, language) == text


def test_every_thing_has_a_name_in_every_language():
    for language in web.LANGUAGES:
        for name in (*VOCABULARIES["full"]["robot"], *VOCABULARIES["full"]["web"]):
            assert web.translate(name, language)


def test_answers_of_questions_are_true():
    """each answer, checked against the facts by another way than the one that made it"""
    rng = np.random.default_rng(0)
    facts = [{"name": "duck", "column": .4, "row": .65, "category": "toy"}, {"name": "3", "column": .1, "row": .1, "card": True},
             {"name": "7", "column": .8, "row": .1, "card": True}, {"name": "red cup", "column": .9, "row": .9, "category": "dish"}]
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
    with pytest.raises(ValueError, match="unknown kind"):
        web.ask(facts, "gossip", rng)


def test_instructions_have_the_papers_form():
    assert INSTRUCTIONS["move near"].format(a="blue can", b="apple") == "move blue can near apple"
