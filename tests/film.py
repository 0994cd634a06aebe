"""
Films the playground in a real Chromium, for the README.

    python -m tests.film world/play.gif --checkpoint out/checkpoint.pt

writes play.gif, an instruction from its first letter to success, and play.png, the whole page in the middle of it. Of
the seeds it takes the first that ends in success within a few steps. The film has a time of its own: each time the page
wants to sleep, a frame is taken, so a slow machine makes the same film.
"""
import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.browser import Browser

WIDTH, HEIGHT, SCALE, MOST_BYTES, MOST_STEPS = 1120, 880, .8, 1_000_000, 16
FAVOURITES = ("emergent: sums", "emergent: symbols", "seen: move near")        # the first of them that there is


def palette_of(picture, n):
    """n colours, as a picture that has them: two thirds for what covers much, a third for what is seldom, as a green cup"""
    methods = {Image.Quantize.MEDIANCUT: n - n // 3, Image.Quantize.MAXCOVERAGE: n // 3}
    found = Image.new("P", (1, 1))
    found.putpalette([c for method, k in methods.items() for c in picture.quantize(k, method).getpalette()[:3 * k]])
    return found


class Film:
    def __init__(self, page):
        self.page, self.frames = page, []

    def frame(self, ms):
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": SCALE}
        picture = Image.open(io.BytesIO(self.page.picture(clip=clip))).convert("RGB")
        self.frames.append((picture, ms))

    def save(self, path):
        """with as many colours as keep it small"""
        pictures, times = zip(*self.frames)
        sample = Image.new("RGB", (pictures[0].width, 3 * pictures[0].height))
        for i, picture in enumerate((pictures[0], pictures[len(pictures) // 2], pictures[-1])):
            sample.paste(picture, (0, i * picture.height))
        for colours in (240, 180, 120, 90, 60):
            palette = palette_of(sample, colours)
            few = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
            few[0].save(path, save_all=True, append_images=few[1:], duration=times, loop=0, optimize=True, disposal=1)
            if path.stat().st_size < MOST_BYTES:
                break
        print(f"wrote {path}: {len(few)} frames of {few[0].width} x {few[0].height}, {sum(times) / 1000:.0f} s, {colours} colours, "
              f"{path.stat().st_size / 1000:.0f} KB")


def rehearse(page, line, seed):
    """does this scene end in success soon? Without frames"""
    page.js(f"setTimeout = real; $('line').value = {line!r}; $('speed').value = 4; rehearsed = false; "
            f"scene({seed}).then(() => run({MOST_STEPS})).then(() => rehearsed = true); 0")
    page.wait("rehearsed", seconds=600)
    print(f"{line}, seed {seed}: {page.js('state.text')}: {page.js('state.outcome?.text') or 'it takes long'}", flush=True)
    return page.js("!!state.outcome?.success")


def take(page):
    """a Film of the scene that stands there, and whether it ended in success"""
    page.js("change('again').then(() => { setTimeout = (wake, ms) => sleeping.push(wake) })")
    film, words = Film(page), page.js("state.text")
    page.type("#text", "")
    page.key("Delete")
    film.frame(800)
    for i in range(0, len(words), 2):
        page.send("Input.insertText", text=words[i:i + 2])
        film.frame(70)
    page.key("Enter", "\r")
    page.js("queue.then(() => 0)")
    film.frame(700)
    page.js(f"$('speed').value = 1; run({MOST_STEPS}); 0")
    while True:
        page.wait("sleeping.length || !busy", seconds=600)
        if not page.js("busy"):
            break
        steps, waiting = page.js("state.steps"), page.js("sleeping.length")
        film.frame({1: 200, 2: 90}.get(steps, 450))
        # the first two steps token by token, the others at once
        page.js(f"$('speed').value = {2 if steps < 2 else 3}; sleeping.splice(0, {waiting}).forEach(wake => wake()); 0")
    film.frame(3500)
    return film, page.js("!!state.outcome?.success")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gif", type=Path)
    parser.add_argument("--checkpoint", default="out/checkpoint.pt")
    parser.add_argument("--line", help="sort of scene, as the page lists them")
    parser.add_argument("--seed", type=int, default=0, help="the first seed to try")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("error: no Chromium here (apt-get install chromium)")
    server = subprocess.Popen([sys.executable, "-m", "world.play", "--checkpoint", args.checkpoint, "--port", "0", "--no-browser"],
                              stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split(" is ")[0]
        if not url:
            sys.exit("error: the playground did not start")
        with Browser(chromium) as browser:
            page = browser.page(url, WIDTH, HEIGHT)
            page.wait("state.session")
            page.js("real = setTimeout; sleeping = []; 0")
            line = args.line or next((name for name in FAVOURITES if name in page.js("state.lines")), page.js("state.line"))
            for seed in range(args.seed, args.seed + 30):
                film, success = take(page) if rehearse(page, line, seed) else (None, False)
                if success:                                 # the draws are others than in the rehearsal
                    break
            else:
                sys.exit("error: no seed ends in success; try another --line")
            film.save(args.gif)
            page.look(1280, 900)
            page.js("setTimeout = real; $('speed').value = 4; change('again').then(() => run(3))")
            shot = Image.open(io.BytesIO(page.picture()))
            shot = shot.convert("RGB")
            shot.quantize(palette=palette_of(shot, 256), dither=Image.Dither.NONE).save(args.gif.with_suffix(".png"), optimize=True)
            print(f"wrote {args.gif.with_suffix('.png')}: {shot.width} x {shot.height}")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
