"""
The logs of the built-in world: they hold what the expert did, say only what they may, and are recorded once.
"""
import re
import warnings
from itertools import islice

import numpy as np
import pytest

import data
from tokenizer import BEGIN_ACTION, ActionTokenizer, Tokenizer
from world import record, scene, web
from world.scene import (ACTION_HIGH, ACTION_LOW, ACTION_NAMES, ROBOT_WORDS, SKILLS, VOCABULARIES, WEB_WORDS,
                         World)

SIZE = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def demonstrations(folder, episodes=12, **table):
    table = {"format": "world", "episodes": episodes, **table}
    return data.open_log("robot", table, cache=folder, size=SIZE, quiet=True)


def web_pictures(folder, pictures=30, **table):
    table = {"format": "world", "pictures": pictures, **table}
    return data.open_log("web", table, cache=folder, size=SIZE, quiet=True)



# -- what a recording holds

def test_a_log_holds_what_the_expert_did(folder):
    """replaying the expert from the logged seed gives the logged pictures, instructions and actions"""
    log, rng = demonstrations(folder), np.random.default_rng(0)
    assert log.names == ACTION_NAMES and log.bounds == (ACTION_LOW, ACTION_HIGH)
    for i, step in enumerate(log.steps):
        if i == 0 or log.episode[i - 1] != log.episode[i]:
            world, seed = World("small", ["pick", "move near"], SIZE, noise=.006), int(log.episode[i])
            obs, _ = world.reset(seed, wild=seed % 2 == 1, alone=seed % 10 < 4)
        assert (log.picture(i) == obs["image"]).all()
        prompt = f"Q: what action should the robot take to {obs['instruction']}? A:"
        assert log.request(i, rng) == (prompt, "")
        np.testing.assert_allclose(log.actions[i], world.expert(), atol=1e-6)
        obs, reward, *_ = world.step(world.expert())
    assert reward == 1 and log.actions[-1][ACTION_NAMES.index("terminate")] == 1


def test_no_web_only_word_reaches_a_robot_sample(folder):
    """neither in an instruction nor in a question about the robot's own picture"""
    log, rng = demonstrations(folder), np.random.default_rng(0)
    strange = {word for word in WEB_WORDS if len(word) > 1}             # a digit may be a number of the arm
    for i in range(len(log)):
        assert set(log.steps[i]["instruction"].split()) <= ROBOT_WORDS - WEB_WORDS
        texts = [*log.request(i, rng), *(text for _ in range(5) for text in log.ask(i, rng) or ())]
        assert not set(re.findall(r"\w+", " ".join(texts))) & strange


def test_demonstrations_say_and_show_only_what_they_may():
    """in the words of many people, too: no card, no person, no new thing and none of their names"""
    stream = scene.episodes(range(150), "medium", ["pick", "move near"], 0, days=True, wordings=True)
    steps = [step for episode in stream for step in episode]
    words = {word for step in steps for word in re.findall(r"\w+", step["instruction"])}
    shown = {fact["name"] for step in steps for fact in step["facts"]} - {"gripper"}
    assert words <= ROBOT_WORDS and not words & WEB_WORDS
    assert shown <= {*VOCABULARIES["medium"]["robot"], *VOCABULARIES["medium"]["mats"]}


def test_web_pictures_show_and_name_what_only_the_web_knows(folder):
    log = web_pictures(folder)
    named = {fact["name"] for step in log.steps for fact in step["facts"]}
    assert named >= set(VOCABULARIES["small"]["web"])


def test_logged_actions_of_all_skills_fit_the_tokenizer():
    actions = ActionTokenizer(Tokenizer.train(record.corpus("small", 300)), ACTION_LOW, ACTION_HIGH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a = np.array([s["action"] for e in scene.episodes(range(100), "full", SKILLS, 0) for s in e])
        back = actions.decode(actions.encode(a))
    assert (np.abs(back - a) <= (actions.high - actions.low) / 512 + 1e-6).all()
    assert (np.abs(a) > 0).any(0).all()                     # and every number is in use


# -- questions and thoughts

def test_questions_are_asked_as_often_as_the_table_says(folder):
    """the share of each type, counted by the form of its question; and none without questions"""
    log = demonstrations(folder, questions={"gripper": 1, "way": 3})
    rng, n = np.random.default_rng(0), {"where": 0, "which": 0}
    for i in range(400):
        n[log.ask(i % len(log), rng)[0].split()[1]] += 1
    assert 70 < n["where"] < 130 and 270 < n["which"] < 330
    assert demonstrations(folder, questions={}).ask(0, rng) is None


def test_half_of_the_rows_are_wishes_as_often_to_pick_as_to_move(folder):
    log = demonstrations(folder, 40, vocabulary="medium", wishes=True)
    rng, n, wishes = np.random.default_rng(0), len(log.steps), set()
    assert len(log) == len(log.actions) == len(log.episode) == 2 * n
    for i in range(len(log)):
        prompt, thought = log.request(i, rng)
        step = log.steps[log.rows[i]]
        assert log.episode[i] == step["episode"] and log.actions[i].tolist() == step["action"]
        assert (log.picture(i) == log.pictures[log.rows[i]]).all()
        if i < n:
            assert prompt.startswith("Q: ") and thought == ""
            continue
        text = re.fullmatch(r"Instruction: (.*)\.", prompt)[1]
        assert text in web.WISHES or any(text == t.format(c) for t in web.TOGETHER for c in scene.COLORS)
        assert thought == f" Plan: {step['task']}."
        wishes.add(text)
    skills = [log.steps[row]["skill"] for row in log.rows[n:]]
    assert len(wishes) > 5 and abs(skills.count("pick") - skills.count("move near")) <= 1
    # whole episodes: a row that is not the first of its episode follows the step before it
    follows = np.flatnonzero(np.diff(log.episode[n:]) == 0) + n
    assert (log.rows[follows + 1] == log.rows[follows] + 1).mean() > .95


def test_a_wish_may_be_answered_without_a_plan(folder):
    log = demonstrations(folder, 40, vocabulary="medium", wishes=True, plans=False)
    assert {log.request(i, np.random.default_rng(0))[1] for i in range(len(log))} == {""}


def test_wishes_are_the_same_rows_every_time_and_of_the_same_recording(folder):
    plain, one, two = (demonstrations(folder, 40, vocabulary="medium", wishes=w) for w in (False, True, True))
    assert (one.rows == two.rows).all() and plain.path == one.path


def test_wishes_that_nothing_can_be_said_as_are_refused(folder):
    with pytest.raises(ValueError, match="wishes = true"):
        demonstrations(folder, 3, vocabulary="full", skills=["open", "close"], wishes=True)


def test_the_quiz_of_a_web_table_knows_its_answers(folder):
    """
    questions of every type about new pictures, with known and new things; a step must be right to the digit
    """
    table = data.settings_of("web", {"format": "world", "questions": {"locate": 2, "way": 1}})
    quiz = record.WebPictures.quiz(table, 20, 4)
    assert list(quiz) == [f"{q}, things of the {who}" for q in ("locate", "way") for who in ("robot", "web")]
    for name, questions in quiz.items():
        assert len(questions) == 4
        for picture, question, answer, tolerance in questions:
            assert picture.shape == (20, 20, 3) and question.startswith("Q: ") and question.endswith(" A:")
            assert len(answer.split()) == 2 and tolerance == (0 if name.startswith("way") else 2)


def test_the_lines_of_demonstrations_can_be_reset(folder):
    table = data.settings_of("robot", {"format": "world"})
    for name, make, group in record.Demonstrations.lines(table, SIZE):
        obs, _ = make().reset(seed=1_000_000)
        assert obs["image"].shape == (SIZE, SIZE, 3) and group in ("seen", "unseen")


# -- words

def test_the_corpus_has_all_words_of_both_logs(folder):
    """each word of a sample is one token, or part of a number"""
    for vocabulary in ("small", "medium"):
        robot = demonstrations(folder, vocabulary=vocabulary, wordings=vocabulary == "medium")
        webs, rng = web_pictures(folder, vocabulary=vocabulary), np.random.default_rng(0)
        tokenizer = Tokenizer.train(record.corpus(vocabulary, 1000))
        texts = [robot.request(i, rng)[0] for i in range(len(robot))]
        texts += ["".join(log.ask(i, rng) or ("", "")) for log in (robot, webs) for i in range(len(log))]
        for word in {word for text in texts for word in re.findall(r" [^\W\d_]+(?!:)\b", text)}:
            assert len(tokenizer.encode(word)) == 1, word


def test_the_corpus_is_the_same_for_both_logs_and_asks_wishes_where_there_are_cards(folder):
    robot, webs = demonstrations(folder), web_pictures(folder)
    first = [list(islice(texts, 200)) for texts in (robot.texts(), webs.texts(), record.corpus("small"))]
    assert first[0] == first[1] == first[2]
    full = list(record.corpus("full", 10))
    assert not any("Instruction:" in text for text in record.corpus("small", 10))
    assert f"Instruction: I am thirsty. Plan: pick apple.{BEGIN_ACTION}" in full


def test_two_tokenizers_do_not_mix():
    for vocabulary in ("small", "full"):                    # each is freed before the next is made
        tokenizer = Tokenizer.train(record.corpus(vocabulary, 300))
        facts = [{"name": "apple", "column": .5, "row": .5}]
        question, answer = web.ask(facts, "locate", np.random.default_rng(0))
        ids = tokenizer.encode(question + answer)
        assert tokenizer.decode(ids) == "Q: where is the apple? A: 16 16" and len(ids) < 10


def test_overwritten_tokens_never_occur_in_the_worlds_text():
    tokenizer = Tokenizer.train(record.corpus("full", 600))
    actions = ActionTokenizer(tokenizer, ACTION_LOW, ACTION_HIGH, "overwrite")
    used = {i for text in record.corpus("full", 600) for i in tokenizer.encode(text)}
    assert not used & set(actions.ids.tolist())


# -- files

def test_a_recording_is_made_once_and_read_again(tmp_path):
    first = web_pictures(tmp_path, 5)
    stamp = (first.path / "pictures.u8").stat().st_mtime_ns
    again = web_pictures(tmp_path, 5, questions={"locate": 1})          # questions are not recorded
    assert again.path == first.path and (again.path / "pictures.u8").stat().st_mtime_ns == stamp
    other = web_pictures(tmp_path, 6)
    assert other.path != first.path and other.fingerprint != first.fingerprint
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("table", [{"episodes": 3}, {"days": True}, {"wordings": True}, {"skills": ["pick"]},
                                   {"vocabulary": "medium"}])
def test_other_settings_of_what_is_drawn_are_another_recording(tmp_path, table):
    one, two = demonstrations(tmp_path, 2), demonstrations(tmp_path, **{"episodes": 2, **table})
    assert one.fingerprint != two.fingerprint
    read_again = demonstrations(tmp_path, 2, questions={"way": 1}, plans=False)
    assert read_again.fingerprint == one.fingerprint


@pytest.mark.parametrize("spoil", ["lines", "line", "pictures"])
def test_a_recording_cut_short_is_refused(tmp_path, spoil):
    log = web_pictures(tmp_path, 5)
    lines, pixels = (log.path / "steps.jsonl").read_text(), (log.path / "pictures.u8").read_bytes()
    if spoil == "pictures":
        (log.path / "pictures.u8").write_bytes(pixels[:-7])
    else:
        end = -7 if spoil == "line" else lines[:-1].rindex("\n") + 1
        (log.path / "steps.jsonl").write_text(lines[:end])
    with pytest.raises(ValueError, match="delete the folder"):
        web_pictures(tmp_path, 5)


@pytest.mark.parametrize("half, table, word", [
    ("robot", {"vocabulary": "huge"}, "huge"), ("robot", {"skills": ["juggle"]}, "juggle"),
    ("robot", {"skills": []}, "skills"), ("robot", {"episodes": 0}, "episodes = 0"),
    ("robot", {"questions": {"gossip": 1}}, "gossip"), ("robot", {"questions": {"way": 0}}, "way = 0"),
    ("robot", {"skills": ["put into"]}, "put into"), ("robot", {"skills": 3}, "list of texts"),
    ("web", {"vocabulary": "huge"}, "huge"), ("web", {"pictures": 0}, "pictures = 0"),
    ("web", {"questions": {}}, "questions"), ("web", {"questions": {"gossip": 1}}, "gossip"),
    ("web", {"skills": ["pick"]}, "skills")])
def test_tables_that_make_no_sense_are_named_when_they_are_read(half, table, word):
    with pytest.raises(ValueError, match=word):
        data.settings_of(half, {"format": "world", **table})
