"""
What goes on inside one decision: which tokens were read, what was said, how likely the rivals were, and where
each token looked.

    action, seen = decide(policy, episode, picture, prompt("pick apple"))
    seen["tokens"][1] -> {"text": " 192", "kind": "action", "name": "dx", "bin": 192, "value": 0.0403,
                          "chance": 0.93, "rivals": [[" 192", 0.93, 192, 0.0403], ...], "allowed": 0.9998}

    python -m world.inside "pick apple" --seed 7        the same as one picture, attention.png

Attention says from where a token took information. It does not say that the information decided anything:
the values that are taken may be small, and later layers may ignore them. Whether the words decide is what
the blank and the swapped instruction show.
"""
import argparse
import contextlib
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data import settings_of
from tokenizer import prompt
from world import trials
from world.chips import understand
from world.film import paste, tile
from world.scene import VOCABULARIES

TRAINED, IN_THE_BOX = Path("out/checkpoint.pt"), Path(__file__).parents[1] / "study/cofine/checkpoint.pt"


@contextlib.contextmanager
def watching(model):
    """
    While it lasts, model.generate() leaves behind what it computes. Yields two lists: (logits, masked logits,
    choice) of each new token; and for each layer of the GPT a list with the attention (B, H, T, T') of each
    pass.
    """
    layers = [block.attn for block in model.blocks]
    for part in (model, *layers):
        part.watch = []
    try:
        yield model.watch, [layer.watch for layer in layers]
    finally:
        for part in (model, *layers):
            part.watch = None


def decide(policy, episode, picture, text):
    """
    One step of an episode: action (D,), and how it came about. text: the whole prompt. That is None where an
    earlier answer still had an action to carry out; else a dict that JSON can hold:

        prompt      the tokens that were read, as text
        tokens      a dict for each token that was said: "text", "kind" (thought, begin or action), "chance"
                    with which it was drawn, "allowed": how much of the model's own probability the allowed
                    tokens have, "rivals": the five likeliest and itself, as [text, chance]. Of an action also
                    "name", "bin" and "value", and its rivals are [text, chance, bin, value]
        looks       for each token a list over layers, over heads, over positions: attention in thousandths.
                    The positions are n_image picture tokens, the prompt, and what was said before it
        thought     what was said before the action
        grid        picture tokens a side of one picture; n_image of all pictures
    """
    with watching(policy.model) as (said, layers):
        action = policy.act([episode], [picture], [text])[0]
    if not said:
        return action, None
    tok, config = policy.tokenizer, policy.model.config
    ids = [int(choice) for _, _, choice in said]
    n = ids.index(tok.eos) if tok.eos in ids else len(ids)
    begun = ids.index(tok.begin_action) if policy.config["thought_len"] else -1
    tokens = [{**odds(policy, *said[t][:2], ids[t], t - begun - 1),
               "kind": "thought" if t < begun else "begin" if t == begun else "action"} for t in range(n)]
    looks = [[(1000 * layer[t][0, :, -1]).round().int().tolist() for layer in layers] for t in range(n)]
    return action, {"prompt": [tok.decode([i]) for i in tok.encode(text)], "tokens": tokens, "looks": looks,
                    "thought": episode.thought, "n_image": config.n_image,
                    "grid": config.image_size // (2 * config.patch_size)}


def odds(policy, logits, masked, choice, slot):
    """one token of decide(); logits and masked (1, n_vocab); slot: of the answer, below 0: none"""
    logits, masked = logits[0].cpu().double(), masked[0].cpu().double()
    chances = torch.softmax(masked / (policy.temperature or 1), -1)
    allowed = torch.softmax(logits, -1)[masked.isfinite()].sum()
    actions, d = policy.actions, slot % len(policy.actions.names)

    def tell(i):
        found = [policy.tokenizer.decode([i]), round(chances[i].item(), 6)]
        if slot >= 0:
            b = int(actions.bin_of[i])
            found += [b, round(float(actions.centres(np.minimum(b, actions.bins_of - 1))[d]), 4)]
        return found
    top = chances.topk(min(5, int(masked.isfinite().sum()))).indices.tolist()
    top += [choice] * (choice not in top)
    text, chance, *number = tell(choice)
    return {"text": text, "chance": chance, "allowed": round(allowed.item(), 4),
            "rivals": list(map(tell, top)),
            **({"name": actions.names[d], "bin": number[0], "value": number[1]} if number else {})}


# ----------------------------------------------------------------------------------------------------------
# the same as a picture

def find_scene(settings, instruction, seed, tries=1000):
    """the World of the first trial from this seed on whose table has what the instruction names; its seed"""
    skills, plain = settings["skills"], [s for s in settings["skills"] if s in ("pick", "move near")]
    names = VOCABULARIES[settings["vocabulary"]]
    pools = {"robot": skills, **{pool: plain for pool in ("web", "pairs") if plain and len(names[pool]) > 1}}
    for pool, skills in pools.items():
        how = trials.plain(skills, pool, days=settings["days"])
        trial = trials.Trial(settings["vocabulary"], settings["skills"], 0, how)    # 0: it draws nothing
        for s in range(seed, seed + tries):
            trial.reset(s)
            if understand(trial.world, instruction).skill:
                return trial.world, s
    raise ValueError(f"no scene of this world has what {instruction!r} names; say it plainly, as in "
                     "\"pick apple\"")


def heat(picture, look, grid, size):
    """
    A picture (S, S, 3) uint8, and what part of the attention each of its grid * grid tokens gets (any scale)
    -> (size, size, 3) uint8: bright where it looks, dark elsewhere.
    """
    look = np.array(look, float).reshape(grid, grid) / max(1e-9, max(look))
    light = np.asarray(Image.fromarray((255 * look).astype(np.uint8)).resize((size, size), Image.NEAREST))
    pixels = np.asarray(Image.fromarray(picture).resize((size, size), Image.NEAREST))
    return (pixels * (.15 + .85 * light[..., None] / 255)).astype(np.uint8)


def attention_picture(checkpoint, instruction, seed, folder, device="auto", size=200):
    """
    attention.png in folder: the scene of trial number seed, or the next that has what the
    instruction names, and for each token of the answer where it looks: a row for the mean over layers and
    heads, and one for each layer.
    """
    from eval import TRIAL_SEED
    policy, settings = world_policy(checkpoint, device)
    world, seed = find_scene(settings, instruction, TRIAL_SEED + seed)
    picture, scene = world.render(policy.model.config.image_size), world.render(size)
    _, seen = decide(policy, policy.episode(seed), picture, prompt(instruction))
    n, cells, tiles = seen["n_image"], seen["grid"] ** 2, []
    for row in range(1 + len(seen["looks"][0])):
        title = f"layer {row}" if row else "mean of all layers"
        tiles.append(tile(scene, size, instruction, title))
        for token, look in zip(seen["tokens"], seen["looks"]):
            look = np.mean(look if row == 0 else look[row - 1:row], axis=(0, 1))                # (positions,)
            words = f"{token.get('name', token['kind'])}: {token['text']} ({token['chance']:.0%})"
            told = f"{look[:n].sum() / look.sum():.0%} at the picture"
            tiles.append(tile(heat(picture, look[n - cells:n], seen["grid"], size), size, words, told))
    path = Path(folder) / "attention.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    paste(tiles, 1 + len(seen["tokens"])).save(path, optimize=True)
    print(f"wrote {path}: {instruction!r} in the scene of --seed {seed - TRIAL_SEED}; bright: where a token "
          "looked.\nThat says from where it took information, not that this decided anything.")


def world_policy(checkpoint, device="auto"):
    """a Policy for the built-in world's robot, and the settings of its [[robot]] table"""
    from eval import Policy                                      # drawing the world needs no policy
    from train import load
    for table in load(checkpoint)["config"]["robot"]:
        if table["format"] == "world":
            settings = settings_of("robot", table)
            return Policy(checkpoint, device, robot=settings["name"]), settings
    raise ValueError(f"{checkpoint} has not learnt to act in the built-in world")


def at_hand():
    """the checkpoint where none is named: the one that was trained here, or before that the one in the box"""
    return TRAINED if TRAINED.exists() or not IN_THE_BOX.exists() else IN_THE_BOX


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m world.inside", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instruction", help="the scene is one whose table has what it names")
    parser.add_argument("--checkpoint", help="out/checkpoint.pt, or before that study/cofine/checkpoint.pt; "
                        "attention.png comes beside it (of the one in the box: in out)", default=at_hand())
    parser.add_argument("--seed", type=int, default=0, help="of the scene")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    try:
        folder = "out" if Path(args.checkpoint).resolve() == IN_THE_BOX else Path(args.checkpoint).parent
        attention_picture(args.checkpoint, args.instruction, args.seed, folder, args.device)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
