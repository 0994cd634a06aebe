"""
The built-in world: a table, a hand, things to move and cards to read. It knows the physics, the skills and
how to do them (the expert); draw.py knows how things look. Nothing here learns.

    world = World(vocabulary="full", size=64)
    obs, info = world.reset(seed=7)         # obs = {"image": (64, 64, 3) uint8, "instruction": "pick apple"}
    while True:
        obs, reward, terminated, truncated, info = world.step(world.expert())
        if terminated or truncated:
            break

Frame: metres and radians; x away from the camera, y to the left, z up; the table is z = 0.
An action is the eight numbers of the paper (section 3.2): terminate (1 = stop), a displacement dx dy dz of
at most 8 cm, a turn droll dpitch dyaw of at most 45 degrees, and where the gripper should be, from 1 = open
to 0 = closed.

The physics is kinematic and forgiving, because the subject is language and sight, not contact. A hand that
closes around a thing takes it. A hand that opens drops it. A closed hand knocks over what is tall. A hand
that holds the handle moves the drawer.
"""
from dataclasses import dataclass, field

import numpy as np

from world import draw

# ----------------------------------------------------------------------------------------------------------
# what there is, and who may name it


@dataclass(frozen=True)
class Kind:
    radius: float               # metres, half of the footprint
    height: float
    category: str
    colored: bool = False       # comes in the colours of COLORS, which are then part of its name
    tall: bool = False          # can be knocked over and set upright
    long: bool = False          # the hand must be turned along it
    container: bool = False


KINDS = {
    "apple": Kind(.038, .070, "fruit"), "orange": Kind(.038, .074, "fruit"),
    "sponge": Kind(.045, .030, "tool"), "block": Kind(.034, .060, "toy", colored=True),
    "can": Kind(.031, .100, "drink", colored=True, tall=True),
    "cup": Kind(.036, .080, "dish", colored=True, tall=True),
    "bottle": Kind(.028, .142, "drink", colored=True, tall=True),
    "bag": Kind(.045, .100, "snack", colored=True),
    "bowl": Kind(.060, .045, "dish", colored=True, container=True),
    "marker": Kind(.045, .022, "tool", colored=True, long=True),
    # only the web knows these
    "banana": Kind(.045, .032, "fruit", long=True), "strawberry": Kind(.035, .052, "fruit"),
    "pear": Kind(.040, .060, "fruit"), "carrot": Kind(.045, .036, "vegetable", long=True),
    "eggplant": Kind(.045, .058, "vegetable", long=True), "mushroom": Kind(.040, .074, "vegetable"),
    "duck": Kind(.040, .080, "toy"), "ball": Kind(.040, .080, "toy"),
    "hammer": Kind(.045, .026, "tool", long=True), "phone": Kind(.040, .012, "tool"),
}
CARD = Kind(.045, .0, "card")       # one of draw.CARDS, a face or a mat: it lies flat and cannot be taken
ROBOT_NOUNS = ("apple", "orange", "sponge", "block", "can", "cup", "bottle", "bag", "bowl", "marker")
WEB_NOUNS = tuple(n for n in KINDS if n not in ROBOT_NOUNS)
COLORS = tuple(draw.COLORS)
# pairs of a known colour and a known thing that no demonstration shows (the paper's table 4: "objects, easy")
UNSEEN_PAIRS = ("red bowl", "green bottle", "blue block", "yellow can", "purple cup", "white bag",
                "brown marker", "black can")


def _names(nouns):
    return tuple(f"{c} {n}" if KINDS[n].colored else n
                 for n in nouns for c in (COLORS if KINDS[n].colored else COLORS[:1]))


CARDS = {"number": tuple("0123456789"), "letter": tuple("ABCDEFXY"),
         "symbol": ("heart", "star", "arrow", "moon", "sun", "tree", "flower", "house", "cross"),
         "animal": ("dog", "cat", "fish", "bird", "elephant")}
# The two sides of every vocabulary. Robot instructions may name "robot" and "mats". Only web pictures show
# and name the rest: pairs of a known colour and a known thing, new things, cards, and people (by their hair
# and what they wear).
VOCABULARIES = {
    "full": {"robot": tuple(n for n in _names(ROBOT_NOUNS) if n not in UNSEEN_PAIRS),
             "mats": tuple(f"{c} mat" for c in COLORS),     # flat like cards: things are moved near them
             "pairs": UNSEEN_PAIRS, "web": WEB_NOUNS,
             "cards": tuple(c for group in CARDS.values() for c in group), "hair": tuple(draw.HAIR),
             "wears": ("glasses", "hat", "beard")},
    "small": {"robot": ("apple", "orange", "sponge", "red can", "blue can", "green cup", "yellow cup",
                        "purple block", "brown bag", "white bottle"),
              "mats": (),
              "pairs": (), "web": ("strawberry", "pear", "duck", "ball", "mushroom"),
              "cards": (), "hair": (), "wears": ()},
}
_pairs = ("green bottle", "blue block", "yellow can", "purple cup", "white bag")
_colors = ("red", "green", "blue", "yellow", "purple", "white")
_colored = tuple(f"{c} {noun}" for noun in ("block", "can", "cup", "bottle", "bag") for c in _colors)
VOCABULARIES["medium"] = {
    "robot": ("apple", "orange", "sponge", *(n for n in _colored if n not in _pairs)),
    "mats": tuple(f"{c} mat" for c in _colors), "pairs": _pairs, "web": VOCABULARIES["small"]["web"],
    "cards": (*"1234XY", "heart", "star", "tree", "house", "dog", "cat", "fish"),
    "hair": ("black", "blond", "white"), "wears": ("glasses", "hat")}

INSTRUCTIONS = {
    "pick": "pick {a}", "move near": "move {a} near {b}", "knock": "knock {a} over",
    "upright": "place {a} upright", "open": "open the drawer", "close": "close the drawer",
    "put into": "put {a} into {b}", "take out": "take {a} out of {b}",
}
SKILLS = tuple(INSTRUCTIONS)
# the same in the words of other people, for demonstrations (reword)
WORDINGS = {
    "pick": ("pick the {a}", "pick up the {a}", "take the {a}", "lift {a}", "grab the {a}", "pick up {a}"),
    "move near": ("move the {a} near the {b}", "move {a} near the {b}", "put {a} next to {b}",
                  "bring the {a} to the {b}", "place the {a} close to the {b}",
                  "take the {a} over to {b}"),
    "knock": ("knock the {a} over", "knock over the {a}"),
    "upright": ("place the {a} upright", "set the {a} upright"),
    "open": ("open drawer", "pull the drawer open"), "close": ("close drawer", "push the drawer shut"),
    "put into": ("put the {a} into the {b}", "drop {a} into {b}"),
    "take out": ("take the {a} out of the {b}", "get {a} out of {b}"),
}
# what people add in the end. So an action follows sentences of many lengths, as long as those of the web
REMARKS = ("please", "thank you", "if you can", "when you are ready", "and be careful with it",
           "as soon as you have time", "because we will need it there soon",
           "so that we can go on with our work")
# every word that a robot instruction may contain, and every word that none may
_texts = (*INSTRUCTIONS.values(), *(text for texts in WORDINGS.values() for text in texts), *REMARKS, "item",
          "mat", *VOCABULARIES["full"]["robot"])
ROBOT_WORDS = frozenset(" ".join(_texts).split()) - {"{a}", "{b}"}
WEB_WORDS = frozenset(WEB_NOUNS) | frozenset(draw.CARDS) | frozenset(
    "fruit vegetable drink dish snack toy tool person glasses hat beard hair plus sum number smallest "
    "largest animal letter symbol thing same colour different".split())

ACTION_NAMES = ("terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
STEP, TURN = 0.08, np.pi / 4                                # the largest displacement and turn of one action
ACTION_LOW = np.array([0, -STEP, -STEP, -STEP, -TURN, -TURN, -TURN, 0])
ACTION_HIGH = np.array([1, STEP, STEP, STEP, TURN, TURN, TURN, 1])
REACH = np.array([[-.20, -.20, .02], [.20, .20, .20]])      # where the point between the finger tips may go
HOVER = 0.10                                                # the hand travels above this height
NEAR = 0.09                                                 # "near": at most this gap between two things
CABINET_X, DRAWER_LENGTH = 0.17, 0.12
MAX_STEPS = 40


# ----------------------------------------------------------------------------------------------------------
# state

@dataclass(eq=False)
class Thing:
    name: str
    position: np.ndarray                                    # (3,) the centre of its base
    yaw: float = 0.0
    axis: np.ndarray = field(default_factory=lambda: np.array([0., 0., 1.]))   # its own up direction
    inside: object = None                                   # the Thing or "drawer" it lies in
    face: dict | None = None                                # of a person's card: draw.draw_face

    @property
    def noun(self): return self.name.split()[-1]
    @property
    def color(self): return self.name.split()[0] if " " in self.name else None
    @property
    def kind(self): return KINDS.get(self.noun, CARD)
    @property
    def upright(self): return self.axis[2] > 0.8
    @property
    def centre(self): return self.position + self.axis * self.kind.height / 2

    def set_down(self, x, y):
        """on the table, its centre above x, y"""
        self.position = np.array([x, y, 0 if self.upright else self.kind.radius]) \
            - [1, 1, 0] * self.axis * self.kind.height / 2


@dataclass
class Task:
    skill: str
    a: object = None                                        # the Thing to act on
    b: object = None                                        # the Thing or "drawer" that the skill refers to
    instruction: str = ""


@dataclass(frozen=True)
class Request:
    """
    A scene of chosen things, and what a person asks for in it, in any words. things: names, or faces as
    draw.draw_face takes them; a and b: which of them the skill is about; either: moving b near a is right,
    too.

    Example: Request("move near", ("red can", "3", "5"), a=0, b=1,
                     instruction="move red can near the sum of two plus one")
    """
    skill: str
    things: tuple
    a: int
    b: int | None
    instruction: str
    either: bool = False


def person(face):
    """
    Example: person(dict(hair="white", glasses=True, hat=False, beard=False)) -> "person with white hair"
    """
    return f"person with {face['hair']} hair"


def level(error, largest):
    """
    The expert's steps have five sizes an axis: none, and a half and all of the largest, either way. Far
    away only the direction counts. Close by, a choice finer than a pixel or two would be noise to a policy
    that learns from it.

    Example: level(0.05, 0.08) -> 0.04, level(-0.3, 0.08) -> -0.08, level(0.019, 0.08) -> 0.0
    """
    size = np.array([0, .5, 1]) * largest
    return np.sign(error) * size[np.abs(size - np.abs(error)).argmin()]


# ----------------------------------------------------------------------------------------------------------

class World:
    """
    vocabulary: "small", "medium" or "full"; skills: which of SKILLS reset() draws from; size: pixels a side
    of the picture, 0 for none; style, camera: how it looks (draw.Style, draw.Camera); noise: metres of
    disturbance in every executed movement, with rare larger bumps and drops, so that demonstrations show
    how to recover.
    """

    def __init__(self, vocabulary="full", skills=SKILLS, size=64, style=None, camera=None, noise=0.0):
        unknown = [s for s in skills if s not in SKILLS]
        if unknown:
            raise ValueError(f"unknown skill {unknown[0]!r}; there are: {', '.join(SKILLS)}")
        if vocabulary not in VOCABULARIES:
            raise ValueError(f"unknown vocabulary {vocabulary!r}; there are: {', '.join(VOCABULARIES)}")
        self.names, self.skills, self.size, self.noise = VOCABULARIES[vocabulary], tuple(skills), size, noise
        self.style, self.camera = style or draw.Style(), camera or draw.Camera()

    @property
    def instruction(self):
        return self.task.instruction

    # -- scenes --------------------------------------------------------------------------------------------

    def reset(self, seed, skill=None, targets="robot", wild=False, alone=False, request=None):
        """
        A scene and a task, fixed by the arguments alone.

        targets: "robot" for things that demonstrations name, "pairs" or "web" for things that only the web
            names. One more of those stands among the others, so that picking the only unfamiliar object
            does not work.
        request: a Request, which says which things are there and what is asked
        wild, alone: for demonstrations. wild: the hand may start anywhere, closed, or holding something;
            alone: the table is empty but for what the task needs
        """
        self.rng = rng = np.random.default_rng(seed)
        self._still, self.taken = (None, None), []          # taken: the things that the hand took, in order
        skill = request.skill if request else skill or self.skills[rng.integers(len(self.skills))]
        for _ in range(1000):                               # draw again until everything has its room
            if self._draw_scene(rng, skill, targets, alone, request):
                break
        else:
            raise RuntimeError(f"no room on the table for {skill!r} with seed {seed}")
        self.strict = request is not None       # then a must be near b alone, and must be moved last (near())
        # movers: the things that may be moved to fulfil the task
        self.movers = [self.task.a, self.task.b] if request and request.either else [self.task.a]
        # x y z roll pitch yaw
        self.hand = np.array([*rng.uniform(-.16, .16, 2), rng.uniform(.11, .18), 0, 0, 0])
        self.gripper, self.held, self.steps = 1.0, None, 0
        if wild:
            self.hand[:3] = rng.uniform(*REACH)
            self.gripper = float(rng.random() < 0.7)
            free = [t for t in self.things
                    if t.inside is None and not t.kind.container and t.kind is not CARD]
            if free and not self.gripper and rng.random() < 0.7:
                self._take(free[rng.integers(len(free))])
        return self.observe(), self.info()

    def _draw_scene(self, rng, skill, targets, alone, request):
        """one attempt to set things, drawer and task; False where something has no room"""
        self.things = []
        self.opening, self.drawer_y, b = None, float(rng.uniform(-.08, .08)), None
        into = skill in ("put into", "take out")
        in_drawer = into and rng.random() < 0.4
        if skill in ("open", "close") or in_drawer or (len(self.skills) > 2 and rng.random() < 0.2):
            self.opening = 0.0 if skill == "open" or not (in_drawer or skill == "close") else DRAWER_LENGTH

        def add(name, face=None):
            # with yaw = 0 a long thing lies along y; here it points more or less away, as the hand can turn
            thing = Thing(name, np.zeros(3), yaw=float(rng.uniform(-1, 1)), face=face)
            thing.yaw += np.pi / 2 if thing.kind.long else 0
            self.things.append(thing)
            return thing

        def choose(test=lambda kind: True, pool="robot", mats=False):
            names = (*self.names[pool], *(self.names["mats"] if mats else ()))
            names = [n for n in names
                     if test(KINDS.get(n.split()[-1], CARD)) and all(n != t.name for t in self.things)]
            if not names:
                raise ValueError(f"skill {skill!r} needs a kind of thing that the vocabulary does not have")
            return add(names[rng.integers(len(names))])

        if request:
            for thing in request.things:
                add(thing) if isinstance(thing, str) else add(person(thing), thing)
            a, b = self.things[request.a], None if request.b is None else self.things[request.b]
        else:
            test = {"knock": lambda k: k.tall, "upright": lambda k: k.tall}.get(skill, lambda k: True)
            if into:
                test = lambda k: not k.container and not k.long and k.height < .09
            a = choose(test, targets)
            if skill == "move near":
                b = choose(mats=True)
            elif into:
                b = "drawer" if in_drawer else choose(lambda k: k.container)
            if targets != "robot":
                choose(pool=targets)
            for _ in range(0 if alone else rng.integers(2, 5) - len(self.things)):
                choose(mats=True)
        for t in self.things:
            if skill == "upright" and t is a:               # lies sideways or away
                t.axis, t.yaw = np.roll([float(rng.choice([-1, 1])), 0, 0], rng.integers(2)), 0.0
            if not self._place_at_random(rng, t):
                return False
        self.task = Task(skill, None if skill in ("open", "close") else a, b,
                         request.instruction if request else self.describe(skill, a, b))
        return self._has_room(skill, a, b, in_drawer, request)

    def _has_room(self, skill, a, b, in_drawer, request):
        """is the task still to be done, is there room to do it, and can near b mean nothing else?"""
        if skill == "move near" and np.linalg.norm((a.centre - b.centre)[:2]) < self._gap(a, b) + NEAR + .06:
            return False
        if request and b and any(self._space(t, b) < .10 for t in self.things if t not in (a, b)):
            return False
        if skill == "take out":
            self._put_inside(a, b)
            spot = self._outside_spot()
            return all(np.linalg.norm(t.centre[:2] - spot) > self._gap(a, t)
                       for t in self.things if t not in (a, b))
        if skill == "put into" and not in_drawer:
            return np.linalg.norm((a.centre - b.centre)[:2]) > .12
        return True

    def _place_at_random(self, rng, thing):
        far = .16 if self.opening is None else .06          # a drawer needs the room before it
        for _ in range(30):
            xy = rng.uniform((-.16, -.16), (far, .16))
            if self.opening is not None and xy[0] > -.06 and abs(xy[1] - self.drawer_y) < .15:
                continue
            thing.set_down(*xy)
            # a thing at exactly (0, 0, 0) has no place yet
            if all(t is thing or not t.position.any() or
                   np.linalg.norm((t.centre - thing.centre)[:2]) > self._gap(t, thing) + .02
                   for t in self.things):
                return True
        thing.position = np.zeros(3)
        return False

    @staticmethod
    def describe(skill, a=None, b=None):
        """
        The plain instruction of a skill with things a and b.

        Example: describe("put into", apple, "drawer") -> "put apple into the drawer"
        """
        b = "the drawer" if b == "drawer" else getattr(b, "name", "")
        return INSTRUCTIONS[skill].format(a=getattr(a, "name", ""), b=b)

    @staticmethod
    def _gap(a, b):
        return a.kind.radius + b.kind.radius

    def _space(self, a, b):
        """metres of table between two things"""
        return np.linalg.norm((a.centre - b.centre)[:2]) - self._gap(a, b)

    # -- physics -------------------------------------------------------------------------------------------

    def step(self, action):
        """
        action (8,) -> obs, reward, terminated, truncated, info. The reward is 1 for stopping in the goal,
        else 0.
        """
        action = np.asarray(action, dtype=float)
        if action.shape != (8,) or not np.isfinite(action).all():
            raise ValueError(f"an action is eight finite numbers {ACTION_NAMES}, got {action}")
        self.steps += 1
        terminated = bool(action[0] > 0.5)
        if not terminated:                                  # RT-2 stops "without executing the rest"
            self._move(np.clip(action, ACTION_LOW, ACTION_HIGH))
        truncated = not terminated and self.steps >= MAX_STEPS
        reward = float(terminated and self.success())
        return self.observe(), reward, terminated, truncated, self.info()

    def _move(self, action):
        before = self.hand.copy()
        self.hand += action[1:7]
        if self.noise and np.abs(action[1:4]).max() > 0:    # what is executed is not quite what was asked for
            self.hand[:3] += self.rng.normal(0, self.noise, 3)
            if self.rng.random() < 0.08:
                self.hand[:3] += self.rng.uniform(-.08, .08, 3)
        self.hand[:3] = np.clip(self.hand[:3], *REACH)
        self.hand[3:] = np.clip(self.hand[3:], -np.pi / 2, np.pi / 2)
        closed, self.gripper = self.gripper < 0.5, float(action[7])
        if self.gripper >= 0.5 or (self.noise and self.held is not None and self.rng.random() < 0.01):
            self._release()
        elif not closed:
            self._grasp()
        elif self.held is None:
            self._topple(before)
        if self.held == "drawer":
            self.opening = float(np.clip(self.opening - (self.hand - before)[0], 0, DRAWER_LENGTH))
            self.hand[:3] = self.handle()
            for t in self.things:
                if t.inside == "drawer":
                    old = t.position
                    t.position = np.array([CABINET_X - self.opening / 2, *old[1:]])
                    self.shift_contents(t, old)
        elif self.held is not None:
            self._carry(self.held)

    def _take(self, thing):
        """the thing follows the hand from now on, as it lies between the fingers"""
        self.held, thing.inside = thing, None
        self.taken.append(thing)
        self.hand[:3] = np.clip(self.hand[:3], REACH[0] + [0, 0, .01], REACH[1])
        # hold: axis and yaw of the thing in the frame of the hand
        self.hold = (draw.rotation(*self.hand[3:]) @ thing.axis, thing.yaw - self.hand[5])
        self._carry(thing)

    def _carry(self, thing):
        old = thing.position
        thing.axis, thing.yaw = self.hold[0] @ draw.rotation(*self.hand[3:]), self.hold[1] + self.hand[5]
        low = np.abs(thing.axis[2]) * thing.kind.height / 2 + (1 - np.abs(thing.axis[2])) * thing.kind.radius
        centre = np.array([*self.hand[:2], max(self.hand[2], low)])       # nothing is pressed into the table
        thing.position = centre - thing.axis * thing.kind.height / 2
        self.shift_contents(thing, old)

    def shift_contents(self, thing, old):
        """what is in a thing that stood at old comes with it"""
        for t in self.things:
            if t.inside is thing:
                t.position = t.position + thing.position - old

    def _grasp(self):
        """
        close around whatever is between the open fingers (9 cm apart): at its height, and along it if it is
        long
        """
        def fits(thing):
            d = thing.centre - self.hand[:3]
            along = not thing.kind.long or abs(self.askew(thing)) < np.pi / 7
            return np.linalg.norm(d[:2]) < .045 and abs(d[2]) < .045 and along
        near = sorted((t for t in self.things if t.kind is not CARD and fits(t)),
                      key=lambda t: np.linalg.norm(t.centre - self.hand[:3]))
        near = [t for t in near if t.inside] or near        # a thing in a bowl is taken before the bowl
        if near:
            self._take(near[0])
        elif self.opening is not None and np.linalg.norm((self.handle() - self.hand[:3])[:2]) < .045 \
                and self.hand[2] < .08:
            self.held = "drawer"

    def askew(self, thing):
        """how far the hand must turn so that its fingers close across a long thing, in -pi/2 .. pi/2"""
        return (thing.yaw - self.hand[5]) % np.pi - np.pi / 2

    def _release(self):
        thing, self.held = self.held, None
        if isinstance(thing, Thing):
            old = thing.position
            self._drop(thing)
            self.shift_contents(thing, old)

    def _drop(self, thing):
        """from the hand onto the table, or into what is below"""
        if thing.kind.tall and not thing.upright:           # falls on its side
            flat = thing.axis * [1, 1, 0]
            thing.axis = flat / np.linalg.norm(flat) if np.linalg.norm(flat) > .1 else np.array([1., 0, 0])
        else:
            thing.axis = np.array([0., 0, 1])
        centre = np.array([*self.hand[:2], 0])
        thing.set_down(*self.hand[:2])
        for box in [t for t in self.things if t.kind.container and t is not thing]:
            if np.linalg.norm((box.centre - centre)[:2]) < .055 and not thing.kind.container:
                return self._put_inside(thing, box)
        if self.opening and abs(centre[1] - self.drawer_y) < .09 \
                and CABINET_X - self.opening < centre[0] < CABINET_X + .03:
            return self._put_inside(thing, "drawer")
        for other in self.things:                           # things slide off each other
            d = (thing.centre - other.centre)[:2]
            distance, gap = np.linalg.norm(d), self._gap(thing, other)
            if other is not thing and other.inside is None and other.kind is not CARD and distance < gap:
                direction = d / (distance + 1e-6) if distance > .005 else np.array([-1., 0])
                thing.position[:2] += direction * (gap - distance)

    def _put_inside(self, thing, box):
        thing.inside = box
        thing.position = box.position + [0, 0, .012] if isinstance(box, Thing) \
            else self._centre(box) + [0, 0, .01]

    def _topple(self, before):
        """a closed, empty hand that runs into a tall thing knocks it over in the direction of the movement"""
        motion = (self.hand - before)[:2]
        length = np.linalg.norm(motion)
        if length < .02:
            return
        for t in self.things:
            if t.kind.tall and t.upright and t.inside is None \
                    and .25 * t.kind.height < self.hand[2] < t.kind.height:
                along = np.clip((t.position[:2] - before[:2]) @ motion / length ** 2, 0, 1)
                if np.linalg.norm(before[:2] + along * motion - t.position[:2]) < t.kind.radius + .01:
                    t.axis = np.array([*(motion / length), 0])
                    t.position = t.position + [0, 0, t.kind.radius]

    def _centre(self, b):
        """(3,) the centre of a Thing, or of the drawer as far as it is open"""
        if isinstance(b, Thing):
            return b.centre
        return np.array([CABINET_X - self.opening / 2, self.drawer_y, 0])

    def handle(self):
        """(3,) where the handle of the drawer is"""
        return np.array([CABINET_X - self.opening - .015, self.drawer_y, .04])

    # -- tasks ---------------------------------------------------------------------------------------------

    def near(self, a, b, gap=NEAR):
        """
        Is a near b? In a request a must also be nearer to b than to anything else, so that one place cannot
        be two answers.
        """
        rivals = [t for t in self.things if t is not a and t is not b] if self.strict else ()
        return self._space(a, b) < gap and all(self._space(a, b) <= self._space(a, t) for t in rivals)

    def success(self):
        """
        Is the task done as things are now? The skills are those of RT-1, the thresholds are ours. In a
        request, the thing that was moved last must be one of the movers.
        """
        skill, a, b = self.task.skill, self.task.a, self.task.b
        if skill == "pick":
            return self.held is a and self.hand[2] > .09
        if skill == "open":
            return self.opening > .09 and self.held is None
        if skill == "close":
            return self.opening < .02 and self.held is None
        last = (self.taken or [None])[-1] if self.strict else a
        if last not in self.movers or self.held is last:
            return False
        if skill == "move near":
            return self.near(last, b if last is a else a)
        if skill in ("knock", "upright"):
            return a.upright == (skill == "upright")
        return a.inside is (b if skill == "put into" else None)

    def info(self):
        return {"success": bool(self.success()), "skill": self.task.skill}

    # -- the expert ----------------------------------------------------------------------------------------

    def expert(self):
        """
        What to do now, from the state alone, whatever happened before: (8,) float. Because it has no memory
        it recovers from anything. Demonstrations with noise are there to show that.
        """
        skill, a, b = self.task.skill, self.task.a, self.task.b
        if skill == "pick":
            return self.lift(stop=True) if self.held is a else self._fetch(a)
        if skill == "move near":
            if self.held is a:
                return self._put_down(self._beside(a, b))
            return self.lift(stop=True, gripper=1) if self.near(a, b, .05) else self._fetch(a)
        if skill == "knock":
            return self.lift(stop=True, gripper=0) if not a.upright else self._push(a)
        if skill == "upright":
            if self.held is a:
                return self._turn_up(a)
            return self.lift(stop=True, gripper=1) if a.upright else self._fetch(a)
        if skill in ("open", "close"):
            goal = DRAWER_LENGTH if skill == "open" else 0.0
            if abs(self.opening - goal) < .015:
                return self.lift(stop=True, gripper=1)
            if self.held == "drawer":
                left = self.opening - goal                  # at least a small pull, however little is left
                return self._act(dx=np.copysign(max(abs(left), STEP / 2), left), gripper=0)
            return self._fetch(self.handle())
        if self.held is not a:                              # "put into", "take out"
            return self.lift(stop=True, gripper=1) if self.success() else self._fetch(a)
        if skill == "put into":
            return self._put_down(self._centre(b)[:2], height=.07)
        return self._put_down(self._outside_spot())

    def _act(self, dx=0., dy=0., dz=0., droll=0., dpitch=0., dyaw=0., gripper=1., terminate=0.):
        move = [level(d, STEP) for d in (dx, dy, dz)] + [level(d, TURN) for d in (droll, dpitch, dyaw)]
        return np.array([terminate, *move, gripper])

    def _toward(self, point, gripper, turn=(0., 0., 0.)):
        """
        Travel high while far, come down when above; None when there. point (3,); turn: what is left of
        roll, pitch, yaw. The height of travel is a range, not a value: a rule that turned on a centimetre
        of height would be noise to a policy that sees it in 64 pixels.
        """
        error = point - self.hand[:3]
        if np.abs(error[:2]).max() >= .04:
            error[2] = STEP * (self.hand[2] < HOVER)
        action = self._act(*error, *turn, gripper=gripper)
        return action if action[1:7].any() else None

    def _fetch(self, what):
        """take hold of a Thing, or of a point (3,)"""
        if self.gripper < .5 or self.held is not None:      # whatever is in the hand is not wanted
            return self._act(gripper=1)
        turn = -self.hand[3:]
        if isinstance(what, Thing) and what.kind.long:
            turn[2] = np.clip(self.hand[5] + self.askew(what), -np.pi / 2, np.pi / 2) - self.hand[5]
        point = what.centre if isinstance(what, Thing) else what
        action = self._toward(np.maximum(point, [-1, -1, .03]), gripper=1, turn=turn)
        return self._act(gripper=0) if action is None else action

    def _put_down(self, xy, height=None):
        """carry what is held to above xy, lower it, open the hand"""
        low = self.held.kind.height / 2 if self.held.kind.tall and self.held.upright else .035
        point = np.array([*np.clip(xy, *REACH[:, :2]), low if height is None else height])
        action = self._toward(point, gripper=0)
        return self._act(gripper=1) if action is None else action

    def lift(self, stop=False, gripper=0.):
        """up to the height of travel; stop: the episode ends there"""
        if self.hand[2] < HOVER:
            return self._act(dz=STEP, gripper=gripper)
        return self._act(gripper=gripper, terminate=float(stop))

    def _turn_up(self, a):
        """lift, roll or pitch until upright, set down"""
        if a.upright:
            return self._put_down(self.hand[:2])
        if self.hand[2] < HOVER:
            return self._act(dz=STEP, gripper=0)
        roll, pitch = np.arctan2(a.axis[1], a.axis[2]), -np.arctan2(a.axis[0], a.axis[2])
        if abs(a.axis[1]) > abs(a.axis[0]):
            return self._act(droll=roll, gripper=0)
        return self._act(dpitch=pitch, gripper=0)

    def _push(self, a):
        """close the hand, go down on the left of the thing, sweep to the right"""
        if self.held is not None:
            return self._act(gripper=1)
        if self.gripper >= .5:                              # high up, where nothing is between the fingers
            return self._act(dz=STEP * (self.hand[2] < .12), gripper=0)
        start = np.clip(a.position + [0, .08, .6 * a.kind.height], *REACH)
        error = start - self.hand[:3]
        if abs(error[0]) < .025 and abs(error[2]) < .025 and -.03 < error[1] < .10:
            return self._act(dy=-STEP, gripper=0)
        return self._toward(start, gripper=0, turn=-self.hand[3:])

    def _beside(self, a, b):
        """
        (2,) a spot beside b for a: on the side where a comes from, or the next that is free. Of something
        flat, the side of the camera comes last.
        """
        start = np.arctan2(*(a.centre - b.centre)[1::-1])
        turns = (0, .7, -.7, 1.4, -1.4, 2.1, -2.1, np.pi)
        if b.kind is CARD:                                  # from the camera's side the hand would hide it
            turns = sorted(turns, key=lambda turn: np.cos(start + turn) < -.3)
        others = [t for t in self.things if t is not a and t is not b and (t.kind is not CARD or self.strict)]
        room = .05 if self.strict else .01
        for turn in (*turns, 0):
            way = np.array([np.cos(start + turn), np.sin(start + turn)])
            spot = b.centre[:2] + (self._gap(a, b) + .02) * way
            if np.abs(spot).max() < .18 and \
                    all(np.linalg.norm(t.centre[:2] - spot) > self._gap(a, t) + room for t in others):
                break
        return spot

    def _outside_spot(self):
        """
        where a thing goes that is taken out: before the drawer, or from a bowl toward the middle of the
        table
        """
        b = self.task.b
        if b == "drawer":
            return np.array([CABINET_X - self.opening - .16, self.drawer_y])
        return b.centre[:2] + [-.15 if b.centre[0] > 0 else .15, 0]

    # -- what is seen --------------------------------------------------------------------------------------

    def observe(self):
        return {"image": self.render() if self.size else None, "instruction": self.task.instruction}

    def render(self, size=None):
        """the camera's picture, (size, size, 3) uint8"""
        size, camera = size or self.size, self.camera
        held = [t for t in self.things if isinstance(self.held, Thing) and self.held in (t, t.inside)]
        resting = [t for t in self.things if t not in held]
        key = (size, self.style, self.opening, *((t.name, *t.position, *t.axis, t.yaw) for t in resting))
        if self._still[0] != key:                           # mostly only the hand moves: draw the rest once
            pixels = draw.background(size, camera, self.style)
            if self.opening is not None:
                draw.draw_drawer(pixels, camera, self.opening, self.drawer_y, part="back")
                if self.opening > .02:                      # else the cabinet hides them
                    self._draw_things(pixels, [t for t in resting if t.inside == "drawer"])
                draw.draw_drawer(pixels, camera, self.opening, self.drawer_y, part="front")
            self._draw_things(pixels, [t for t in resting if t.inside != "drawer"])
            self._still = (key, pixels)
        pixels = self._still[1].copy()
        width = min(1., 2 * self.held.kind.radius / .09) if isinstance(self.held, Thing) else self.gripper
        hand = (camera, self.hand[:3], *self.hand[3:], width, self.held is not None)
        draw.draw_gripper(pixels, *hand, part="back")
        self._draw_things(pixels, held)
        draw.draw_gripper(pixels, *hand, part="front")
        return (np.clip(pixels, 0, 1) * 255 + .5).astype(np.uint8)

    def _draw_things(self, pixels, things):
        # first the cards; then the farther things before the nearer ones; last what is in a container
        def order(t):
            return t.kind is not CARD, isinstance(t.inside, Thing), -t.centre[0]
        for t in sorted(things, key=order):
            if t.face:
                draw.draw_face(pixels, self.camera, t.face, t.position)
            elif t.kind is CARD:
                draw.draw_card(pixels, self.camera, t.name, t.position, t.yaw / 4)
            else:
                draw.draw_thing(pixels, self.camera, t.noun, draw.COLORS.get(t.color), t.position, t.axis,
                                t.yaw, shadow=t.inside is None)

    def facts(self):
        """
        What a person could say about the picture, for questions about the robot's own view: a list with
        {"name", "column", "row", "x", "y"} for every thing, and the same for the hand. Its name is
        "gripper". It also has "below" and "height" (over_the_table), its "state" (open, closed, or full:
        around something) and what it "held". Columns and rows run from 0 to 1, x and y are metres on the
        table.
        """
        points = np.array([t.centre for t in self.things] + [self.hand[:3]])
        pixels = self.camera.project(points)[:, :2].clip(0, .999)
        names = [*(t.name for t in self.things), "gripper"]
        facts = [{"name": name, "column": round(float(c), 4), "row": round(float(r), 4),
                  "x": round(float(p[0]), 4), "y": round(float(p[1]), 4)}
                 for name, (c, r), p in zip(names, pixels, points)]
        facts[-1] |= over_the_table(self.camera, self.hand[:3])
        facts[-1]["state"] = "full" if self.held else "open" if self.gripper >= .5 else "closed"
        facts[-1]["held"] = self.held.name if isinstance(self.held, Thing) else self.held or "nothing"
        return facts


def seen_at(camera, point):
    """where a point (3,) is in the picture. Example: {"column": 0.4, "row": 0.65}"""
    column, row = camera.project(point)[:2].clip(0, .999)
    return {"column": round(float(column), 4), "row": round(float(row), 4)}


def over_the_table(camera, hand):
    """
    How a picture shows that a hand (3,) stands over the table. "below": where the cross under it is;
    "height": how far under it the cross is, in 128ths of the picture. Both can be read from any camera's
    picture; metres could not.

    Example: 12 cm high, in the middle: {"below": {"column": .5, "row": .57}, "height": 13}
    """
    cross = hand * (1, 1, 0)
    rows = camera.project(np.array([hand, cross]))[:, 1]
    return {"below": seen_at(camera, cross), "height": int(round(128 * (rows[1] - rows[0])))}


# ----------------------------------------------------------------------------------------------------------
# demonstrations

def reword(world, rng):
    """
    The instruction of a world's task as one of many people might say it: more often than not in one of
    WORDINGS, with a thing named by its noun or colour alone where the others differ in it, and, half of the
    time, with a remark.

    Example: "move red can near apple" -> "bring the red item to the apple, if you can"
    """
    task, names = world.task, {"a": "", "b": "the drawer" if world.task.b == "drawer" else ""}
    text = INSTRUCTIONS[task.skill] if rng.random() < .4 else str(rng.choice(WORDINGS[task.skill]))
    for key in "ab":
        thing = getattr(task, key)
        if isinstance(thing, Thing):
            others, short = [t for t in world.things if t is not thing], []
            if thing.color is not None and all(t.color not in (None, thing.color) for t in others):
                short.append(f"{thing.color} item")
            if thing.color is not None and all(t.noun != thing.noun for t in others):
                short.append(thing.noun)
            shorten = short and f"the {{{key}}}" in text and rng.random() < .4
            names[key] = str(rng.choice(short)) if shorten else thing.name
    text = text.format(**names).replace("the the", "the")
    return f"{text}, {rng.choice(REMARKS)}" if rng.random() < .5 else text


def day(seed):
    """
    The lab at another hour: style and camera of a demonstration or of a trial "as in training", a little
    off the standard ones.
    """
    rng = np.random.default_rng([seed, 3])
    standard = draw.Style()
    tint = rng.uniform(.92, 1.08) * rng.uniform(.95, 1.05, 3)
    style = draw.Style(table=tuple((standard.table * tint).clip(0, 1)), floor=tuple(rng.uniform(.3, .6, 3)),
                       light=float(rng.uniform(.85, 1.1)))
    return style, draw.Camera(tilt=rng.uniform(63, 67), width=rng.uniform(.49, .51))


def episodes(seeds, vocabulary, skills, size, days=False, wordings=False, noise=.006):
    """
    The stream of demonstrations: yields for every seed a list of steps {"picture", "action", "facts",
    "instruction", ...}.

    Only successes are kept, as in the paper. Every second one starts in disorder, four of ten have nothing
    on the table but what the task needs, and what is executed is noisy. days: each has the light, the table
    and the camera of its own day. wordings: each is told in words of its own ("instruction"; "task" is the
    plain one).
    """
    world = World(vocabulary, skills, size, noise=noise)
    for seed in seeds:
        if days:
            world.style, world.camera = day(seed)
        obs, info = world.reset(seed, wild=seed % 2 == 1, alone=seed % 10 < 4)
        task = instruction = obs["instruction"]
        if wordings:
            instruction = reword(world, np.random.default_rng([seed, 5]))
        steps, terminated, truncated, reward = [], False, False, 0
        while not (terminated or truncated):
            action, facts, picture = world.expert(), world.facts(), obs["image"]
            obs, reward, terminated, truncated, info = world.step(action)
            steps.append({"picture": picture, "episode": seed, "instruction": instruction, "task": task,
                          "skill": info["skill"], "action": [round(float(a), 7) for a in action],
                          "facts": facts})
        if reward:
            yield steps
