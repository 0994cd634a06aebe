"""data: packing, the mix, logs on disk; every answer comes from the log"""
import warnings

import numpy as np
import pytest
import torch

import data
from world import web
from world import scene as world
from tokenizer import ActionTokenizer, Tokenizer, prompt
from world.scene import ACTION_HIGH, ACTION_LOW, ACTION_NAMES, ROBOT_WORDS, SKILLS, VOCABULARIES, WEB_WORDS, World

SETTINGS = dict(vocabulary="small", skills=["pick", "move near"], size=32)
WEB = dict(names=[*VOCABULARIES["small"]["robot"], *VOCABULARIES["small"]["web"]], size=32, cards=[], hair=[], wears=[])


def world_actions(vocabulary, scheme="integer"):
    return ActionTokenizer(Tokenizer.train(data.corpus(vocabulary)), ACTION_LOW, ACTION_HIGH, scheme)


@pytest.fixture(scope="module")
def actions():
    return world_actions("small")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return data.WorldLog(folder, world.episodes, 12, SETTINGS, quiet=True), data.WorldLog(folder, web.web_pictures, 30, WEB, quiet=True)


@pytest.fixture(scope="module")
def mix(logs, actions):
    return data.Mix([(data.RobotData(logs[0], actions, text_len=64), 1)],
                    [(data.WebData(logs[1], actions.tokenizer, ("locate", "what at"), 64), 1)], 8, 0.5, 64, pretrain=2, seed=3)


def test_pack_example_of_the_docstring():
    F, T = False, True
    assert data.pack([([5, 6], [7]), ([8], [9])], 6) == ([5, 6, 7, 8, 9, 0], [1, 1, 1, 2, 2, -1], [F, F, T, F, T, F])
    with pytest.raises(ValueError, match="raise text_len"):
        data.pack([([1] * 4, [2])], 4)


def test_a_batch_is_fixed_by_its_step_alone(mix):
    mix[0, 0], mix[7, 0]
    one, two, other = mix[5, 0], mix[5, 0], mix[6, 0]
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["tokens"], other["tokens"])


def test_the_mix_has_the_stated_share_of_robot_samples(mix):
    assert [int((mix[step, 0]["source"] == 0).sum()) for step in (0, 1, 2, 9)] == [0, 0, 4, 4]


def test_words_are_moved_as_far_as_the_longest_question_allows(logs, actions):
    """so that a word is met at many positions; without shift every question begins at 0"""
    robots, webs = [(data.RobotData(logs[0], actions, text_len=64), 1)], [(data.WebData(logs[1], actions.tokenizer, ("locate",), 64), 1)]
    assert not data.Mix(robots, webs, 8, 0.5, 64)[0, 0]["shift"].any()
    assert not data.Mix(robots, webs, 8, 0.5, 64, shift=5, shift_from=3)[2, 0]["shift"].any()
    for most, several in ((5, 6), (60, 20)):
        batch = data.Mix(robots, webs, 64, 0.5, 64, shift=most)[0, 0]
        longest = torch.stack([(batch["segment"] == n).sum(1) for n in range(1, 12)]).amax(0)
        assert batch["shift"].min() == 0 and len(batch["shift"].unique()) >= several
        assert (batch["shift"] <= most).all() and (batch["shift"] + longest <= 64).all()


def test_the_robots_first_question_is_the_action_of_the_log(mix, logs, actions):
    batch, tok = mix[4, 0], actions.tokenizer
    known = {(prompt(s["instruction"]), actions.text(s["action"])) for s in logs[0].steps}
    for i in range(4):
        first = batch["segment"][i] == 1
        said = tok.decode(batch["tokens"][i][first & ~batch["target"][i]].tolist())
        answer = batch["tokens"][i][first & batch["target"][i]].tolist()
        assert answer[-1] == tok.eos and len(answer) == 9
        assert (said, tok.decode(answer[:-1]).strip()) in known


def test_targets_are_answers_and_nothing_else(mix, actions):
    """each question reads "Q: ... A:" and each target run starts right after it and ends in <eos>"""
    batch, tok = mix[3, 0], actions.tokenizer
    for tokens, segment, target in zip(batch["tokens"], batch["segment"], batch["target"]):
        for n in range(1, int(segment.max()) + 1):
            ask, say = tokens[(segment == n) & ~target].tolist(), tokens[(segment == n) & target].tolist()
            assert tok.decode(ask).startswith("Q:") and tok.decode(ask).endswith(" A:") and say[-1] == tok.eos
        assert not target[segment < 0].any()


def test_no_web_only_word_reaches_a_robot_sample(mix, logs, actions):
    for step in logs[0].steps:
        assert not set(step["instruction"].split()) & WEB_WORDS and set(step["instruction"].split()) <= ROBOT_WORDS
    strange = {word for word in WEB_WORDS if len(word) > 1}  # a digit may be a number of the arm
    for n in range(2, 12):
        batch = mix[n, 0]
        for tokens, segment in zip(batch["tokens"][:4], batch["segment"][:4]):
            words = actions.tokenizer.decode(tokens[segment >= 0].tolist()).replace("?", " ").split()
            assert not set(words) & strange


def test_web_pictures_do_show_and_name_web_only_things(logs):
    named = {fact["name"] for step in logs[1].steps for fact in step["facts"]}
    assert named >= set(VOCABULARIES["small"]["web"])


def test_a_log_holds_what_the_expert_did(logs):
    """replaying the expert from the logged seed gives the logged pictures, instructions and actions"""
    log = logs[0]
    for i, step in enumerate(log.steps):
        if i == 0 or log.steps[i - 1]["episode"] != step["episode"]:
            table = World("small", SETTINGS["skills"], 32, noise=.006)
            obs, _ = table.reset(step["episode"], wild=step["episode"] % 2 == 1, alone=step["episode"] % 10 < 4)
        assert (log.pictures[i] == obs["image"]).all() and obs["instruction"] == step["instruction"]
        np.testing.assert_allclose(step["action"], table.expert(), atol=1e-6)
        obs, reward, *_ = table.step(table.expert())
    assert reward == 1 and step["action"][ACTION_NAMES.index("terminate")] == 1


def test_logged_actions_of_all_skills_fit_the_tokenizer(actions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a = np.array([s["action"] for e in world.episodes(range(150), "full", SKILLS, 0) for s in e])
        back = actions.decode(actions.encode(a))
    assert (np.abs(back - a) <= (actions.high - actions.low) / 512 + 1e-6).all()
    assert (np.abs(a) > 0).any(0).all()                     # and every number is in use


def test_held_out_episodes_are_not_trained_on(tmp_path, actions):
    log = data.WorldLog(tmp_path, world.episodes, 25, SETTINGS, quiet=True)
    train, test = (data.RobotData(log, actions, held_out=h) for h in (False, True))
    episodes = [{log.steps[i]["episode"] for i in d.index} for d in (train, test)]
    assert episodes[1] == {20} and not episodes[0] & episodes[1] and len(train.index) + len(test.index) == len(log)
    with pytest.raises(ValueError, match="record more episodes"):
        data.RobotData(data.WorldLog(tmp_path, world.episodes, 5, SETTINGS, quiet=True), actions, held_out=True)


def test_two_tokenizers_do_not_mix():
    for vocabulary in ("small", "full"):                    # each is freed before the next is made
        tokenizer = world_actions(vocabulary).tokenizer
        facts, rng = [{"name": "apple", "column": .5, "row": .5}], np.random.default_rng(0)
        (p, a), = data._fill([], lambda: web.ask(facts, "locate", rng), 20, tokenizer)[:1]
        assert tokenizer.decode(p + a[:-1]) == "Q: where is the apple? A: 16 16"


def test_worked_example_of_the_docstring(actions):
    action = [0, .04, .04, -.08, 0, 0, 0, 1]
    text = actions.text(action)
    assert f"| {text} <eos> |" in data.__doc__
    words = [actions.tokenizer.decode([i]).strip() for i in actions.tokenizer.encode(prompt("pick apple"))]
    assert " ".join(words) in data.__doc__


def test_a_log_is_made_once_and_read_again(logs, tmp_path):
    first = data.WorldLog(tmp_path, web.web_pictures, 5, WEB, quiet=True)
    stamp = (first.path / "pictures.u8").stat().st_mtime_ns
    again = data.WorldLog(tmp_path, web.web_pictures, 5, WEB, quiet=True)
    assert again.path == first.path and (again.path / "pictures.u8").stat().st_mtime_ns == stamp
    other = data.WorldLog(tmp_path, web.web_pictures, 6, WEB, quiet=True)
    assert other.path != first.path and len(list(tmp_path.iterdir())) == 2


def test_a_log_cut_short_is_refused(tmp_path):
    log = data.WorldLog(tmp_path, web.web_pictures, 5, WEB, quiet=True)
    lines = (log.path / "steps.jsonl").read_text().splitlines()
    (log.path / "steps.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match="delete the folder"):
        data.WorldLog(tmp_path, web.web_pictures, 5, WEB, quiet=True)


def test_overwrite_scheme_tokens_never_occur_in_the_worlds_text():
    actions = world_actions("full", "overwrite")
    used = {i for text in data.corpus("full", 300) for i in actions.tokenizer.encode(text)}
    assert not used & set(actions.ids.tolist())
