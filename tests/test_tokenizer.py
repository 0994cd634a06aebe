"""tokenizer.py: each test is named for the property it guards. run: python -m pytest -q tests/test_tokenizer.py"""
import io
import random
import re

import numpy as np
import pytest
import torch

import tokenizer as T
from formats.weights import gpt2_tokenizer
from test_weights import write_gpt2_files
from tokenizer import ActionTokenizer, Tokenizer, prompt, train_bpe

LOW, HIGH = [0, -0.1, -0.1, -0.1, -0.5, -0.5, -0.5, 0], [1, 0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 1]
CORPUS = [prompt(f"{verb} the {color} {thing}") + " 0 128 128 128 128 128 128 255"
          for verb in ("pick up", "push", "move near") for color in ("red", "green", "blue")
          for thing in ("block", "bowl", "star", "apple")]


@pytest.fixture(scope="module")
def tok():
    return Tokenizer.train(CORPUS)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return gpt2_tokenizer(write_gpt2_files(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(params=["tok integer", "tok overwrite", "gpt2 integer", "gpt2 overwrite"])
def act(request):
    tokenizer, scheme = request.param.split()
    return ActionTokenizer(request.getfixturevalue(tokenizer), LOW, HIGH, scheme)


def uniform(n):
    a = np.random.default_rng(0).uniform(LOW, HIGH, (n, 8))
    a[:, 0] = a[:, 0] > 0.5
    return a


# -- actions

@pytest.mark.filterwarnings("error")
def test_round_trip_is_within_half_a_bin_and_unbiased(act):
    a = uniform(20_000)
    error = act.decode(act.encode(a)) - a
    half = (act.high - act.low) / 256 / 2
    assert (np.abs(error) <= half + 1e-7).all()
    assert (np.abs(error).max(0)[1:] > 0.99 * half[1:]).all()  # and no finer than 256 bins
    assert (np.abs(error.mean(0)) < 0.03 * half).all()         # 0.03 = 7 standard errors


@pytest.mark.filterwarnings("error")
def test_bin_numbers_survive_decode_and_encode(act):
    bins = np.stack([np.arange(256)] * 8, -1)
    bins[:, 0] %= 2
    assert (act.bins(act.decode(act.ids[bins])) == bins).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_of_the_range_are_first_and_last_bin_without_a_warning(act, dtype):
    assert act.bins(np.array(LOW, dtype)).tolist() == [0] * 8
    assert act.bins(np.array(HIGH, dtype)).tolist() == [1] + [255] * 7


def test_terminate_is_exact(act):
    a = uniform(100)
    assert (act.decode(act.encode(a))[:, 0] == a[:, 0]).all()
    assert set(act.encode(a)[:, 0]) == set(act.ids[:2])
    with pytest.warns(UserWarning, match="terminate is 0.3, none of its categories 0, 1"):
        assert act.decode(act.encode([0.3] + [0] * 7))[0] == 0
    with pytest.warns(UserWarning, match="terminate is 2"):
        assert act.decode(act.encode([2] + [0] * 7))[0] == 1


@pytest.mark.parametrize("d", range(1, 8))
def test_out_of_range_is_clipped_with_a_warning_that_names_the_number(act, d):
    a = uniform(5)
    for value, end in ((HIGH[d] + 0.25, 255), (LOW[d] - 0.25, 0)):
        a[3, d] = value
        with pytest.warns(UserWarning) as caught:
            bins = act.bins(a)
        assert bins[3, d] == end
        assert len(caught) == 1
        message = str(caught[0].message)
        assert message.startswith(f"{T.NAMES[d]} is {value:g}, outside its bounds {LOW[d]:g} to {HIGH[d]:g}")


@pytest.mark.filterwarnings("error")
def test_quiet_clips_without_a_warning_and_nothing_else(act):
    a = uniform(5)
    a[:, 1:] *= 3
    assert (act.bins(a, quiet=True) == act.bins(a.clip(LOW, HIGH))).all()
    assert (act.encode(a, quiet=True) == act.encode(a.clip(LOW, HIGH))).all()
    a[2, 0] = .3                                            # no bound cuts this off
    with pytest.raises(UserWarning, match="terminate is 0.3"):
        act.encode(a, quiet=True)
    a[2, :2] = 1, np.nan
    with pytest.raises(ValueError, match="^dx is nan"):
        act.encode(a, quiet=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_raises_and_is_named(act, value):
    a = uniform(3)
    a[1, 3] = value
    with pytest.raises(ValueError, match=f"^dz is {value}"):
        act.encode(a)


@pytest.mark.parametrize("shape", [(), (7,), (9,), (8, 2), (0,)])
def test_wrong_shape_raises_and_is_named(act, shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        act.encode(np.zeros(shape))
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        act.decode(np.zeros(shape, np.int64))


def test_leading_dimensions_and_types_are_kept(act):
    for shape in ((8,), (0, 8), (4, 8), (2, 3, 8)):
        ids = act.encode(np.zeros(shape, np.float32))
        assert ids.shape == shape and ids.dtype == np.int64
        a = act.decode(torch.from_numpy(ids))
        assert a.shape == shape and a.dtype == np.float32
    a = uniform(6)
    assert (act.encode(a.reshape(2, 3, 8)).reshape(6, 8) == act.encode(a)).all()
    assert (act.encode(a)[4] == act.encode(a[4])).all()


def test_decoding_a_token_that_is_no_bin_names_slot_and_token(act):
    tok = act.tokenizer
    ids = act.encode(uniform(2))
    for d, bad in ((5, tok.encode("Q:")[0]), (3, tok.eos), (0, act.ids[2]), (2, -1), (7, tok.n_vocab)):
        broken = ids.copy()
        broken[1, d] = bad
        with pytest.raises(ValueError, match=rf"slot {d} \({T.NAMES[d]}\): token {bad} "):
            act.decode(broken)
    with pytest.raises(ValueError, match="float64"):
        act.decode(ids.astype(np.float64))


def test_allowed_has_two_tokens_for_terminate_and_256_elsewhere(act):
    tok = act.tokenizer
    assert act.allowed.shape == (8, tok.n_vocab) and act.allowed.dtype == bool
    assert act.allowed.sum(1).tolist() == [2] + [256] * 7
    assert set(np.flatnonzero(act.allowed[0])) == set(act.ids[:2])
    assert all(set(np.flatnonzero(row)) == set(act.ids) for row in act.allowed[1:])


def test_integer_scheme_uses_the_integers(tok):
    assert ActionTokenizer(tok, LOW, HIGH).ids.tolist() == [tok.encode(f" {i}")[0] for i in range(256)]


def test_overwrite_scheme_uses_the_least_used_tokens_and_no_byte_special_or_integer(tok):
    ids = ActionTokenizer(tok, LOW, HIGH, "overwrite").ids.tolist()
    assert len(set(ids)) == 256 and ids == tok.least_used[:256]
    kept = set(range(256)) | {tok.eos} | set(tok.integers[:256]) | set(tok.encode("Q: A: Action:"))
    assert not kept & set(tok.least_used)
    used = np.bincount([i for text in CORPUS for i in tok.encode(text)], minlength=tok.n_vocab)
    assert len(set(tok.least_used)) == len(tok.least_used) == tok.n_vocab - len(kept)
    assert (np.diff(used[tok.least_used]) >= 0).all()
    assert used[ids].sum() == 0  # here there are enough tokens that no text needs


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scheme", ["integer", "overwrite"])
@pytest.mark.parametrize("D", [2, 26])
def test_other_widths_work(tok, scheme, D):
    act = ActionTokenizer(tok, [-1.0] * D, [3.0] * D, scheme, names=[f"joint{i}" for i in range(D)], n_bins=100)
    a = np.random.default_rng(0).uniform(-1, 3, (50, D))
    assert (np.abs(act.decode(act.encode(a)) - a) <= 4 / 100 / 2 + 1e-6).all()
    assert act.allowed.sum(1).tolist() == [100] * D


def test_terminate_is_known_by_its_name_wherever_it_stands(tok):
    act = ActionTokenizer(tok, [-1, 0], [1, 1], names=("x", "terminate"))
    assert act.allowed.sum(1).tolist() == [256, 2]
    assert act.decode(act.encode([[-1, 0], [1, 1]]))[:, 1].tolist() == [0, 1]


@pytest.mark.parametrize("change, match", [
    (dict(low=LOW[:7]), r"\(7,\)"), (dict(low=[0, 0.1] + LOW[2:]), "bounds of dx are 0.1 and 0.1"),
    (dict(low=[0, np.nan] + LOW[2:]), "dx are nan"), (dict(high=HIGH[:7] + [np.inf]), "gripper are 0 and inf"),
    (dict(low=[-1] + LOW[1:]), "terminate has 2 categories"), (dict(scheme="words"), "'words'"),
    (dict(n_bins=1), "n_bins is 1;"), (dict(n_bins=1001), "n_bins is 1001"),
    (dict(names=("x",) * 8), "name of its own"),
    (dict(high=[1, 1e308, *HIGH[2:]]), "must be finite"),
    (dict(names=("x", "y")), "2 names"),
])
def test_bad_specs_raise(tok, change, match):
    with pytest.raises(ValueError, match=match):
        ActionTokenizer(**{**dict(tokenizer=tok, low=LOW, high=HIGH), **change})


# -- actions as text

def test_the_papers_string_is_eight_tokens_after_a_prompt(tok):
    act, bins = ActionTokenizer(tok, LOW, HIGH), [1, 128, 91, 241, 5, 101, 127, 217]
    string, question = " ".join(map(str, bins)), prompt("pick up the red block")
    ids = tok.encode(f"{question} {string}")
    assert ids[:-8] == tok.encode(question) and ids[-8:] == act.ids[bins].tolist()
    assert act.bins(act.decode(ids[-8:])).tolist() == bins and tok.decode(ids[-8:]) == " " + string


def test_the_worked_example_in_the_docstring_is_true(tok):
    row = r'^    (\w+) +([-.\d]+) +([-.\d]+) +([-.\d]+) +(\d+) +(\d+) += "( \d+)" +([-.\d]+)$'
    rows = re.findall(row, T.__doc__, re.M)
    names, low, high, value, bins, ids, words, again = zip(*rows)
    assert names == T.NAMES
    act = ActionTokenizer(tok, np.float64(low), np.float64(high))
    a = np.float64(value)
    assert act.bins(a).tolist() == list(map(int, bins)) and act.encode(a).tolist() == list(map(int, ids))
    assert tok.decode(map(int, ids)) == "".join(words) and f'"{"".join(words)}"' in T.__doc__
    assert np.abs(act.decode(act.encode(a)) - np.float64(again)).max() < 6e-6


def test_prompt_is_the_papers_and_needs_an_instruction():
    assert prompt(" open  the drawer\n") == "Q: what action should the robot take to open the drawer? A:"
    assert prompt(None) == "Q: what action should the robot take? A:"
    for empty in ("", " \n", " . "):
        with pytest.raises(ValueError, match="say what the robot should do"):
            prompt(empty)


def test_an_instruction_means_the_same_however_it_is_typed():
    """but one letter alone is a name, as on a card"""
    for text in ("Open the top drawer.", "open the top drawer", " Open  the Top\tDrawer ! ", "OPEN THE TOP DRAWER?"):
        assert prompt(text) == prompt("open the top drawer") and T.wish(text) == "Instruction: open the top drawer."
    assert prompt("Move it near the X") != prompt("move it near the x") == prompt("Move it near the x.")
    assert T.wish("I am thirsty!") == "Instruction: I am thirsty."


# -- text

def test_integers_are_whole_alone_and_inside_sentences(tok):
    assert len(tok.integers) == 1000
    for i, token in enumerate(tok.integers):
        assert tok.encode(f" {i}") == [token] and tok.decode([token]) == f" {i}"
        assert tok.encode(f"Q: pick block {i}, then {i}? A: {i}").count(token) == 3
        assert tok.decode(tok.encode(f"({i}){i}")) == f"({i}){i}"  # without its space it is ordinary text


def test_words_of_the_corpus_and_the_frame_are_whole_tokens(tok):
    ids = tok.encode(prompt("pick up the red block"))
    assert [tok.decode([i]) for i in ids] == ("Q:| what| action| should| the| robot| take| to| pick| up| the| red| "
                                              "block|?| A:").split("|")
    assert Tokenizer.train(["x"]).encode("Q: A:") == tok.encode("Q: A:")  # the frame does not depend on the corpus


STRINGS = ["", " ", "  ", "\n\t\r ", "007", " 007", "00", "1234567", " 41  41", "a_b __init__ _", "Q:A: IQ: AA:Q", "it's",
           "größe naïve Ⅷ ² ½", "٣ १ ０", "e\u0301 \u200d \u00a0\u2003\u2028", "机器人 拿起红色的积木", "🤖👩‍🚀", "\x00\x1c\x1f\x7f\x80\x85",
           "\U0010ffff", "<eos>", "a<eos>b <eos> <pad>"]


def strings():
    rng = random.Random(0)
    yield from STRINGS
    for _ in range(300):
        data = rng.randbytes(rng.randint(1, 40))
        yield data.decode("latin-1")
        yield data.decode("utf-8", errors="replace")
        yield "".join(rng.choice("QA: 019az_.<\n\té٣\x1c\xa0") for _ in range(rng.randint(1, 40)))
        yield "".join(c for c in map(chr, rng.choices(range(0x110000), k=20)) if not "\ud800" <= c <= "\udfff")


def test_any_text_comes_back_from_its_tokens(tok):
    for s in strings():
        assert tok.decode(tok.encode(s)) == s
        assert tok.enc.decode_bytes(tok.encode(s)) == s.encode()


def test_python_and_tiktoken_split_alike(tok):
    for s in strings():
        pieces = re.findall(T.PATTERN, s)
        assert "".join(pieces) == s
        assert [i for p in pieces for i in tok.encode(p)] == tok.encode(s)


def test_eos_in_text_stays_text(tok):
    assert tok.eos == tok.n_vocab - 1 and tok.eos not in tok.encode("a <eos><eos> b")
    assert tok.decode([tok.eos]) == "<eos>"


def test_ids_outside_the_vocabulary_raise(tok):
    for bad in (-1, tok.n_vocab):
        with pytest.raises(ValueError, match=f"token {bad} is outside"):
            tok.decode([65, bad])
    assert all(tok.enc.decode_bytes([i]) for i in range(tok.n_vocab))


# -- training and saving

def test_the_word_that_ends_a_thought_is_one_token_with_and_without_a_corpus_that_has_it(tok):
    assert tok.encode(" Plan: pick. Action: 0")[-2:] == [tok.begin_action, tok.integers[0]] and " Action:" not in CORPUS[0]


def test_least_used_tokens_of_one_count_come_by_the_higher_id_first(tok):
    used = np.bincount([i for text in CORPUS for i in tok.encode(text)], minlength=tok.n_vocab)
    keys = [(used[i], -i) for i in tok.least_used]
    assert keys == sorted(keys)


def test_bpe_merges_the_most_frequent_pair_and_ties_go_to_the_smaller_bytes():
    assert train_bpe({b"aab": 2, b"ab": 1}, 2)[256:] == [b"ab", b"aab"]
    assert train_bpe({b"zy": 1, b"xw": 1}, 9)[256:] == [b"xw", b"zy"]  # and stops when all is merged
    assert train_bpe({b"aaaa": 1}, 9)[256:] == [b"aa", b"aaaa"]


def test_training_is_deterministic(tok):
    again = Tokenizer.train(iter(CORPUS))
    assert again.state() == tok.state()
    assert Tokenizer.train(CORPUS[::-1]).state() == tok.state()  # nor does the order of the corpus matter


def test_n_vocab_is_an_upper_bound_and_too_small_a_one_raises(tok):
    assert Tokenizer.train(CORPUS, n_vocab=1310).n_vocab == 1310 < tok.n_vocab < 4096
    assert Tokenizer.train(CORPUS, n_vocab=1260).n_vocab == 1260
    with pytest.raises(ValueError, match="n_vocab is 1259.*need 1260"):
        Tokenizer.train(CORPUS, n_vocab=1259)
    for corpus in ([], [""], "one string"):
        with pytest.raises(ValueError, match="corpus"):
            Tokenizer.train(corpus)


def test_no_digits_are_merged_beyond_the_integers():
    tok = Tokenizer.train(["007 1234 00 a1 00 1:00"] * 9)
    assert not [t for t in tok.tokens[len(T.FIXED):] if re.search(rb"\d", t)]
    assert tok.tokens[:len(T.FIXED)] == T.FIXED and len(set(tok.tokens)) == len(tok.tokens)


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_state_survives_torch_save_and_weights_only_load(act):
    """one tokenizer may serve several robots"""
    other = ActionTokenizer(act.tokenizer, [-1, 0], [1, 1], names=("x", "terminate"), n_bins=100)
    state = saved({"tokenizer": act.tokenizer.state(), "robots": {"world": act.state(), "other": other.state()}})
    tok = Tokenizer.from_state(state["tokenizer"])
    again, small = (ActionTokenizer(tok, **state["robots"][name]) for name in ("world", "other"))
    assert again.tokenizer is small.tokenizer is tok
    assert tok.state() == act.tokenizer.state() and again.state() == act.state() and small.state() == other.state()
    assert tok.n_vocab == act.tokenizer.n_vocab and tok.eos == act.tokenizer.eos
    for s in STRINGS + CORPUS[:3]:
        assert tok.encode(s) == act.tokenizer.encode(s)
    a = uniform(50)
    assert (again.encode(a) == act.encode(a)).all() and (again.allowed == act.allowed).all()
    assert (again.low == act.low).all() and (again.high == act.high).all() and again.names == act.names
    assert (small.encode(a[:, :2][:, ::-1]) == other.encode(a[:, :2][:, ::-1])).all()
    tokens = state["tokenizer"]["tokens"]
    tokens[tokens.index(" 44")] = "x"
    with pytest.raises(ValueError, match="another layout"):
        Tokenizer.from_state(state["tokenizer"])


def test_a_state_of_an_unknown_kind_is_refused(tok):
    with pytest.raises(ValueError, match="another layout"):
        Tokenizer.from_state({**tok.state(), "kind": "words"})
