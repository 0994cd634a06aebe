"""Assignment 1: numbers as words (tokenizer.py, ActionTokenizer)"""
import warnings

import numpy as np

from course.grading import points
from tokenizer import NAMES, ActionTokenizer, Tokenizer, prompt

LOW, HIGH = [0] + [-.08] * 3 + [-.8] * 3 + [0], [1] + [.08] * 3 + [.8] * 3 + [1]
BY_HAND = [0, .04, .033, -.08, 0, .8, -.4, 1]                   # the table at the top of tokenizer.py


def words():
    return Tokenizer.train([prompt("pick up the red block and go to it again")] * 3, 4096)


def arm(**options):
    return ActionTokenizer(words(), LOW, HIGH, **options)


def plane(n=4, **options):
    return ActionTokenizer(words(), [-1, 0], [1, 10], names=("x", "y"), n_bins=n, **options)


@points(3, read="tokenizer.py, the table at the top: value, bin, token")
def the_action_by_hand_has_its_bins_and_tokens():
    bins, ids = arm().bins(BY_HAND), arm().encode(BY_HAND)
    assert bins.tolist() == [0, 192, 180, 0, 128, 255, 64, 255], f"bins are {bins.tolist()}"
    assert ids.tolist() == [256, 448, 436, 256, 384, 511, 320, 511], f"tokens are {ids.tolist()}"
    assert bins.dtype == np.int64 and ids.dtype == np.int64, "bins and tokens are int64"


@points(2, read="the handout: a bin means its centre")
def a_bin_means_its_centre():
    found = plane().centres(np.array([[0, 3], [1, 2]]))
    assert np.allclose(found, [[-.75, 8.75], [-.25, 6.25]]), \
        f"four bins over -1 .. 1 and 0 .. 10 gave {found}"
    assert found.dtype == np.float32


@points(1, read="the docstring of decode")
def what_is_encoded_comes_back_at_most_half_a_bin_off():
    a, rng = arm(), np.random.default_rng(0)
    x = rng.uniform(LOW, HIGH, (300, 8))
    x[:, 0] = x[:, 0].round()
    off = (a.decode(a.encode(x)) - x)[:, 1:] / ((np.array(HIGH) - LOW)[1:] / 256)
    assert np.abs(off).max() <= .5001, f"one number is {np.abs(off).max():.2f} bins off"
    assert abs(off.mean()) < .02, f"on average {off.mean():+.2f} bins off: all numbers move to one side"


@points(1, read="PaLM-E has no integers: the handout, scheme overwrite")
def both_schemes_write_the_tokens_of_their_own_bins():
    a = plane(16, scheme="overwrite")
    assert a.encode([-1, 10]).tolist() == [a.ids[0], a.ids[15]]
    assert np.allclose(a.decode(a.ids[[3, 3]]), [-1 + 3.5 / 8, 3.5 * 10 / 16])


@points(1, read="the docstring of bins: categories")
def a_category_comes_back_exactly():
    a = ActionTokenizer(words(), [0, -1], [1, 2], names=("terminate", "way"), n_bins=8,
                        categories={"way": [-1, 1.5, 2]})
    x = [[0, -1], [1, 1.5], [0, 2]]
    assert a.bins(x).tolist() == [[0, 0], [1, 1], [0, 2]], a.bins(x).tolist()
    assert a.decode(a.encode(x)).tolist() == x, a.decode(a.encode(x)).tolist()


@points(1, read="the docstring of bins: clipped, with a warning")
def outside_the_bounds_is_clipped_and_said():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert plane().bins([5, -2]).tolist() == [3, 0]
        assert "x" in "".join(str(w.message) for w in said), "there was no warning that names x"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert plane().bins([5, -2], quiet=True).tolist() == [3, 0]
        assert not said, "quiet=True must not warn about bounds"


@points(1, read="the docstrings: ValueError")
def what_makes_no_sense_is_an_error():
    def fails(what, call, *arguments):
        try:
            call(*arguments)
        except ValueError:
            return
        raise AssertionError(f"{what} must be a ValueError")
    a = arm()
    fails("an action with NaN", a.bins, [float("nan")] * 8)
    fails("an action of seven numbers", a.bins, [0] * 7)
    fails("a word instead of a bin", a.decode, [300] * 7 + [a.tokenizer.eos])
    fails("bin 2 of terminate, which has two", a.decode, [258] + [300] * 7)
    assert len(NAMES) == 8
