"""Assignment 6: close the loop, honestly (eval.py: rollouts, driver, wilson)"""
import math
from types import SimpleNamespace

import numpy as np

from course.grading import expect, points
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
        info = {} if self.silent else {"success": done and self.good, "outcome": f"seed {self.seed}"}
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
    envs, asked, watched, strangers = [Counter(2), Counter(5)], [], [], []

    def act(going, some, pictures):
        asked.append((list(going), [int(p[0, 0, 0]) for p in pictures]))
        strangers.append([envs.index(e) for e in some])
        return [np.array([0., 1.])] * len(going)
    results = rollouts(envs, [7, 8], act, lambda i, env: watched.append(i))
    expect("which environments are asked, step by step (the first ends after 2 steps, the second after 5)",
           [going for going, _ in asked], [[0, 1]] * 2 + [[1]] * 3)
    expect("which environments act() is given with them", strangers, [going for going, _ in asked])
    expect("the picture's brightness in each step (of that moment, not of the beginning)",
           [seen for _, seen in asked], [[7, 8], [201, 201], [202], [203], [204]])
    expect("steps of each result", [r["steps"] for r in results], [2, 5])
    expect("success of each", [r["success"] for r in results], [True, True])
    expect("terminated of each: a time limit is not a stop", [r["terminated"] for r in results],
           [False, False])
    expect("outcome of each, which stands in the last info", [r.get("outcome") for r in results],
           ["seed 7", "seed 8"])
    expect("calls of watch: before the first step and after each", [watched.count(0), watched.count(1)],
           [3, 6])


@points(2, read="the docstring of Line: success")
def success_is_what_the_world_says_at_the_end():
    def end(env, *action):
        return rollouts([env], [1], lambda *_: [np.array(action)])[0]
    result = end(Counter(), 1., 1.)
    expect("success and terminated, where the info says so", [result["success"], result["terminated"]],
           [True, True])
    expect("success of who stopped at the wrong place", end(Counter(), 1., 0.)["success"], False)
    expect("success without info, reward 1", end(Counter(silent=True), 1., 1.)["success"], True)
    expect("success without info, reward 0", end(Counter(silent=True), 1., 0.)["success"], False)


@points(2, read="the example in the docstring of wilson, and the handout")
def the_interval_is_wilsons():
    expect("wilson(180, 200)", wilson(180, 200), [.850, .934], off=.001)
    expect("wilson(0, 10)", wilson(0, 10), [0, .2775], off=.001)
    expect("wilson(10, 10)", wilson(10, 10), [.7225, 1], off=.001)
    ends = [wilson(0, 10)[0], wilson(10, 10)[1], wilson(0, 7)[0], wilson(7, 7)[1]]
    expect("bounds at 0 of 10, 10 of 10, 0 of 7 and 7 of 7", ends, "within 0 and 1",
           holds=all(0 <= x <= 1 for x in ends))
    expect("wilson(0, 0): nothing is known", wilson(0, 0), [0, 1], off=1e-9)
    expect("wilson(50, 100, z=2.576)", wilson(50, 100, z=2.576), [.3752, .6248], off=.001)


@points(3, read="the handout: blank and swapped instruction")
def each_driver_says_its_own_words():
    line = Line("x", Counter)
    for name, words in (("policy", prompt("count 3")), ("blank instruction", BLANK),
                        ("swapped instruction", prompt("do not count"))):
        policy, env = Listener(), Counter()
        env.reset(3)
        driver(name, policy, line, [3])([0], [env], [None])
        expect(f"{name}: what episode 3 is told", policy.told, [(3, words)])
        expect(f"{name}: seeds of the episodes", policy.seeds, [3])
    policy, envs = Listener(), [Counter() for _ in range(3)]
    for seed, env in enumerate(envs):
        env.reset(seed)
    driver("policy", policy, line, [0, 1, 2])([0, 2], [envs[0], envs[2]], [None] * 2)
    expect("the second of three has ended: episodes that are asked, each with its own words", policy.told,
           [(0, prompt("count 0")), (2, prompt("count 2"))])


@points(1, read="eval.py, driver: any bin of every number, but it stops with 5 %")
def random_is_random_and_stops_in_five_percent():
    seeds = list(range(3000))
    actions = np.asarray(driver("random", Listener(), Line("x", Counter), seeds)(seeds, [None] * 3000, None))
    expect("shape of the actions of 3000 trials", actions.shape, (3000, 2))
    stops, mean, spread = actions[:, 0].mean(), actions[:, 1].mean(), actions[:, 1].std()
    expect("share of steps in which it stops", stops, "about 0.05", holds=.03 < stops < .075)
    expect("mean and spread of a number from 0 to 1", [mean, spread],
           "about [0.5, 0.29]: any bin of every number",
           holds=abs(mean - .5) < .03 and spread > .25)
    again = driver("random", Listener(), Line("x", Counter), seeds[5:6])([0], [None], None)
    expect("trial 5 alone (wanted: as it was among 3000)", np.asarray(again)[0], actions[5], off=1e-6)


@points(1, read="eval.py: measure, which is given")
def the_whole_table():
    rows = measure(Listener(), [Line("x", Counter)], 10, quiet=True)
    found = {row["driver"]: (row["success"], row["n"]) for row in rows}
    wanted = {"policy": (10, 10), "expert": (10, 10), "swapped instruction": (5, 5)}
    expect("successes and trials", {name: found.get(name) for name in wanted}, wanted)
