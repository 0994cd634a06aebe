"""Assignment 4: a sample (data.py: pack, fill, RobotData.sample, Mix)"""
import numpy as np

from course import tiny
from course.grading import expect, fails, points
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


def mix(robots=((1, 1.0),), webs=((2, 1.0),), **options):
    settings = dict(batch_size=8, robot_fraction=.25, text_len=8, seed=3)
    return Mix([(Source(name), {"name": str(name), "weight": w}) for name, w in robots],
               [(Source(name), {"name": str(name), "weight": w}) for name, w in webs],
               **{**settings, **options})


def who(item):
    return item["tokens"][:, 0].tolist()


@points(2, read="data.py: the example in the docstring of pack")
def the_example_of_pack():
    found = pack([[(ASKED, [5, 6]), (ACTION, [7]), (SAID, [2])], [(ASKED, [8]), (SAID, [9])]], 7)
    for name, found, wanted in zip(("tokens", "segment", "label"), found, (
            [5, 6, 7, 2, 8, 9, 0], [1, 1, 1, 1, 2, 2, -1], [ASKED, ASKED, ACTION, SAID, ASKED, SAID, ASKED])):
        expect(name, list(found), wanted)
    fails("a sample of 8 tokens where text_len = 7", pack, [[(ASKED, [1] * 8)]], 7)


@points(2, read="the docstring of fill: different questions, until the text is full")
def fill_adds_different_questions_until_the_text_is_full():
    def filled(start, questions, room):
        questions = iter([*questions, *[("mn", "opq")] * 40])
        found = fill(start, lambda: next(questions), room, Words())
        return [["".join(map(chr, ids)) for _, ids in question] for question in found]
    first = [[(ASKED, [ord("x")]), (SAID, [ord("y")])]]
    expect("(prompt, answer with <eos> = \\0), room for 10 letters; ask() repeats ab, and gives None once",
           filled(first, [("ab", "c"), None, ("ab", "c"), ("de", "f"), ("gh", "i")], 10),
           [["x", "y"], ["ab", "c\0"], ["de", "f\0"]])
    expect("room for 9: the second question does not fit, and it ends there although a shorter one follows",
           filled([], [("ab", "c"), ("defg", "h"), ("i", "j")], 9), [["ab", "c\0"]])
    asked = fill([], lambda: ("ab", "c"), 9, Words())
    expect("labels of a question", [label for label, _ in asked[0]], [ASKED, SAID])
    tries = []
    expect("questions where ask() gives None for ever", fill([], lambda: tries.append(1), 10, Words()), [])
    expect("tries after which it stops; None counts", len(tries), 20)


@points(3, read="data.py: the first example at the top of the file")
def a_robot_sample_says_what_each_token_is():
    config = tiny.config()
    logs, tok, robots, made, _ = tiny.made(config)
    source = made.robots[0][0]
    pictures, questions = source.sample(np.random.default_rng(0), n=0)
    i = int(source.index[0])
    asked, thought, action, end = questions[0]
    expect("the picture of step index[0]", pictures[0], source.log.picture(i), off=1e-9)
    expect("the prompt is ASKED", asked, (ASKED, tok.encode(source.log.request(i, None)[0])))
    expect("without thoughts nothing is said before the action", list(thought), [SAID, []])
    expect("the action's tokens are ACTION", [action[0], list(action[1])],
           [ACTION, source.answers[0].tolist()])
    expect("<eos> ends the answer, with loss", end, (SAID, [tok.eos]))
    expect("questions about the same picture, the action's included", len(questions),
           "more than one, while they fit",
           holds=len(questions) > 1)
    used = sum(len(ids) for question in questions for _, ids in question)
    expect("tokens of the sample", used, f"at most text_len = {source.text_len}",
           holds=used <= source.text_len)
    source.augment = True
    moved, alone = source.sample(np.random.default_rng(0), n=0)
    expect("with augment: questions, since a crop moves things", len(alone), 1)
    expect("with augment: shape of the picture", moved.shape, pictures.shape)
    expect("with augment: pixels that differ", int((moved != pictures).sum()), "some, by jitter",
           holds=(moved != pictures).any())
    source.thought_len, source.augment = 6, False
    source.log.request = lambda i, rng: ("Q: x A:", " 1 2")
    expect("with thought_len = 6, a thought and then ' Action:', with loss",
           source.sample(np.random.default_rng(0), n=0)[1][0][1],
           (SAID, [*tok.encode(" 1 2"), tok.begin_action]))


@points(2, read="the docstring of Mix: what an item is")
def a_batch_has_its_share_of_robots():
    item = mix()[0, 0]
    expect("whose each row is (1: the robot, a quarter of 8 rows)", who(item), [1, 1] + [2] * 6)
    expect("source", item["source"], [0, 0] + [-1] * 6)
    expect("shapes of images, tokens and label", [tuple(item[k].shape) for k in ("images", "tokens",
                                                                                 "label")],
           [(8, 4, 4, 3), (8, 8), (8, 8)])
    expect("n_pretrain = 5, step 4: the web alone", who(mix(n_pretrain=5)[4, 0]), [2] * 8)
    expect("n_pretrain = 5, step 5: the first row", who(mix(n_pretrain=5)[5, 0])[0], 1)
    item = mix(robots=((1, 1.), (4, 1.)), robot_fraction=1., batch_size=20)[0, 0]
    expect("source of the rows of two robots, 0 and 1", item["source"], [{1: 0, 4: 1}[n] for n in who(item)])


@points(2, read="the docstring of Mix: fixed by (seed, step, k) alone")
def an_item_depends_on_seed_step_and_part_alone():
    def tokens(mix, step=7, k=0):
        return mix[step, k]["tokens"].tolist()
    a = mix()
    a[5, 0], a[6, 0]
    expect("step 7 after steps 5 and 6 (wanted: as read at once)", tokens(a), tokens(mix()))
    for what, other in (("step 8", tokens(a, 8)), ("another seed", tokens(mix(seed=4)))):
        expect(f"step 7, which must not be the same as {what}", tokens(a), f"other samples than {other}",
               holds=tokens(a) != other)
    two = mix(n_micro=2)
    expect("two micro-batches: whose each row is (the robot has rows 0 and 1 of the batch)",
           [who(two[7, k]) for k in (0, 1)], [[1, 2, 2, 2]] * 2)
    expect("the samples of micro-batch 0", tokens(two), "others than those of micro-batch 1",
           holds=tokens(two) != tokens(two, 7, 1))


@points(1, read="Mix.draw: by weight, which need not add up to one")
def sources_are_drawn_by_their_weight():
    drawn = mix(webs=((2, 6.), (3, 2.)), robot_fraction=0., batch_size=400)[0, 0]
    share = who(drawn).count(3) / 400
    expect("weights 6 and 2: share of rows of the second", share, "about 0.25", holds=.17 < share < .33)
