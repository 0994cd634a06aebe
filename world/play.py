"""
A playground in the browser: type an instruction, watch the arm, and see how it came about.

    python -m world.play                                    # the weights of out/checkpoint.pt
    python -m world.play --checkpoint out/checkpoint.pt --port 8010 --no-browser

The page is world/play.html, without a build step; this file serves it. The server listens on 127.0.0.1 alone
and answers only requests that name this machine (127.0.0.1 or localhost) and that come from its own page. So
no other page in the browser can use it, not even one whose host name was made to point here (DNS rebinding).

GET / is the page. POST /api takes {"do": name of a method of Session, "session": id, ...its arguments} and
answers with the state of that session, or with {"error": what is wrong, in words}.
"""
import argparse
import base64
import contextlib
import copy
import io
import json
import re
import secrets
import sys
import threading
import traceback
import webbrowser
from dataclasses import astuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from tokenizer import prompt, wish
from world import draw, inside, trials
from world.chips import Chip, chips, understand
from world.scene import MAX_STEPS, Task, Thing, person

PAGE = Path(__file__).with_name("play.html")
FIRST_SEED = 1_000_000                  # scenes that no training run has seen begin here (eval.TRIAL_SEED)
SIZE, MOST_THINGS, MOST_SESSIONS, MOST_BYTES = 448, 8, 64, 1 << 16


def remembered(background, most=16):
    """draw.background, which keeps what it drew: a large empty table takes 20 ms, all else in a picture 2"""
    drawn = {}

    def draw_once(size, camera, style=draw.Style()):
        key = (size, camera, astuple(style))
        if key not in drawn:
            if len(drawn) == most:
                del drawn[next(iter(drawn))]
            drawn[key] = background(size, camera, style)
        return drawn[key].copy()
    return draw_once


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
    What may be put on the table, by group. A person is told by the hair and one thing that is worn.
    names: of scene.VOCABULARIES
    """
    people = [f"{hair} hair{worn}" for hair in names["hair"]
              for worn in ("", *(f", {w}" for w in names["wears"]))]
    groups = {"the robot knows": (*names["robot"], *names["mats"]),
              "only the web names": (*names["pairs"], *names["web"]),
              "cards": names["cards"], "people": people}
    return {group: list(found) for group, found in groups.items() if found}


class Session:
    """
    One page: a scene, what is said to the robot, and an episode. What a page may ask for are the methods
    without an underscore. ValueError says in words what does not go.
    """

    def __init__(self, policy, settings, lines):
        self._policy, self._settings, self._lines = policy, settings, lines

    # -- what a page may ask for ---------------------------------------------------------------------------

    def scene(self, line="", seed=0):
        """a new scene with its own instruction"""
        line = line or next(iter(self._lines))
        if line not in self._lines or type(seed) is not int or not 0 <= seed < 2 ** 30:
            raise ValueError("a scene has a sort from the list, and a seed from 0 to a billion")
        trial, before = self._lines[line](), dict(vars(self))
        trial.reset(FIRST_SEED + seed)
        self._line, self._seed, self._trial, self._world, self._attempt = line, seed, trial, trial.world, 0
        self._big = copy.copy(self._world)      # draws the large picture: each of the two keeps what rests
        world = self._world
        group = "wish" if line.startswith("thought:") else "the task"
        self._own = Chip(group, world.task.instruction, world.task, world.strict, tuple(world.movers))
        self._look_around()
        try:
            self.tell(self._own.text)
        except ValueError:                      # its words do not fit this model: the old scene stays
            vars(self).update(before)
            raise

    def tell(self, text, words="told"):
        """
        A new instruction, in the scene as it stands. words: told, or one of the controls, blank or swapped,
        under which the robot reads something else while success means the same.
        """
        chip = next((c for c in self._chips if c.text == text), None)
        if chip is None:
            task = understand(self._world, str(text))
            chip = Chip("", str(text), task or Task("", None, None, str(text)))
        before, self._world.task = self._world.task, chip.task
        swapped, self._world.task = self._trial.swapped() if chip.task.skill else None, before
        as_prompt = wish if chip.group == "wish" and self._settings["wishes"] else prompt
        reads = {"told": as_prompt(chip.text), "blank": prompt(None),
                 "swapped": swapped and as_prompt(swapped)}
        if type(words) is not str or not reads.get(words):
            raise ValueError("nothing else can be asked for in this scene")
        policy = self._policy
        n, thought = len(policy.tokenizer.encode(reads[words])), policy.config["thought_len"]
        room = policy.model.config.max_text - len(policy.slots) - (thought + 1 if thought else 0)
        if n > room:
            raise ValueError(f"the instruction is too long: {n} tokens, and the model reads {room}")
        chip.put(self._world)
        self._chip, self._words, self._read, self._swapped = chip, words, reads[words], swapped
        self._begin()

    def again(self, words=None):
        """back to where the episode began; the draws are others. words: as of tell"""
        if self._start:
            self._trial, self._chips, self._own, self._chip = self._start
            self._world = self._trial.world
            self._look_around()
        self.tell(self._chip.text, words or self._words)

    def step(self):
        """one action of the policy, and how it came about"""
        if self._outcome:
            raise ValueError("the episode is over; begin again, or say something else")
        if self._start is None:
            self._start = copy.deepcopy((self._trial, self._chips, self._own, self._chip))
        picture = self._world.render()
        action, seen = inside.decide(self._policy, self._episode, picture, self._read)
        _, reward, terminated, truncated, info = self._trial.step(action)
        if terminated or truncated:
            judged = bool(self._chip.task.skill)
            held = f"; the hand holds {info['held']}" if info["held"] else ""
            self._outcome = {"success": reward > 0 if judged else None, "text":
                             "success" if reward else info["outcome"] if judged else
                             ("it stopped" if terminated else "it never stopped") + held
                             + "; nobody here can judge this instruction"}
        return {"inside": seen, "seen": image_url(picture), "action": [round(float(a), 4) for a in action]}

    def add(self, name, column, row):
        """put a thing on the table where the page was clicked; columns and rows run from 0 to 1"""
        if len(self._world.things) >= MOST_THINGS:
            raise ValueError(f"the table is full: at most {MOST_THINGS} things")
        if not any(name in group for group in things_of(self._world.names).values()):
            raise ValueError("this is not in the list of things")
        face = None
        if " hair" in name:
            hair, _, worn = name.partition(" hair")
            face = {"hair": hair, **{w: worn == f", {w}" for w in ("glasses", "hat", "beard")}}
        thing = Thing(person(face) if face else name, np.zeros(3), face=face)
        thing.yaw = np.pi / 2 if thing.kind.long else 0.0
        self._place(thing, column, row)
        self._world.things.append(thing)
        self._after_edit()

    def move(self, thing, column, row):
        """drag thing number so and so"""
        self._place(self._thing(thing), column, row)
        self._after_edit()

    def remove(self, thing):
        """take it away"""
        thing = self._thing(thing)
        for other in self._world.things:
            other.inside = None if other.inside is thing else other.inside
        self._world.things.remove(thing)
        self._after_edit()

    # -- how it is done ------------------------------------------------------------------------------------

    def _begin(self):
        self._world.steps, self._world.taken, self._outcome, self._start = 0, [], None, None
        self._attempt += 1
        self._episode = self._policy.episode([self._seed, self._attempt])

    def _is_there(self, chip):
        return {chip.task.a, chip.task.b} <= {*self._world.things, None, "drawer"}

    def _look_around(self):
        """which instructions the scene allows: its own comes first"""
        found = chips(self._world, np.random.default_rng(self._seed))
        self._chips = [chip for chip in (self._own,) if self._is_there(chip)]
        self._chips += [chip for chip in found if chip.text not in {c.text for c in self._chips}]

    def _after_edit(self):
        """the instructions that the scene allows have changed; so may have what the present one means"""
        self._look_around()
        if not self._is_there(self._chip):
            self.tell(self._chip.text)
        elif self._outcome:                             # what follows is an episode of its own
            self._begin()

    def _thing(self, n):
        if type(n) is not int or not 0 <= n < len(self._world.things):
            raise ValueError("there is no such thing on the table")
        if self._world.held is self._world.things[n]:
            raise ValueError("the hand holds it")
        return self._world.things[n]

    def _place(self, thing, column, row):
        world = self._world
        if not all(type(x) in (int, float) and 0 <= x <= 1 for x in (column, row)):
            raise ValueError("this is not in the picture")
        x, y = map(float, world.camera.on_table(np.array(column), np.array(row), thing.kind.height / 2))
        if max(abs(x), abs(y)) > .19 or world.opening is not None and x > .03:
            raise ValueError("this is too far: the hand does not reach there")
        for t in world.things:
            gap = t.kind.radius + thing.kind.radius
            if t is not thing and t.inside is None and np.hypot(*(t.centre[:2] - (x, y))) < gap:
                raise ValueError(f"there is no room: {t.name} is in the way")
        old = thing.position
        thing.position = np.array([x, y, 0 if thing.upright else thing.kind.radius]) \
            - [1, 1, 0] * thing.axis * thing.kind.height / 2
        thing.inside = None
        for t in world.things:
            if t.inside is thing:
                t.position = t.position + thing.position - old

    def _state(self):
        """what the page shows"""
        world, big = self._world, self._big
        for name in ("style", "camera", "things", "hand", "gripper", "held", "opening", "drawer_y"):
            setattr(big, name, getattr(world, name))
        facts = world.facts()
        return {"picture": image_url(big.render(SIZE), "JPEG", quality=92, subsampling=0),
                "things": [{"name": f["name"], "column": f["column"], "row": f["row"],
                            "radius": round(2 * t.kind.radius, 3)} for t, f in zip(world.things, facts)],
                "held": facts[-1]["held"], "steps": world.steps, "most": MAX_STEPS, "line": self._line,
                "seed": self._seed, "text": self._chip.text, "read": self._read, "words": self._words,
                "judged": bool(self._chip.task.skill), "swapped": self._swapped, "outcome": self._outcome,
                "chips": [[c.group, c.text] for c in self._chips]}


class Playground:
    """All sessions of one model. One lock: the model has one set of lists to watch it (world/inside.py)."""

    def __init__(self, checkpoint, device="auto"):
        self.policy, self.settings = inside.world_policy(checkpoint, device)
        self.lines = scene_lines(self.policy, self.settings)
        self.sessions, self.lock = {}, threading.Lock()

    def api(self, asked):
        """a request of the page, as a dict -> the answer, as a dict"""
        asked = dict(asked)
        do, name = asked.pop("do", None), asked.pop("session", None)
        method = getattr(Session, do, None) if type(do) is str and not do.startswith("_") else None
        with self.lock:
            try:
                if do == "open":
                    session, name = Session(self.policy, self.settings, self.lines), secrets.token_hex(8)
                    session.scene(**asked)
                    self.sessions[name] = session
                    while len(self.sessions) > MOST_SESSIONS:       # the one that was idle for longest
                        del self.sessions[next(iter(self.sessions))]
                    n, skills = self.policy.model.n_weights(), ", ".join(self.settings["skills"])
                    about = {"lines": list(self.lines), "things_to_put": things_of(session._world.names),
                             "size": self.policy.model.config.image_size,
                             "about": f"{n / 1e6:.1f} M weights; skills: {skills}"}
                    return {**about, "session": name, **session._state()}
                if name not in self.sessions:
                    return {"error": "the server does not know this page any more", "gone": True}
                if method is None:
                    return {"error": f"the server cannot do {str(do)[:40]!r}"}
                session = self.sessions[name] = self.sessions.pop(name)     # now the most recent one
                found = method(session, **asked) or {}
                return {**found, **session._state()}
            except (ValueError, TypeError) as e:        # TypeError: other arguments than a method has
                return {"error": str(e)[:300]}
            except Exception as e:                      # a mistake of ours: the page says so, and lives on
                traceback.print_exc()
                return {"error": f"the server made a mistake ({type(e).__name__}); its terminal says where"}


class Handler(BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 30
    wbufsize, disable_nagle_algorithm = -1, True        # head and body in one packet, at once
    playground = None

    def do_GET(self):
        if self.is_ours() and self.path.partition("?")[0] == "/":
            return self.reply(200, PAGE.read_bytes(), "text/html; charset=utf-8")
        self.reply(404 if self.is_ours() else 403, b"nothing here", "text/plain")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        fits = length.isdecimal() and int(length) <= MOST_BYTES
        is_json = self.headers.get_content_type() == "application/json"     # a plain form cannot say that
        if not (self.is_ours() and self.path == "/api" and is_json and fits):
            self.close_connection = True                # its body was not read
            return self.reply(403, b"refused", "text/plain")
        try:
            asked = json.loads(self.rfile.read(int(length)))
            answer = self.playground.api(asked) if type(asked) is dict else {"error": "send an object"}
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


class Server(ThreadingHTTPServer):
    request_queue_size, daemon_threads = 128, True

    def handle_error(self, request, address):
        if not isinstance(sys.exc_info()[1], OSError):              # a page that was closed is no error
            super().handle_error(request, address)


def serve(checkpoint, port=8010, device="auto"):
    """a server that is ready, on 127.0.0.1 alone; port 0 takes a free one. Call its serve_forever()."""
    handler = type("Handler", (Handler,), {"playground": Playground(checkpoint, device)})
    try:
        return Server(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as e:
        raise ValueError(f"port {port} cannot be used ({e}); give another --port") from None


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m world.play", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="out/checkpoint.pt")
    parser.add_argument("--port", type=int, default=8010)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--browser", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args(argv)
    draw.background = remembered(draw.background)
    try:
        with serve(args.checkpoint, args.port, args.device) as server:
            url = f"http://127.0.0.1:{server.server_port}"
            print(f"{url} is the playground; Ctrl-C ends it", flush=True)
            if args.browser:
                webbrowser.open(url)
            server.serve_forever()
    except ValueError as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
