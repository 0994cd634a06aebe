"""
Draws everything there is in the built-in world, as one picture: the skills, then each thing, card and face.

    python -m world world/world.png
"""
import argparse
import sys

import numpy as np
from PIL import Image

from world import draw
from world.scene import KINDS, SKILLS, World


def contact_sheet(size=112, columns=16):
    """A scene of each skill after six steps of the expert, then each thing, card and face: (H, W, 3) uint8"""
    close = draw.Camera(width=.2, target=(0, 0, .04))
    empty = draw.background(size, close)

    def alone(paint, *args, **kwargs):
        pixels = empty.copy()
        paint(pixels, close, *args, position=np.zeros(3), **kwargs)
        return (pixels.clip(0, 1) * 255 + .5).astype(np.uint8)

    scenes = []
    for seed, skill in enumerate(SKILLS):
        world = World("full", size=2 * size)
        world.reset(seed, skill)
        for _ in range(6):
            world.step(world.expert())
        scenes.append(world.render())
    colors = list(draw.COLORS.values())
    tiles = [alone(draw.draw_thing, noun, colors[i % 5] if KINDS[noun].colored else None, yaw=.5)
             for i, noun in enumerate(KINDS)]
    tiles += [alone(draw.draw_card, name) for name in draw.CARDS]
    tiles += [alone(draw.draw_face, dict(hair=hair, glasses=i % 2 == 0, hat=i == 3, beard=i in (1, 4)))
              for i, hair in enumerate(draw.HAIR)]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i:i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate([np.concatenate(scenes, 1), *rows])


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m world", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="the picture to write, a .png; one that is there is replaced")
    path = parser.parse_args(argv).file
    sheet = Image.fromarray(contact_sheet())
    try:
        sheet.save(path, optimize=True)
    except (ValueError, OSError) as e:                      # an unknown ending; no such folder
        sys.exit(f"error: {e}")
    print(f"wrote {path}: {sheet.width} x {sheet.height} pixels, {len(SKILLS)} skills, {len(KINDS)} things, "
          f"{len(draw.CARDS)} cards, {len(draw.HAIR)} faces")


if __name__ == "__main__":
    main()
