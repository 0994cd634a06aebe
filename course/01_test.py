"""Assignment 1: numbers as words (tokenizer.py, ActionTokenizer)"""
import functools
import warnings

import numpy as np

from course.grading import expect, fails, points
from tokenizer import ActionTokenizer, Tokenizer, prompt

LOW, HIGH = [0] + [-.08] * 3 + [-.8] * 3 + [0], [1] + [.08] * 3 + [.8] * 3 + [1]
BY_HAND = [0, .04, .033, -.08, 0, .8, -.4, 1]                   # the table at the top of tokenizer.py


@functools.cache
def words():
    return Tokenizer.train([prompt("pick up the red block and go to it again")] * 3, 4096)


def arm(**options):
    return ActionTokenizer(words(), LOW, HIGH, **options)


def plane(n=4, **options):
    return ActionTokenizer(words(), [-1, 0], [1, 10], names=("x", "y"), n_bins=n, **options)


def warned(call, *arguments, **options):
    """the text of all warnings of a call"""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call(*arguments, **options)
    return " | ".join(str(w.message) for w in said)


@points(3, read="tokenizer.py, the table at the top: value, bin, token")
def the_action_by_hand_has_its_bins_and_tokens():
    bins, ids = arm().bins(BY_HAND), arm().encode(BY_HAND)
    expect("bins", bins, [0, 192, 180, 0, 128, 255, 64, 255])
    expect("tokens", ids, [256, 448, 436, 256, 384, 511, 320, 511])
    expect("types of bins and tokens", [str(bins.dtype), str(ids.dtype)], ["int64", "int64"])


@points(2, read="the handout: a bin means its centre")
def a_bin_means_its_centre():
    found = plane().centres(np.array([[0, 3], [1, 2]]))
    expect("centres of the bins [0, 3] and [1, 2], of four over -1 .. 1 and 0 .. 10", found,
           [[-.75, 8.75], [-.25, 6.25]], off=1e-6)
    expect("type of the centres", str(found.dtype), "float32")


@points(1, read="the docstring of decode")
def what_is_encoded_comes_back_at_most_half_a_bin_off():
    a, rng = arm(), np.random.default_rng(0)
    x = rng.uniform(LOW, HIGH, (300, 8))
    x[:, 0] = x[:, 0].round()
    off = (a.decode(a.encode(x)) - x)[:, 1:] / ((np.array(HIGH) - LOW)[1:] / 256)
    expect("largest error, in bins", np.abs(off).max(), "at most .5", holds=np.abs(off).max() <= .5001)
    expect("mean error, in bins", off.mean(), "0: else all numbers move to one side",
           holds=abs(off.mean()) < .02)


@points(1, read="the docstring of ActionTokenizer: ids; the hint: never add 256 yourself")
def both_schemes_write_the_tokens_of_their_own_bins():
    a = plane(16, scheme="overwrite")
    expect("scheme overwrite, tokens of the lowest x and the highest y (ids[0], ids[15])", a.encode([-1, 10]),
           [a.ids[0], a.ids[15]])
    expect("scheme overwrite, what the token of bin 3 means", a.decode(a.ids[[3, 3]]),
           [-1 + 3.5 / 8, 3.5 * 10 / 16], off=1e-6)


@points(1, read="the docstrings of bins and ActionTokenizer: categories")
def a_category_comes_back_exactly():
    a = ActionTokenizer(words(), [0, -1], [1, 2], names=("terminate", "way"), n_bins=8,
                        categories={"way": [-1, 1.5, 2]})
    x = [[0, -1], [1, 1.5], [0, 2]]
    expect("bins of the categories (0, 1) and (-1, 1.5, 2)", a.bins(x), [[0, 0], [1, 1], [0, 2]])
    expect("and back", a.decode(a.encode(x)), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expect("the nearest category of .2 (terminate) and 1.8 (way)", a.bins([.2, 1.8]), [0, 2])
    said = warned(a.bins, [0, 1.8])
    expect("warning about 1.8, which is none of way's categories", said, "one that names way",
           holds="way" in said)


@points(1, read="the docstring of bins: clipped, with a warning")
def outside_the_bounds_is_clipped_and_said():
    a = plane()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expect("bins of x = 5 and y = -2", a.bins([5, -2]), [3, 0])
    for x, what in ((5, "5"), (1.005, "1.005, which is outside by 1/400 of the range")):
        said = warned(a.bins, [x, 0])
        expect(f"warning about x = {what}", said, "one that names x", holds="x is" in said or "x " in said)
    for x, what in ((1, "x = 1, the bound itself"),
                    (1 + 1e-8, "x = 1 + 1e-8: a bound that went through float32")):
        said = warned(a.bins, [x, 0])
        expect(f"warning about {what}", said, "none", holds=not said)
    said = warned(a.bins, [5, -2], quiet=True)
    expect("warning with quiet=True", said, "none about bounds", holds=not said)
    expect("bins with quiet=True", a.bins([5, -2], quiet=True), [3, 0])


@points(1, read="the docstrings: ValueError")
def what_makes_no_sense_is_an_error():
    a, two = arm(), plane()
    fails("an action with NaN", a.bins, [float("nan")] * 8)
    fails("an action with infinity", a.bins, [0] * 7 + [float("inf")])
    fails("an action of seven numbers", a.bins, [0] * 7)
    fails("one number where there are two: [[0.5]]", two.bins, [[.5]])
    fails("a word instead of a bin", a.decode, [300] * 7 + [a.tokenizer.eos])
    fails("one token where there are two: [[256]]", two.decode, [[256]])
    fails("bin 2 of terminate, which has two", a.decode, [258] + [300] * 7)
    fails("a token above the vocabulary", a.decode, [256] + [a.tokenizer.n_vocab] * 7)
    fails("a negative token, which numpy would count from the end", a.decode, [256 - a.tokenizer.n_vocab] * 8)
