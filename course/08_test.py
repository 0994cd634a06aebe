"""Assignment 8: think before acting (eval.py: Policy.decide, Policy.slot)"""
import numpy as np
import torch

from course.grading import expect, points
from data import Robot
from eval import Policy
from tokenizer import ActionTokenizer, Tokenizer, prompt

WORDS = Tokenizer.train([prompt("pick the red can") + " Plan: pick red can. apple"] * 3, 4096)


class Model:
    """
    A model that wants to say a script, a list of token ids for each row, and says what is allowed: the
    script's token, or else the lowest that is.
    """

    def __init__(self, *scripts):
        self.scripts, self.asked = scripts, []
        self.config = type("Config", (), {"image_size": 8, "pictures": 1})()

    def generate(self, images, prompts, n_new, allowed=None, eos=None, cache=True, temperature=0.,
                 uniform=None):
        self.asked.append((n_new, temperature, None if uniform is None else tuple(uniform.shape)))
        self.uniform = uniform
        out = torch.zeros(len(prompts), 0, dtype=torch.long)
        for t in range(n_new):
            may, column = allowed(out), []
            expect("shape and type of what allowed() returns", (tuple(may.shape), str(may.dtype)),
                   ((len(prompts), WORDS.n_vocab), "torch.bool"))
            for k, (script, row) in enumerate(zip(self.scripts, may)):
                expect(f"row {k}, new token {t}: how many tokens are allowed", row.sum(), "at least one",
                       holds=row.any())
                want = script[t] if t < len(script) else WORDS.eos
                column.append(want if row[want] else int(row.int().argmax()))
            out = torch.cat((out, torch.tensor(column)[:, None]), 1)
        return out


def policy(*scripts, thought_len=0, chunk=1):
    """a policy without a checkpoint; its actions mean their bins"""
    actions = ActionTokenizer(WORDS, [0, -1, -1], [1, 1, 1], names=("terminate", "x", "y"), n_bins=8)
    actions.decode = lambda ids: actions.bin_of[np.asarray(ids)].astype(np.float32)
    p = Policy.__new__(Policy)
    p.config, p.tokenizer = {"thought_len": thought_len}, WORDS
    p.device, p.model = torch.device("cpu"), Model(*scripts)
    p.robot, p.actions = Robot(actions, chunk), actions
    p.slots = torch.from_numpy(np.tile(actions.allowed, (chunk, 1)))
    p.dtype, p.cache, p.temperature = "float32", True, .5
    return p


def decide(p, n=1):
    picture = np.zeros((8, 8, 3), np.uint8)
    return p.decide([[picture]] * n, ["Q: x A:"] * n, [np.random.default_rng(i) for i in range(n)])


def bins(*numbers):
    return WORDS.encode("".join(f" {n}" for n in numbers))


@points(1, read="the docstring of slot")
def slot_counts_from_action_on():
    p, begin = policy(thought_len=5), WORDS.begin_action
    rows = torch.tensor([[9, 9, begin, 300, 301], [9, 9, 9, 9, 9], [begin, 300, 301, 302, 303]])
    expect("' Action:' is the third word, not there, the first; tokens behind it", p.slot(rows), [2, -1, 4])
    expect("where nothing has been said yet", p.slot(rows[:, :0]), [-1, -1, -1])
    expect("without thoughts the action begins at once", policy().slot(rows), [5, 5, 5])


@points(2, read="the docstring of decide: plain RT-2")
def without_thoughts_each_slot_has_its_own_bins():
    p = policy(bins(1, 3, 7), bins(5, 200, 2))
    answers, thoughts = decide(p, 2)
    expect("shape (B, chunk, D)", np.asarray(answers).shape, (2, 1, 3))
    expect("bins of the first row", answers[0, 0], [1, 3, 7])
    expect("bins of a row that wants to say 5, 200, 2 (5 is no terminate, 200 no bin of x: never sampled)",
           answers[1, 0], [0, 0, 2])
    expect("thoughts", list(thoughts), ["", ""])
    expect("new tokens, temperature, and shape of the draws", p.model.asked[0], (3, .5, (2, 3)))
    wanted = np.stack([np.random.default_rng(i).random(3, np.float32) for i in range(2)])
    expect("the draws of each row: of its own generator", p.model.uniform, wanted, off=1e-6)


@points(2, read="the docstring of decide: words until ' Action:'")
def a_thought_comes_before_the_action():
    say = WORDS.encode(" Plan: pick red can.")
    p = policy([*say, WORDS.begin_action, *bins(0, 4, 5)], [WORDS.begin_action, *bins(1, 6, 7)],
               thought_len=12)
    answers, thoughts = decide(p, 2)
    expect("thoughts", list(thoughts), [" Plan: pick red can.", ""])
    expect("the actions behind two thoughts of different length", answers[:, 0], [[0, 4, 5], [1, 6, 7]])


@points(2, read="the docstring of decide: at most thought_len tokens")
def who_never_stops_thinking_is_stopped():
    apple = WORDS.encode(" apple")[0]
    p = policy([apple] * 3 + [apple] + bins(1, 2, 3), [WORDS.eos] * 9, thought_len=3)
    answers, thoughts = decide(p, 2)
    expect("thought_len = 3: a thought that would go on", thoughts[0], " apple apple apple")
    expect("' Action:' is forced, then the bins follow", answers[0, 0], [1, 2, 3])
    expect("the thought of a row that wants <eos> at once", thoughts[1],
           "words: <eos> is not one of a thought",
           holds="<" not in thoughts[1])
    expect("shape of the answers", np.asarray(answers).shape, (2, 1, 3))


@points(1, read="chunk: an answer of several actions")
def an_answer_may_hold_several_actions():
    answers, _ = decide(policy(bins(0, 1, 2, 0, 3, 4, 1, 5, 6), chunk=3))
    expect("an answer of three actions", answers, [[[0, 1, 2], [0, 3, 4], [1, 5, 6]]])
