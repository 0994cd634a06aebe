"""Assignment 6: close the loop, honestly (eval.py: rollouts, driver, wilson)"""
import math
from types import SimpleNamespace

import numpy as np

from course.grading import points
from eval import BLANK, Line, driver, measure, rollouts, wilson
from tokenizer import prompt


class Counter:
    """ends by itself after `limit` steps, or when the action says stop; success: dx was 1 in every step"""

    def __init__(self, limit=4, silent=False):
        self.limit, self.silent, self.log = limit, silent, []

    def reset(self, seed):
        self.seed, self.steps, self.good, self.log, self.instruction = seed, 0, True, [], f"count {seed}"
        return {"image": np.full((2, 2, 3), seed % 200, np.uint8)}, {}

    def step(self, action):
        self.steps += 1
        self.log.append(float(action[1]))
        self.good &= action[1] == 1
        stop, late = bool(action[0] == 1), self.steps >= self.limit
        done = stop or late
        info = {} if self.silent else {"success": done and self.good}
        picture = np.full((2, 2, 3), 200 + self.steps, np.uint8)
        return {"image": picture}, float(done and self.good), stop, late, info

    def expert(self):
        return np.array([self.steps >= 2, 1.])

    def swapped(self):
        return "do not count" if self.seed % 2 else None


class Listener:
    """a policy that writes down what it is told, and stops at once"""

    def __init__(self):
        self.told, self.seeds = [], []
        self.actions = SimpleNamespace(bins_of=np.array([2, 256]),
                                       centres=lambda bins: (np.asarray(bins) + .5) / 256)

    def episode(self, seed=None):
        self.seeds.append(seed)
        return seed

    def act(self, episodes, pictures, prompts):
        self.told += list(zip(episodes, prompts))
        return np.array([[1., 1.]] * len(episodes))


@points(3, read="the docstring of rollouts")
def every_environment_runs_to_its_own_end():
    envs, asked, watched = [Counter(2), Counter(5)], [], []

    def act(going, some, pictures):
        asked.append((list(going), [int(p[0, 0, 0]) for p in pictures]))
        assert [envs.index(e) for e in some] == list(going)
        return [np.array([0., 1.])] * len(going)
    results = rollouts(envs, [7, 8], act, lambda i, env: watched.append(i))
    assert [going for going, _ in asked] == [[0, 1]] * 2 + [[1]] * 3, \
        "who has ended must not be asked, or stepped, again"
    assert asked[0][1] == [7, 8] and asked[1][1] == [201, 201], "act() sees the picture of this moment"
    assert [r["steps"] for r in results] == [2, 5] and all(r["success"] for r in results)
    assert [r["terminated"] for r in results] == [False, False], "a time limit is not a stop"
    assert watched.count(0) == 3 and watched.count(1) == 6, "watch: before the first step and after each"


@points(2, read="the docstring of Line: success")
def success_is_what_the_world_says_at_the_end():
    stop = [np.array([1., 1.])]
    assert rollouts([Counter()], [1], lambda *_: stop)[0]["success"] is True
    assert rollouts([Counter()], [1], lambda *_: stop)[0]["terminated"] is True
    assert rollouts([Counter()], [1], lambda *_: [np.array([1., 0.])])[0]["success"] is False, \
        "to have stopped is not success"
    assert rollouts([Counter(silent=True)], [1], lambda *_: stop)[0]["success"] is True, \
        "no info: a reward above 0"


@points(2, read="the example in the docstring of wilson, and the handout")
def the_interval_is_wilsons():
    low, high = wilson(180, 200)
    assert abs(low - .850) < .001 and abs(high - .934) < .001, f"wilson(180, 200) gave {low:.3f}, {high:.3f}"
    low, high = wilson(0, 10)
    assert low == 0 and abs(high - .2775) < .001, f"0 of 10 is compatible with 28 %, not only with {high:.0%}"
    low, high = wilson(10, 10)
    assert abs(low - .7225) < .001 and high == 1
    assert tuple(wilson(0, 0)) == (0, 1), "no trial: nothing is known"
    wide, narrow = wilson(50, 100, z=2.576), wilson(50, 100)
    assert wide[0] < narrow[0] and not math.isclose(wide[0], narrow[0]), "z is used"


@points(3, read="the handout: blank and swapped instruction")
def each_driver_says_its_own_words():
    line, told = Line("x", Counter), {}
    for name in ("policy", "blank instruction", "swapped instruction"):
        policy = Listener()
        env = Counter()
        env.reset(3)
        driver(name, policy, line, [3])([0], [env], [None])
        told[name] = policy.told
        assert policy.seeds == [3], "an episode has the draws of its own seed"
    assert told["policy"] == [(3, prompt("count 3"))], told["policy"]
    assert told["blank instruction"] == [(3, BLANK)], told["blank instruction"]
    assert told["swapped instruction"] == [(3, prompt("do not count"))], told["swapped instruction"]
    policy = Listener()
    envs = [Counter() for _ in range(3)]
    for seed, env in enumerate(envs):
        env.reset(seed)
    driver("policy", policy, line, [0, 1, 2])([0, 2], [envs[0], envs[2]], [None] * 2)
    assert [seed for seed, _ in policy.told] == [0, 2], \
        "the second of three has ended: the third keeps its own episode"


@points(1, read="eval.py, driver: any bin of every number, but it stops with 5 %")
def random_is_random_and_stops_in_five_percent():
    seeds = list(range(3000))
    actions = np.asarray(driver("random", Listener(), Line("x", Counter), seeds)(seeds, [None] * 3000, None))
    assert actions.shape == (3000, 2)
    assert .03 < actions[:, 0].mean() < .075, f"it stops in {actions[:, 0].mean():.0%} of steps"
    assert abs(actions[:, 1].mean() - .5) < .03 and actions[:, 1].std() > .25, "any bin of every number"
    again = driver("random", Listener(), Line("x", Counter), seeds[5:6])([0], [None], None)
    assert np.allclose(again[0], actions[5]), "a trial has draws of its own, whoever stands beside it"


@points(1, read="eval.py: measure, which is given")
def the_whole_table():
    rows = measure(Listener(), [Line("x", Counter)], 10, quiet=True)
    found = {row["driver"]: (row["success"], row["n"]) for row in rows}
    wanted = {"policy": (10, 10), "expert": (10, 10), "swapped instruction": (5, 5)}
    assert found.items() >= wanted.items(), found
