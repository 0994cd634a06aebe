"""Assignment 4: a sample (data.py: pack, fill, RobotData.sample, Mix)"""
import numpy as np

from course import tiny
from course.grading import points
from data import ACTION, ASKED, SAID, Mix, fill, pack


class Words:
    """a tokenizer of single letters; eos = 0"""
    eos = 0

    def encode(self, text):
        return [ord(letter) for letter in text]


class Source:
    """a source of samples for Mix, whose tokens say who it is"""

    def __init__(self, name, n=3):
        self.name, self.n = name, n

    def sample(self, rng):
        return (np.full((4, 4, 3), self.name, np.uint8),
                [[(ASKED, [self.name, int(rng.integers(100))]), (SAID, [7] * (self.n - 2))]])


def mix(robots=((1, 1.0),), webs=((2, 1.0, 0),), **options):
    settings = dict(batch_size=8, robot_fraction=.25, text_len=8, seed=3)
    return Mix([(Source(name), {"name": str(name), "weight": w}) for name, w in robots],
               [(Source(name), {"name": str(name), "weight": w, "until": until}) for name, w, until in webs],
               **{**settings, **options})


def who(item):
    return item["tokens"][:, 0].tolist()


@points(2, read="data.py: the example in the docstring of pack")
def the_example_of_pack():
    found = pack([[(ASKED, [5, 6]), (ACTION, [7]), (SAID, [2])], [(ASKED, [8]), (SAID, [9])]], 7)
    assert [list(x) for x in found] == [[5, 6, 7, 2, 8, 9, 0], [1, 1, 1, 1, 2, 2, -1],
                                        [ASKED, ASKED, ACTION, SAID, ASKED, SAID, ASKED]], found
    try:
        pack([[(ASKED, [1] * 8)]], 7)
    except ValueError:
        return
    raise AssertionError("a sample that does not fit is a ValueError, not cut off")


@points(2, read="the docstring of fill: different questions, until the text is full")
def fill_adds_different_questions_until_the_text_is_full():
    asked = iter([("ab", "c"), None, ("ab", "c"), ("de", "f"), ("gh", "i"), ("jk", "l")] + [("mn", "o")] * 30)
    found = fill([[(ASKED, [9]), (SAID, [9])]], lambda: next(asked), 10, Words())
    assert len(found) == 3, \
        f"{len(found)} questions: one was there, two of four tokens fit 10, and none is asked twice"
    assert found[1] == [(ASKED, [97, 98]), (SAID, [99, 0])], \
        f"{found[1]}: the prompt, and the answer with <eos>"
    assert [ids[0] for _, ids in (found[2][0],)] == [100]
    assert fill([], lambda: None, 10, Words()) == [], "a picture without questions must not hang"


@points(3, read="data.py: the first example at the top of the file")
def a_robot_sample_says_what_each_token_is():
    config = tiny.config()
    logs, tok, robots, made, _ = tiny.made(config)
    source = made.robots[0][0]
    pictures, questions = source.sample(np.random.default_rng(0), n=0)
    i = int(source.index[0])
    asked, thought, action, end = questions[0]
    assert pictures.shape == (16, 16, 3) and (pictures == source.log.picture(i)).all()
    assert asked == (ASKED, tok.encode(source.log.request(i, None)[0])), "the prompt is asked: no loss"
    assert list(thought) == [SAID, []], "without thoughts nothing is said before the action"
    assert action[0] == ACTION and list(action[1]) == source.answers[0].tolist(), \
        "the action's tokens are ACTION"
    assert end == (SAID, [tok.eos]), "and <eos> ends the answer, with loss"
    assert len(questions) > 1, "then questions about the same picture while they fit"
    source.thought_len = 6
    source.log.request = lambda i, rng: ("Q: x A:", " 1 2")
    thought = source.sample(np.random.default_rng(0), n=0)[1][0][1]
    assert thought == (SAID, [*tok.encode(" 1 2"), tok.begin_action]), "a thought, then ' Action:', with loss"


@points(2, read="the docstring of Mix: what an item is")
def a_batch_has_its_share_of_robots():
    item = mix()[0, 0]
    assert who(item) == [1, 1] + [2] * 6, f"{who(item)}: a quarter of 8 rows is the robot's"
    assert item["source"].tolist() == [0, 0] + [-1] * 6
    assert item["images"].shape == (8, 4, 4, 3) and item["tokens"].shape == (8, 8)
    assert item["shift"].tolist() == [0] * 8
    assert who(mix(n_pretrain=5)[4, 0]) == [2] * 8 and who(mix(n_pretrain=5)[5, 0])[0] == 1, "first web alone"
    easy = mix(webs=((2, 1., 0), (3, 1., 4)))
    assert set(who(easy[3, 0])) == {1, 3} and set(who(easy[4, 0])) == {1, 2}, "until = 4: steps 0 to 3, alone"


@points(2, read="the docstring of Mix: fixed by (seed, step, k) alone")
def an_item_depends_on_seed_step_and_part_alone():
    a, b = mix(), mix()
    a[5, 0], a[6, 0]
    assert a[7, 0]["tokens"].tolist() == b[7, 0]["tokens"].tolist(), "it depends on what was read before"
    assert a[7, 0]["tokens"].tolist() != a[8, 0]["tokens"].tolist(), "two steps have the same samples"
    assert a[7, 0]["tokens"].tolist() != mix(seed=4)[7, 0]["tokens"].tolist(), \
        "two seeds have the same samples"
    parts = [mix(n_micro=2)[7, k] for k in (0, 1)]
    assert [len(p["tokens"]) for p in parts] == [4, 4] and all(1 in who(p) and 2 in who(p) for p in parts), \
        "robot and web in every micro-batch"
    assert parts[0]["tokens"].tolist() != parts[1]["tokens"].tolist()


@points(1, read="Mix.draw: by weight, which need not add up to one")
def sources_are_drawn_by_their_weight():
    drawn = mix(webs=((2, 6., 0), (3, 2., 0)), robot_fraction=0., batch_size=400)[0, 0]
    share = who(drawn).count(3) / 400
    assert .17 < share < .33, f"weights 6 and 2: the second has {share:.0%} of rows"
    moved = mix(shift=4, shift_from=2)
    assert moved[1, 0]["shift"].max() == 0 and 0 < moved[9, 0]["shift"].max() <= 4, \
        "shift, from step shift_from on"
