"""
How good a policy is on a robot log, where there is no loop to close: its actions on episodes that were not
trained on, beside what is right without any learning. `python eval.py` calls this for every robot whose log
does not know environments (eval.report).
"""
import numpy as np
from tqdm import tqdm

import data
from tokenizer import prompt


def evaluate(policy, log, hold_out, most=2000, quiet=False):
    """
    How far the policy's actions are from those of held-out episodes of a log (about `most` steps at most),
    beside what is right without any learning: the mean action of the training episodes, the action of the
    step before (which the policy is not told), and the action of the training step whose picture is nearest
    in pixels (16 x 16).

    Of an answer that holds several actions (chunk), the first is compared.

    Returns a dict; "drivers" has for each of them: "l1" by number, in the log's units; "scaled", the mean
    over the numbers but terminate of L1 / (width of its bounds), with a 95 % "interval" from resampling
    episodes; "less", the policy's median action (of 16 draws) minus it, paired by episode; "right", the
    share of its tokens that are the log's.
    """
    actions, rng = policy.actions, np.random.default_rng(0)
    frames, n_pictures = policy.config["frames"], policy.model.config.pictures
    shape = dict(text_len=policy.config["text_len"], size=policy.config["image_size"], frames=frames,
                 cameras=n_pictures // frames, thought_len=policy.config["thought_len"], hold_out=hold_out)
    known, test = (data.RobotData(log, policy.robot, held_out=h, **shape) for h in (False, True))
    index, basis = test.index, rng.permutation(known.index)[:20_000]
    if len(index) > most:                                   # whole episodes, by chance
        order = np.random.default_rng(1).permutation(np.unique(log.episode[index]))
        index = index[np.isin(log.episode[index], order[:max(2, len(order) * most // len(index))])]
    moves = np.array([name != "terminate" for name in actions.names])
    truth, episode = np.asarray(log.actions)[index], np.asarray(log.episode)[index]         # (n, D), (n,)
    pictures = {i: [data.fit(p, policy.config["image_size"]) for p in test.pictures(i)] for i in index}
    bar = tqdm(total=34, desc=f"held-out episodes of {policy.name}", unit="pass", disable=quiet)

    def act(temperature, blank=False, draw=0):
        kept, policy.temperature = policy.temperature, temperature
        prompts = {i: prompt(None) if blank else log.request(int(i), np.random.default_rng(0))[0]
                   for i in index}
        rows = [policy.decide([pictures[i] for i in part], [prompts[i] for i in part],
                              [np.random.default_rng([draw, i]) for i in part])[0][:, 0]
                for part in np.array_split(index, -(-len(index) // 64))]
        policy.temperature = kept
        bar.update()
        return np.concatenate(rows)                         # (n, D)

    def median(blank=False, n=16):      # of n draws, number by number: what the model knows, without noise
        rows = np.median([act(1.0, blank, draw) for draw in range(n)], axis=0)
        rows[:, ~moves] = rows[:, ~moves].round()
        return rows

    mean = np.where(moves, np.asarray(log.actions)[known.index].mean(0), 0)
    nearest = nearest_pictures(log, index, basis, n_pictures // frames)
    before = [np.asarray(log.actions[test.previous(i)]) if test.previous(i) != i else mean for i in index]
    guesses = {"policy": act(policy.temperature), "its likeliest action": act(0.0),
               "its median action": median(),
               "the same, blank instruction": median(blank=True),
               "mean action": np.tile(mean, (len(index), 1)),
               "action of the step before": np.stack(before),
               "nearest picture's action": np.asarray(log.actions)[nearest]}
    bar.close()
    draws = rng.integers(len(np.unique(episode)), size=(2000, len(np.unique(episode))))

    def interval(error):                            # of a mean over steps, when episodes are drawn anew
        parts = [error[episode == e] for e in np.unique(episode)]
        sums, sizes = np.array([p.sum() for p in parts]), np.array([len(p) for p in parts])
        return np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), (.025, .975)).tolist()
    width = actions.high - actions.low
    scaled = {who: (np.abs(a - truth) / width)[:, moves].mean(1) for who, a in guesses.items()}     # (n,)
    drivers = {}
    for who, a in guesses.items():
        right = actions.encode(a, quiet=True) == actions.encode(truth, quiet=True)
        drivers[who] = {"l1": dict(zip(actions.names, np.abs(a - truth).mean(0).tolist())),
                        "scaled": float(scaled[who].mean()),
                        "interval": interval(scaled[who]),
                        "less": interval(scaled["its median action"] - scaled[who]),
                        "right": float(right[:, moves].mean())}
    inside = truth.clip(actions.low, actions.high)
    off = np.abs(actions.decode(actions.encode(truth, quiet=True)) - inside) / width * actions.bins_of
    return {"robot": policy.name, "episodes": len(np.unique(episode)), "steps": len(index),
            "drivers": drivers,
            "replay": {"most_bins_off": float(off.max()), "clipped": float((inside != truth).mean())}}


def nearest_pictures(log, index, basis, cameras):
    """for each step of index the step of basis whose picture is nearest in pixels (16 x 16)"""
    def small(i):
        now = data.views(log.picture(i), cameras)
        return np.concatenate([data.fit(p, 16).astype(np.float32).ravel() for p in now])
    seen = np.stack([small(i) for i in basis])
    return [basis[((seen - small(i)) ** 2).sum(1).argmin()] for i in index]


def table(found) -> str:
    """the numbers of evaluate() as text"""
    numbers = list(next(iter(found["drivers"].values()))["l1"])
    lines = [f"{found['robot']}: {found['episodes']} held-out episodes, {found['steps']} steps; "
             "mean distance from the logged action, in the log's units;",
             "all = mean share of the bounds' width, 95 % interval over episodes; "
             "less = median action minus this, paired",
             f"{'':28}" + "".join(f"{n:>10}" for n in numbers)
             + f"{'all':>24}{'less':>20}{'tokens right':>14}"]
    for who, d in found["drivers"].items():
        low, high, less = *d["interval"], d["less"]
        lines.append(f"{who:28}" + "".join(f"{d['l1'][n]:10.4f}" for n in numbers)
                     + f"{d['scaled']:8.4f} [{low:.4f}, {high:.4f}]"
                     f"  [{less[0]:+.4f}, {less[1]:+.4f}]{100 * d['right']:11.0f} %")
    replay = found["replay"]
    lines.append("replay: logged actions, encoded and decoded, "
                 f"are at most {replay['most_bins_off']:.2f} bins off; "
                 f"{100 * replay['clipped']:.1f} % of the numbers are outside the bounds "
                 "(1st to 99th percentile): clipped")
    return "\n".join(lines)
