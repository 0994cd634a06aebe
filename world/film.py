"""
Pictures of trials, in this world or in any other simulator: tiles with a title and an outcome, sheets of
them, and a film of whole episodes.

    film(policy, lines, "out")          out/rollouts.gif and out/rollouts.png: eight trials of the lines
    film_of("out/checkpoint.pt")        the same for a checkpoint, if its robot's log knows environments
"""
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import data


def tile(picture, size, title, caption="", color="black", rows=1):
    """
    (H, W, 3) uint8 as an image of width size, with its title above, in so many rows, and a caption under that
    """
    top, canvas = 12 * rows + 2, Image.new("RGB", (size, size + 12 * rows + 16), "white")
    canvas.paste(Image.fromarray(picture).resize((size, size), Image.LANCZOS), (0, top + 14))
    text = ImageDraw.Draw(canvas)
    for i, words in enumerate(textwrap.wrap(title, max(1, size // 6) if rows > 1 else 1000)[:rows]):
        text.text((4, 2 + 12 * i), words, fill="black")
    text.text((4, top), caption, fill=color)
    return canvas


def paste(tiles, columns):
    """tiles of one size as one picture, row by row"""
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for i, t in enumerate(tiles):
        sheet.paste(t, (i % columns * width, i // columns * height))
    return sheet


def film(policy, lines, folder, n=8, size=160):
    """rollouts.gif and rollouts.png: n trials, the lines in turn, with instruction and outcome"""
    import eval as evaluation                                   # it opens this file, and so does train.py
    lines = [lines[i % len(lines)] for i in range(n)]
    envs, frames, results = [line.make() for line in lines], [[] for _ in lines], []
    for i, (line, env) in enumerate(zip(lines, envs)):      # one after the other: they may share a simulator
        seeds = [evaluation.TRIAL_SEED + i]
        result, = evaluation.rollouts([env], seeds, evaluation.driver("policy", policy, line, seeds),
                           lambda _, env, i=i: frames[i].append((env.render(), env.instruction)))
        results.append(result)

    def at(i, t):
        last = len(frames[i]) - 1
        won = results[i]["success"]
        end = ("success" if won else results[i].get("outcome") or "failure") if t >= last else ""
        return tile(frames[i][min(t, last)][0], size, frames[i][0][1], end, "green" if won else "red")
    length = max(map(len, frames))
    sheets = [paste([at(i, t) for i in range(n)], 4)
              .quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
              for t in list(range(length)) + [length - 1] * 4]
    sheets[0].save(Path(folder) / "rollouts.gif", save_all=True, append_images=sheets[1:], duration=300,
                   loop=0)
    moments = [at(i, int(t)) for i in range(n) for t in np.linspace(0, len(frames[i]) - 1, 6).round()]
    paste(moments, 6).save(Path(folder) / "rollouts.png")


def film_of(checkpoint, device="auto"):
    """
    rollouts.gif and rollouts.png beside a checkpoint, if its robots' logs know environments to draw. Trouble
    is a line, because no run should die of its picture.
    """
    import eval as evaluation
    import train
    config = train.load(checkpoint)["config"]
    for settings in (data.settings_of("robot", table) for table in config["robot"]):
        lines = evaluation.lines_of(settings, config)
        try:
            if lines and hasattr(lines[0].make(), "render"):
                policy = evaluation.Policy(checkpoint, device, robot=settings["name"])
                film(policy, lines, Path(checkpoint).parent)
        except Exception as e:                  # a simulator without a screen, a full disk: many kinds
            print(f"no rollouts.gif ({type(e).__name__}: {e})")
