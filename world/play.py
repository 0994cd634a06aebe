"""
A playground in the browser: type an instruction, watch the arm, and see how it came about.

    python -m world.play                                    # the weights of out/checkpoint.pt
    python -m world.play --checkpoint out/checkpoint.pt --port 8010 --no-browser

Before you have trained, it takes study/cofine/checkpoint.pt, which comes with the project. The page is
world/play.html, without a build step; this file serves it. The server listens on 127.0.0.1 alone and answers
only requests that name this machine (127.0.0.1 or localhost) and that come from its own page. So no other
page in the browser can use it, not even one whose host name was made to point here (DNS rebinding).

GET / is the page. POST /api takes {"do": "open" or one of PAGE_MAY, "session": id, ...arguments} and answers
with the state of that session, or with {"error": what is wrong, in words}.
"""
import argparse
import base64
import contextlib
import copy
import functools
import io
import json
import re
import secrets
import sys
import threading
import traceback
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tokenizer import prompt, wish
from world import draw, inside, trials
from world.chips import Chip, chips, understand
from world.scene import MAX_STEPS, Thing, person

PAGE = Path(__file__).with_name("play.html")
PAGE_MAY = ("tell", "again", "step", "add", "move", "remove")       # methods of Session
FIRST_SEED = 1_000_000                  # scenes that no training run has seen begin here (eval.TRIAL_SEED)
SIZE, MOST_THINGS, MOST_SESSIONS, MOST_BYTES = 448, 8, 64, 1 << 16


def image_url(pixels, kind="PNG", **settings):
    """(S, S, 3) uint8 as a data: URL"""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **settings)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(data.getvalue()).decode()


def scene_lines(policy, settings):
    """sorts of scenes, name -> function that makes a Trial: the lines of eval.py and of the paper's tables"""
    found = {name: make for name, make, _ in trials.lines(settings, policy.model.config.image_size)}
    with contextlib.suppress(ImportError):              # study/ may be deleted
        from study.suites import suites
        found.update({f"{line.table}: {line.name}": line.make for line in suites(policy.config)
                      if line.name != "seen"})
    return found


def things_of(names):
    """
    What may be put on the table: group -> name -> face (None of things that are no person). A person is told
    by the hair and one thing that is worn. names: of scene.VOCABULARIES
    """
    people = {f"{hair} hair, {worn or 'nothing worn'}":
              {"hair": hair, **{w: w == worn for w in ("glasses", "hat", "beard")}}
              for hair in names["hair"] for worn in (None, *names["wears"])}
    groups = {"the robot knows": dict.fromkeys((*names["robot"], *names["mats"])),
              "only the web names": dict.fromkeys((*names["pairs"], *names["web"])),
              "cards": dict.fromkeys(names["cards"]), "people": people}
    return {group: found for group, found in groups.items() if found}


class Session:
    """
    One page: a scene, what is said to the robot, and an episode. ValueError says in words what does not go.
    """

    def __init__(self, policy, settings, lines, line="", seed=0):
        """a new scene with its own instruction; line: of scene_lines"""
        line = line or next(iter(lines))
        if line not in lines or type(seed) is not int or not 0 <= seed < 2 ** 30:
            raise ValueError("a scene has a sort from the list, and a seed from 0 to a billion")
        self.policy, self.wishes, self.line, self.seed = policy, settings["wishes"], line, seed
        self.trial, self.attempt = lines[line](), 0
        self.trial.reset(FIRST_SEED + seed)
        task, group = self.world.task, "wish" if line.startswith("thought:") else "the task"
        self.own = Chip(group, task.instruction, task, self.world.strict, tuple(self.world.movers))
        self.begin(self.own)

    @property
    def world(self):
        return self.trial.world

    # -- what a page may ask for ---------------------------------------------------------------------------

    def tell(self, text):
        """a new instruction, in the scene as it stands"""
        self.begin(self.chips.get(str(text)) or Chip("typed", str(text), understand(self.world, str(text))))

    def again(self, words=None):
        """back to where the episode began; the draws are others. words: as of begin"""
        now = self.trial, self.own, self.chip, self.start
        if self.start:
            (self.trial, self.own, self.chip), self.start = self.start, None
        try:
            self.begin(self.chip, words or self.words)
        except ValueError:                              # then the episode goes on as it was
            self.trial, self.own, self.chip, self.start = now
            raise

    def step(self):
        """one action of the policy, and how it came about"""
        if self.outcome:
            raise ValueError("the episode is over; begin again, or say something else")
        if not self.start:                              # together, as a chip's task names things of the trial
            self.start = copy.deepcopy((self.trial, self.own, self.chip))
        picture = self.world.render()
        action, seen = inside.decide(self.policy, self.episode, picture, self.read)
        _, reward, terminated, truncated, info = self.trial.step(action)
        if terminated or truncated:
            self.outcome = {"success": bool(reward), "text": "success" if reward else info["outcome"]}
            if not self.chip.task.skill:
                ended = "it stopped" if terminated else "it never stopped"
                self.outcome = {"success": None, "text": f"{ended}; nobody here can judge this instruction"}
        return {"inside": seen and {**seen, "picture": image_url(picture)}}

    def add(self, name, column, row):
        """put a thing on the table where the page was clicked; columns and rows run from 0 to 1"""
        if len(self.world.things) >= MOST_THINGS:
            raise ValueError(f"the table is full: at most {MOST_THINGS} things")
        faces = {n: face for group in things_of(self.world.names).values() for n, face in group.items()}
        if name not in faces:
            raise ValueError("this is not in the list of things")
        thing = Thing(person(faces[name]) if faces[name] else name, np.zeros(3), face=faces[name])
        if any(t.name == thing.name for t in self.world.things):
            raise ValueError(f"there is one on the table already, and {thing.name!r} would mean both")
        thing.yaw = np.pi / 2 if thing.kind.long else 0.0
        self.place(thing, column, row)
        self.world.things.append(thing)
        self.edited()

    def move(self, thing, column, row):
        """drag thing number so and so"""
        self.place(self.thing(thing), column, row)
        self.edited()

    def remove(self, thing):
        """take it away"""
        thing = self.thing(thing)
        self.world.things.remove(thing)
        for other in self.world.things:
            other.inside = None if other.inside is thing else other.inside
        self.edited()

    # -- how it is done ------------------------------------------------------------------------------------

    def begin(self, chip, words="told"):
        """
        An episode of this instruction, in the scene as it stands. words: told, or one of the controls, blank
        or swapped, under which the robot reads something else while success means the same.
        """
        reads = self.reads(chip)
        if not reads.get(words):
            raise ValueError("nothing else can be asked for in this scene")
        policy, thought = self.policy, self.policy.config["thought_len"]
        n = len(policy.tokenizer.encode(reads[words]))
        room = policy.model.config.max_text - len(policy.slots) - (thought + 1 if thought else 0)
        if n > room:
            raise ValueError(f"the instruction is too long: {n} tokens, and the model reads {room}")
        chip.put(self.world)
        self.chip, self.words, self.read, self.can_swap = chip, words, reads[words], bool(reads["swapped"])
        self.world.steps, self.world.taken, self.outcome, self.start = 0, [], None, None
        self.attempt += 1
        self.episode = policy.episode([self.seed, self.attempt])
        found = (self.own, *chips(self.world, np.random.default_rng(self.seed)), chip)
        self.chips = {}                                 # text -> what the scene allows: its own comes first
        for chip in found:
            if chip.task.skill and self.is_there(chip):
                self.chips.setdefault(chip.text, chip)

    def reads(self, chip):
        """the prompt that the robot reads, as told and under the controls; None if there is no such thing"""
        as_prompt = wish if chip.group == "wish" and self.wishes else prompt
        before, self.world.task = self.world.task, chip.task
        swapped = self.trial.swapped() if chip.task.skill else None
        self.world.task = before
        return {"told": as_prompt(chip.text), "blank": prompt(None),
                "swapped": swapped and as_prompt(swapped)}

    def is_there(self, chip):
        return {chip.task.a, chip.task.b} <= {*self.world.things, None, "drawer"}

    def edited(self):
        """what was told may mean something else now, and what follows is an episode of its own"""
        chip = self.chip
        if not self.is_there(chip):
            chip = Chip("typed", chip.text, understand(self.world, chip.text))
        self.begin(chip, self.words if self.reads(chip)[self.words] else "told")

    def thing(self, n):
        if type(n) is not int or not 0 <= n < len(self.world.things):
            raise ValueError("there is no such thing on the table")
        if self.world.held is self.world.things[n]:
            raise ValueError("the hand holds it")
        return self.world.things[n]

    def place(self, thing, column, row):
        """set it down where it is seen at this column and row, with what is in it"""
        world = self.world
        if not all(type(x) in (int, float) and 0 <= x <= 1 for x in (column, row)):
            raise ValueError("this is not in the picture")
        x, y = map(float, world.camera.on_table(np.array(column), np.array(row), thing.kind.height / 2))
        if max(abs(x), abs(y)) > .19 or world.opening is not None and x > .03:
            raise ValueError("this is too far: the hand does not reach there")
        for t in world.things:
            gap = t.kind.radius + thing.kind.radius
            if t is not thing and t.inside is None and np.hypot(*(t.centre[:2] - (x, y))) < gap:
                raise ValueError(f"there is no room: {t.name} is in the way")
        old, thing.inside = thing.position, None
        thing.set_down(x, y)
        world.shift_contents(thing, old)

    def state(self):
        """what the page shows"""
        world, facts = self.world, self.world.facts()
        return {"picture": image_url(world.render(SIZE), "JPEG", quality=92, subsampling=0),
                "things": [{"name": f["name"], "column": f["column"], "row": f["row"],
                            "radius": round(2 * t.kind.radius, 3)} for t, f in zip(world.things, facts)],
                "held": facts[-1]["held"], "steps": world.steps, "most": MAX_STEPS, "line": self.line,
                "seed": self.seed, "text": self.chip.text, "read": self.read, "words": self.words,
                "judged": bool(self.chip.task.skill), "can_swap": self.can_swap, "outcome": self.outcome,
                "chips": [[c.group, c.text] for c in self.chips.values()]}


class Server(ThreadingHTTPServer):
    """
    The page and all its sessions, on 127.0.0.1 alone; port 0 takes a free one. Call its serve_forever(). One
    lock: the model has one set of lists to watch it (world/inside.py).
    """
    request_queue_size, daemon_threads = 128, True

    def __init__(self, checkpoint, port=8010, device="auto"):
        self.policy, self.settings = inside.world_policy(checkpoint, device)
        self.lines = scene_lines(self.policy, self.settings)
        self.sessions, self.lock = {}, threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as e:
            raise ValueError(f"port {port} cannot be used ({e}); give another --port") from None

    def handle_error(self, request, address):
        if not isinstance(sys.exc_info()[1], OSError):              # a page that was closed is no error
            super().handle_error(request, address)

    def api(self, asked):
        """a request of the page, as a dict -> the answer, as a dict; nothing that is asked ends the server"""
        try:
            with self.lock:
                return self.answer(**asked)
        except (ValueError, TypeError) as e:            # TypeError: other arguments than a method has
            return {"error": str(e)[:300]}
        except Exception as e:                          # a mistake of ours: the page says so, and lives on
            traceback.print_exc()
            return {"error": f"the server made a mistake ({type(e).__name__}); its terminal says where"}

    def answer(self, do=None, session=None, **arguments):
        if do == "open":                                # a scene, for a new page or for one that is known
            name = session if session in self.sessions else secrets.token_hex(8)
            page = Session(self.policy, self.settings, self.lines, **arguments)
            n, size = self.policy.model.n_weights(), self.policy.model.config.image_size
            found = {"session": name, "lines": list(self.lines),
                     "things_to_put": {g: list(found) for g, found in things_of(page.world.names).items()},
                     "about": f"The model has {n / 1e6:.1f} M weights and sees {size} x {size} pixels. "
                              f"Its skills: {', '.join(self.settings['skills'])}."}
        elif session not in self.sessions:
            return {"error": "the server does not know this page any more", "gone": True}
        elif do not in PAGE_MAY:
            return {"error": f"the server cannot do {str(do)[:40]!r}"}
        else:
            name, page = session, self.sessions[session]
            found = getattr(page, do)(**arguments) or {}
        self.sessions.pop(name, None)                   # now the most recent one
        self.sessions[name] = page
        if len(self.sessions) > MOST_SESSIONS:          # the one that was idle for longest
            del self.sessions[next(iter(self.sessions))]
        return {**found, **page.state()}


class Handler(BaseHTTPRequestHandler):
    timeout, wbufsize = 30, -1                          # seconds; head and body go in one packet

    def do_GET(self):
        if self.is_ours() and self.path.partition("?")[0] == "/":
            return self.reply(200, PAGE.read_bytes(), "text/html; charset=utf-8")
        self.reply(404 if self.is_ours() else 403, b"nothing here", "text/plain")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        fits = length.isdecimal() and int(length) <= MOST_BYTES
        is_json = self.headers.get_content_type() == "application/json"     # a plain form cannot say that
        if not (self.is_ours() and self.path == "/api" and is_json and fits):
            return self.reply(403, b"refused", "text/plain")
        try:
            asked = json.loads(self.rfile.read(int(length)))
            answer = self.server.api(asked) if type(asked) is dict else {"error": "send an object"}
        except (ValueError, RecursionError):
            answer = {"error": "this is not JSON"}
        self.reply(200, json.dumps(answer).encode(), "application/json")

    def is_ours(self):
        """does the request name this machine, and does it come from the page, or from no page at all?"""
        hosts, origin = self.headers.get_all("Host", []), self.headers.get("Origin")
        here = len(hosts) == 1 and re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", hosts[0])
        return bool(here) and origin in (None, f"http://{hosts[0]}")

    def reply(self, code, body, kind):
        self.send_response(code)
        for name, value in {
                "Content-Type": kind, "Content-Length": len(body), "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
                "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
                "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """the terminal is for errors"""


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m world.play", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="out/checkpoint.pt, or before that study/cofine/checkpoint.pt",
                        default=inside.at_hand())
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args(argv)
    drawn = functools.lru_cache(16)(draw.background)    # a large empty table takes 25 ms, all else 5
    draw.background = lambda *view: drawn(*view).copy()
    # each request has a thread of its own; with a team of threads in each, a step takes twice as long
    torch.set_num_threads(1)
    try:
        with Server(args.checkpoint, args.port, args.device) as server:
            url = f"http://127.0.0.1:{server.server_port}"
            print(f"{url} is the playground of {args.checkpoint}; Ctrl-C ends it", flush=True)
            if args.browser:
                webbrowser.open(url)
            server.serve_forever()
    except ValueError as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
