"""
"The web": pictures that come with no action, and questions about them. It stands for the billion captioned
pictures and the visual question answering sets of the paper (appendix B). Here a noun, a symbol, a face or a
word of another language is met in many pictures, and no demonstration has it. Some pictures show a robot's
hand, as a photograph would; what it does is not told.

    pixels, facts = draw_picture(rng, size=64, names=[...])      what is drawn, and the truth about it
    ask(facts, "locate", rng) -> ("Q: where is the duck? A:", " 12 20")

A fact is {"name", "column", "row", ...}; columns and rows run from 0 to 1. Places are answered on a grid of
32 x 32, in the same integer words as the bins of the arm: seeing and acting share their vocabulary.
"""
import numpy as np

from tokenizer import plan, tidy, wish
from world import draw
from world.scene import (CARD, CARDS, COLORS, INSTRUCTIONS, KINDS, STEP, VOCABULARIES, WORDINGS, level,
                         over_the_table, person)

GRID = 32
CARD_CATEGORY = {**{card: category for category, cards in CARDS.items() for card in cards},
                 **{f"{c} mat": "mat" for c in COLORS}}
# the colour of things that come in one colour only
NATURAL = {"apple": "red", "orange": "orange", "sponge": "yellow", "strawberry": "red", "banana": "yellow",
           "duck": "yellow", "pear": "green", "carrot": "orange", "eggplant": "purple", "mushroom": "red",
           "phone": "black"}

# the article carries the gender, which the adjective follows
LANGUAGES = {
    "es": {"apple": "la manzana", "orange": "la naranja", "can": "la lata", "cup": "la taza",
           "bowl": "el tazón", "block": "el bloque", "bottle": "la botella", "sponge": "la esponja",
           "bag": "la bolsa", "marker": "el rotulador", "banana": "el plátano", "strawberry": "la fresa",
           "pear": "la pera", "carrot": "la zanahoria", "eggplant": "la berenjena", "mushroom": "la seta",
           "duck": "el pato", "ball": "la pelota", "hammer": "el martillo", "phone": "el teléfono"},
    "fr": {"apple": "la pomme", "orange": "l'orange", "can": "la canette", "cup": "la tasse",
           "bowl": "le bol", "block": "le cube", "bottle": "la bouteille", "sponge": "l'éponge",
           "bag": "le sac", "marker": "le feutre", "banana": "la banane", "strawberry": "la fraise",
           "pear": "la poire", "carrot": "la carotte", "eggplant": "l'aubergine",
           "mushroom": "le champignon", "duck": "le canard", "ball": "la balle", "hammer": "le marteau",
           "phone": "le téléphone"},
    "de": {"apple": "der Apfel", "orange": "die Orange", "can": "die Dose", "cup": "die Tasse",
           "bowl": "die Schüssel", "block": "der Klotz", "bottle": "die Flasche", "sponge": "der Schwamm",
           "bag": "die Tüte", "marker": "der Stift", "banana": "die Banane", "strawberry": "die Erdbeere",
           "pear": "die Birne", "carrot": "die Karotte", "eggplant": "die Aubergine", "mushroom": "der Pilz",
           "duck": "die Ente", "ball": "der Ball", "hammer": "der Hammer", "phone": "das Telefon"},
}
# (masculine, feminine); German adjectives after "der, die, das" end alike
ADJECTIVES = {
    "es": dict(zip(COLORS, (("rojo", "roja"), ("verde",) * 2, ("azul",) * 2, ("amarillo", "amarilla"),
                            ("morado", "morada"), ("blanco", "blanca"), ("marrón",) * 2,
                            ("negro", "negra")))),
    "fr": dict(zip(COLORS, (("rouge",) * 2, ("vert", "verte"), ("bleu", "bleue"), ("jaune",) * 2,
                            ("violet", "violette"), ("blanc", "blanche"), ("marron",) * 2,
                            ("noir", "noire")))),
    "de": dict(zip(COLORS, ("rote", "grüne", "blaue", "gelbe", "lila", "weiße", "braune", "schwarze"))),
}
WHERE = {"es": "¿dónde está {}?", "fr": "où est {}?", "de": "wo ist {}?"}
# whole sentences; say() adapts the articles
SENTENCES = {"pick": {"es": "toma {a}", "fr": "prends {a}", "de": "nimm {a}"},
             "move near": {"es": "mueve {a} cerca de {b}", "fr": "déplace {a} près de {b}",
                           "de": "bewege {a} neben {b}"}}
# Wishes (section 4.4): what a person says -> what is wanted, as nouns or categories; and TOGETHER, what is
# said of all things of a colour
WISHES = {
    "I am thirsty": ("drink",), "bring me something to drink": ("drink",),
    "I am hungry": ("fruit", "snack"), "bring me some fruit": ("fruit",),
    "I would like a snack": ("snack",),
    "the child wants to play": ("toy",), "bring me a toy": ("toy",),
    "I spilled my tea": ("sponge",), "bring me what I can clean with": ("sponge",),
    "I want to make coffee": ("cup",), "bring me what I can write with": ("marker",),
    "I want to drive in a nail": ("hammer",),
}
TOGETHER = ("move all the {} things together", "the {} things belong together")


def translate(name: str, language: str) -> str:
    """
    The name of a thing with its article, in lower case, as tokenizer.tidy writes all instructions.
    Example: translate("red cup", "es") -> "la taza roja", translate("red cup", "de") -> "die rote tasse"
    """
    *color, noun = name.split()
    article, _, word = LANGUAGES[language][noun].lower().rpartition(" ")
    if not color:
        return f"{article} {word}".strip()
    if language == "de":
        return f"{article} {ADJECTIVES['de'][color[0]]} {word}"
    return f"{article} {word} {ADJECTIVES[language][color[0]][article == 'la']}"


def say(skill: str, language: str, a: str, b: str = "") -> str:
    """
    An instruction in another language.
    Example: say("move near", "es", "apple", "green cup") -> "mueve la manzana cerca de la taza verde"
             say("pick", "de", "blue block") -> "nimm den blauen klotz"
    """
    def put(name):
        words = translate(name, language).split() if name else []
        if language == "de" and words[:1] == ["der"]:       # the accusative of the masculine
            words[0] = "den"
            if len(words) == 3 and words[1] != "lila":
                words[1] += "n"
        return " ".join(words)
    text = SENTENCES[skill][language].format(a=put(a), b=put(b))
    return text.replace("de el ", "del ") if language == "es" else text.replace("de le ", "du ")


def place(fact) -> str:
    """Example: place({"column": 0.4, "row": 0.99}) -> " 12 31" """
    return f" {int(fact['column'] * GRID)} {int(fact['row'] * GRID)}"


# ----------------------------------------------------------------------------------------------------------
# pictures

def on_the_web(vocabulary: str) -> dict:
    """What web pictures show, as draw_picture takes it."""
    names = VOCABULARIES[vocabulary]
    return dict(names=[*names["robot"], *names["pairs"], *names["web"]],
                cards=[*names["cards"], *names["mats"]], hair=[*names["hair"]], wears=[*names["wears"]])


def theme(rng, names, cards, hair):
    """
    What a picture of several things is about, as names to draw in this order; [] for anything. Half of such
    pictures have a theme, because "the sum", "the different one" and "the person with the hat" need others of
    their kind beside them.

    Example: ["3", "5", "red can"], or two of a sort and one that is not: ["red can", "blue can", "green cup"]
    """
    what = rng.random()
    if what < .15:
        digits = rng.permutation([c for c in cards if c.isdigit()])
        return [str(n) for n in digits[:rng.integers(2, 4)]]
    if what < .25:
        return [str(n) for n in rng.permutation([c for c in cards if not c.endswith(" mat")])[:3]]
    if what < .35:
        return [str(n) for n in rng.permutation(hair)[:3]]
    if what < .5:                                           # two that share a noun or a colour, and another
        alike = (lambda n: n.split()[-1]) if rng.random() < .5 else colour_of
        pairs = [n for n in names if alike(n) and sum(alike(n) == alike(m) for m in names) > 1]
        if not pairs or len({alike(n) for n in names}) == 1:
            return []
        first = str(rng.choice(pairs))
        second = str(rng.choice([n for n in names if alike(n) == alike(first) and n != first]))
        return [first, second, str(rng.choice([n for n in names if alike(n) != alike(first)]))]
    return []


def someone(rng, hair, wears):
    """
    A face as draw.draw_face takes it, with each of what people may wear by chance.
    Example: {"hair": "white", "glasses": True, "hat": False, "beard": False}
    """
    return {"hair": hair, **{w: w in wears and bool(rng.random() < .5) for w in ("glasses", "hat", "beard")}}


def draw_picture(rng, size, names, cards=(), hair=(), wears=()):
    """
    One picture: one thing (40 %) or two to four, of the given names, cards and people (by their hair, and
    what they may wear), before a random background, from a random camera, with colours that vary. Where all
    three are given, somebody's arm or a robot's hand is in some of the pictures.

    Returns pixels (size, size, 3) uint8 and the list of facts.
    """
    camera = draw.Camera(tilt=rng.uniform(45, 80), width=rng.uniform(.42, .66))
    style = draw.Style(light=float(rng.uniform(.8, 1.15)))
    if rng.random() < 0.75:                                 # else a plain table: there are such photos, too
        textures = ["plain", "wood", "stripes", "checks", "speckles", "cloth"]
        style = draw.Style(table=tuple(rng.uniform(.35, .95, 3)), floor=tuple(rng.uniform(.2, .9, 3)),
                           light=style.light, texture=str(rng.choice(textures)))
    pixels = draw.background(size, camera, style)
    facts = _scene(rng, camera, names, cards, hair, wears)
    for f in sorted(facts, key=lambda f: -f["x"]):          # the farthest first
        at = np.array([f["x"], f["y"], 0.])
        if "face" in f:
            draw.draw_face(pixels, camera, f["face"], at)
        elif f["name"] in CARD_CATEGORY:
            draw.draw_card(pixels, camera, f["name"], at, yaw=f["yaw"] / 4)
        else:
            draw_named(pixels, camera, f["name"], at, f["yaw"])
    reaches_in = rng.random() if len(names) and len(cards) and len(hair) else 1.
    if reaches_in < .3:
        draw_arm(pixels, facts, rng)
    elif reaches_in < .75:
        draw_hand(pixels, facts, camera, names, rng)
    pixels = pixels * rng.uniform(.85, 1.15, 3) + rng.normal(0, .02, pixels.shape)
    return (np.clip(pixels, 0, 1) * 255 + .5).astype(np.uint8), facts


def draw_named(pixels, camera, name, at, yaw, shadow=True):
    """Example: name = "red can", or "apple", which has a colour of its own"""
    *color, noun = name.split()
    rgb = draw.COLORS[color[0]] if color else None
    draw.draw_thing(pixels, camera, noun, rgb, at, yaw=yaw, shadow=shadow)


def _scene(rng, camera, names, cards, hair, wears):
    """what lies where: the list of facts, with x, y (metres) and yaw for drawing"""
    n = 1 if rng.random() < 0.4 else int(rng.integers(2, 5))
    pools = [p for p in (names, cards, hair) if len(p)]
    weights = np.array([3., 2., 1.][:len(pools)])
    wanted = theme(rng, names, cards, hair) if len(pools) == 3 and n > 1 else []
    n = len(wanted) or n
    facts, spots = [], []
    for _ in range(50):
        if len(facts) == n:
            break
        spot = rng.uniform(-.21, .21, 2)
        column, row, _ = camera.project(np.array([*spot, .03]))
        inside = .06 < column < .94 and .08 < row < .94
        if not inside or any(np.linalg.norm(spot - s) < .115 for s in spots):
            continue
        if wanted:
            name = wanted[len(facts)]
            pool = next(p for p in pools if name in p)
        else:
            pool = pools[rng.choice(len(pools), p=weights / weights.sum())]
            name = str(pool[rng.integers(len(pool))])
        if any(f["name"] == name for f in facts):
            continue
        spots.append(spot)
        fact = {"name": name, "column": float(column), "row": float(row), "x": float(spot[0]),
                "yaw": float(rng.uniform(-1.57, 1.57))}
        if pool is names:
            kind = KINDS[name.split()[-1]]
            fact["category"] = kind.category
            centre = camera.project(np.array([*spot, kind.height / 2]))
            fact["column"], fact["row"] = float(centre[0]), float(centre[1])
        elif pool is hair:
            fact["face"] = someone(rng, name, wears)
            fact["name"] = person(fact["face"])
        else:
            fact["category"] = CARD_CATEGORY[name]
        facts.append({**fact, "y": float(spot[1])})
    return facts


def draw_arm(pixels, facts, rng):
    """
    Somebody's arm reaches into the picture and hides parts of things, as the hand of the robot hides what
    it is near. No arm is drawn where it would pass over the middle of a thing.
    """
    at, angle = np.array([[f["column"], f["row"]] for f in facts]), rng.uniform(0, 2 * np.pi)
    hand = at[rng.integers(len(at))] + rng.uniform(.05, .11) * np.array([np.cos(angle), np.sin(angle)])
    angle += rng.uniform(-1, 1)
    arm = np.array([np.cos(angle), np.sin(angle)])
    beyond = ((at - hand) @ arm).clip(0)[:, None]           # how far along the arm each thing is
    width, sleeve = rng.uniform(.09, .16), rng.uniform(.1, .9, 3)
    skin = np.array([.85, .65, .5]) * rng.uniform(.4, 1.1)
    if np.linalg.norm(at - hand - beyond * arm, axis=1).min() > .045:
        draw.stroke(pixels, [hand + .03 * arm, hand + 1.5 * arm], width, sleeve)
        draw.stroke(pixels, [hand], .8 * width, skin)


def draw_hand(pixels, facts, camera, names, rng):
    """
    A photograph of a robot's hand: where it is, how it stands over the table and what it holds are known,
    what it does is not. Nothing is drawn where the hand would hide the middle of a thing. Adds its fact.
    """
    at = rng.uniform((-.2, -.2, .02), (.2, .2, .2))
    column, row, _ = camera.project(at)
    cross = over_the_table(camera, at)["below"]
    inside = .06 < column < .94 and .08 < row < .94 and max(cross.values()) < .96
    if not inside or any(np.hypot(f["column"] - column, f["row"] - row) < .07 for f in facts):
        return
    held, state, turn = "nothing", "full", (*rng.normal(0, .1, 2), rng.uniform(-.8, .8))
    others = [n for n in names if all(f["name"] != n for f in facts)]
    if rng.random() < .5 and others:
        held = str(others[rng.integers(len(others))])
        kind = KINDS[held.split()[-1]]
        at[2] = max(at[2], kind.height / 2 + .01)           # what it holds is above the table
        width = min(1., 2 * kind.radius / .09)
        draw.draw_gripper(pixels, camera, at, *turn, width, True, part="back")
        draw_named(pixels, camera, held, at - (0, 0, kind.height / 2), turn[2], shadow=False)
        draw.draw_gripper(pixels, camera, at, *turn, width, True, part="front")
        column, row, _ = camera.project(at)
    else:
        state = "open" if rng.random() < .7 else "closed"
        draw.draw_gripper(pixels, camera, at, *turn, float(state == "open"))
    facts.append({"name": "gripper", "column": float(column), "row": float(row), "x": float(at[0]),
                  "y": float(at[1]), "held": held, "state": state, "photo": True,
                  **over_the_table(camera, at)})


def web_pictures(seeds, size, names, cards, hair, wears):
    """the stream of web pictures: "episodes" of one step {"picture", "facts"}"""
    for seed in seeds:
        picture, facts = draw_picture(np.random.default_rng([seed, 1]), size, names, cards, hair, wears)
        yield [{"picture": picture, "facts": facts}]


# ----------------------------------------------------------------------------------------------------------
# Questions. A question type is a function (facts, rng) -> (question, answer), or None where the picture does
# not allow such a question.

def _one(facts, rng):
    return facts[rng.integers(len(facts))] if facts else None


def _hand(facts):
    return next((f for f in facts if f["name"] == "gripper"), None)


def _things(facts):
    return [f for f in facts if f["name"] != "gripper"]


def locate(facts, rng):
    f = _one(facts, rng)
    return f and (f"where is the {f['name']}?", place(f))


def what_at(facts, rng):
    f = _one(_things(facts), rng)
    return f and (f"what is at{place(f)}?", f" {f['name']}")


def caption(facts, rng):
    """what is in the picture, from left to right"""
    names = [f["name"] for f in _things(sorted(facts, key=lambda f: f["column"]))]
    return ("what is in the picture?", " " + ", ".join(names)) if names else None


def relation(facts, rng):
    """what is left or right of a thing, where only one answer is right"""
    order = sorted(_things(facts), key=lambda f: f["column"])
    if len(order) != 2 or order[1]["column"] - order[0]["column"] < .1:
        return None
    i = rng.integers(2)
    return f"what is {('left', 'right')[i]} of the {order[1 - i]['name']}?", f" {order[i]['name']}"


def color(facts, rng):
    """of a thing whose noun no other coloured thing shares"""
    colored = [f["name"].split() for f in facts if f["name"].split()[0] in COLORS]
    nouns = [noun for _, noun in colored]
    c, noun = _one([cn for cn in colored if nouns.count(cn[1]) == 1], rng) or (None, None)
    return noun and (f"what colour is the {noun}?", f" {c}")


def category(facts, rng):
    f = _one([f for f in facts if f.get("category")], rng)
    return f and (f"what kind of thing is the {f['name']}?", f" {f['category']}")


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _sum(value, rng):
    a = int(rng.integers(0, value + 1))
    return f"{NUMBERS[a]} plus {NUMBERS[value - a]}"


def sums(facts, rng):
    """arithmetic without looking"""
    value = int(rng.integers(0, 10))
    return f"what is the sum of {_sum(value, rng)}?", f" {value}"


def translation(facts, rng):
    """
    a sentence in English, without looking; about things in the picture, so that no word comes from
    elsewhere
    """
    names = [f["name"] for f in facts if f["name"].split()[-1] in KINDS]
    if len(names) < 2:
        return None
    language = tuple(LANGUAGES)[rng.integers(3)]
    if rng.random() < .5:
        return f"what is \"{say('pick', language, names[0])}\" in English?", f" pick {names[0]}"
    sentence = say("move near", language, names[0], names[1])
    return f"what is \"{sentence}\" in English?", f" move {names[0]} near {names[1]}"


# -- Ways to refer to a thing without its name: functions (facts, rng) -> (phrase, fact). The phrase means
#    that fact alone.

def by_name(facts, rng):
    f = _one(facts, rng)
    return f and (f["name"], f)


def by_category(facts, rng):
    """the only thing of its category"""
    categories = [f.get("category") for f in facts]
    f = _one([f for f in facts if f.get("category") and categories.count(f["category"]) == 1], rng)
    return f and (f"the {f['category']}", f)


def by_face(facts, rng):
    """the only person that wears it"""
    people = [f for f in facts if "face" in f]
    wears = [(f, w) for f in people for w in ("glasses", "hat", "beard")
             if f["face"][w] and sum(p["face"][w] for p in people) == 1]
    f, w = _one(wears, rng) or (None, None)
    return f and (f"the person with {'glasses' if w == 'glasses' else 'a ' + w}", f)


def by_sum(facts, rng):
    f = _one([f for f in facts if f["name"].isdigit()], rng)
    return f and (f"the sum of {_sum(int(f['name']), rng)}", f)


def by_size(facts, rng):
    """the smallest or largest number"""
    digits = sorted((f for f in facts if f["name"].isdigit()), key=lambda f: int(f["name"]))
    i = -int(rng.integers(2))
    return (f"the {('smallest', 'largest')[-i]} number", digits[i]) if len(digits) > 1 else None


def colour_of(name):
    """Example: colour_of("green cup") -> "green", colour_of("apple") -> "red", colour_of("heart") -> None"""
    return name.split()[0] if name.split()[0] in COLORS else NATURAL.get(name)


def by_same_colour(facts, rng):
    """the only other thing that has the colour of a thing"""
    pairs = [(f, g) for f in facts for g in facts
             if f is not g and colour_of(f["name"]) and colour_of(f["name"]) == colour_of(g["name"])]
    f, g = _one([(f, g) for f, g in pairs if sum(f is h for h, _ in pairs) == 1], rng) or (None, None)
    return f and (f"the thing of the same colour as the {g['name']}", f)


def by_difference(facts, rng):
    """
    The thing whose noun no other has, among three or more, where all the others share one noun. None where
    one of these others differs from the rest by its colour: it might be meant as well.
    """
    nouns, colours = [f["name"].split()[-1] for f in facts], [colour_of(f["name"]) for f in facts]
    if len(set(colours)) == 2 and any(colours.count(c) == 1 and nouns.count(n) > 1
                                      for c, n in zip(colours, nouns)):
        return None
    odd = [f for f, noun in zip(facts, nouns) if nouns.count(noun) == 1 and noun in KINDS]
    if len(nouns) > 2 and len(odd) == 1 and len(set(nouns)) == 2:
        return "the thing that is different", odd[0]
    return None


def _by_language(language):
    def by_language(facts, rng):
        f = _one([f for f in facts if f["name"].split()[-1] in KINDS], rng)
        return f and (translate(f["name"], language), f)
    return by_language


REFERENCES = {"category": by_category, "face": by_face, "sum": by_sum, "size": by_size,
              "same colour": by_same_colour, "different": by_difference,
              **{language: _by_language(language) for language in LANGUAGES}}


# -- What may be asked about the thing that is referred to: its position, its name.

def _where(reference):
    def where(facts, rng):
        found = REFERENCES[reference](_things(facts), rng)
        return found and (WHERE.get(reference, "where is {}?").format(found[0]), place(found[1]))
    return where


def _what(reference):
    def what(facts, rng):
        found = REFERENCES[reference](_things(facts), rng)
        return found and (f"what is {found[0]}?", f" {found[1]['name']}")
    return what


# -- Ways: from one thing toward another, in the bins of dx and dy.

def way(facts, rng):
    """
    The step that leads from one thing toward another, dx and dy in the words of the arm: away and left are
    above 128. In the robot's picture, the step from the gripper. A spatial relation, answered as the arm
    would answer it.
    """
    things = _things(facts)
    goal = _one(things, rng)
    hand = _hand(facts)
    # a way from a photographed hand would be a movement
    start = hand if hand and "photo" not in hand else _one([f for f in things if f is not goal], rng)
    if goal is None or start is None:
        return None
    return f"which way is the {goal['name']} from the {start['name']}?", step_toward(start, goal)


def step_toward(start, goal):
    """
    The step of the arm from one fact toward another, in the expert's sizes (scene.level).
    Example: the goal is 3 cm farther away and 9 cm to the right: " 192 0"
    """
    steps = [level(goal[k] - start[k], STEP) / STEP for k in ("x", "y")]                # -1 to 1
    return "".join(f" {min(255, int((step + 1) * 128))}" for step in steps)


def _which_way(skill, instruction, start, goal):
    """
    The step from start toward goal. To move, start is what is moved. To pick, it is any other thing, and the
    question names it. As many tokens stand before the instruction as in the robot's prompt. So each of its
    words has the position that it has there, and means there what the web has taught.
    """
    origin = f", from the {start['name']}" if skill == "pick" else ""
    return f"which way should the robot go to {tidy(instruction)}{origin}?", step_toward(start, goal)


def _go(reference=None):
    def go(facts, rng):
        """
        An instruction in the robot's own words, about a web picture. Here cards and people are
        moved, too, although no hand can take them.

        Example: "which way should the robot go to move apple near the sum of two plus one?"
            -> the step from the apple toward the 3
            "which way should the robot go to pick the fruit, from the heart?"
            -> the step from the heart toward the apple
        """
        facts = _things(facts)
        phrase, goal = REFERENCES.get(reference, by_name)(facts, rng) or ("", None)
        start = goal and _one([f for f in facts if f is not goal], rng)
        if start is None:
            return None
        skill = "pick" if goal["name"].split()[-1] in KINDS and rng.random() < .5 else "move near"
        wordings = WORDINGS[skill]
        text = INSTRUCTIONS[skill] if rng.random() < .5 else wordings[rng.integers(len(wordings))]
        last = "{a}" if skill == "pick" else "{b}"
        if reference:                                       # such a phrase brings its own article
            text = text.replace(f"the {last}", last)
        instruction = text.format(a=phrase if skill == "pick" else start["name"], b=phrase)
        return _which_way(skill, instruction, start, goal)
    return go


def go_by_sentence(facts, rng):
    """the same for a whole instruction in another language"""
    things = [f for f in facts if f["name"].split()[-1] in KINDS]
    if len(things) < 2:
        return None
    start, goal = (things[i] for i in rng.permutation(len(things))[:2])
    skill, language = ("pick", "move near")[rng.integers(2)], tuple(LANGUAGES)[rng.integers(3)]
    names = [f["name"] for f in ((goal,) if skill == "pick" else (start, goal))]
    return _which_way(skill, say(skill, language, *names), start, goal)


# -- Wishes (section 4.4).

def wish_for(names, instruction, rng):
    """
    Another way to say an instruction, which means nothing else among things with these names; None if there
    is none.

    Example: wish_for(["apple", "blue can"], "pick blue can", rng) -> "I am thirsty"
    """
    skill, _, what = instruction.partition(" ")
    a, _, b = what.partition(" near ")
    wishes = []
    if skill == "pick":
        def fits(name, wanted):
            noun = name.split()[-1]
            return noun in wanted or KINDS.get(noun, CARD).category in wanted
        wishes = [text for text, wanted in WISHES.items() if [n for n in names if fits(n, wanted)] == [a]]
    elif skill == "move" and b and colour_of(a):
        if sorted(n for n in names if colour_of(n) == colour_of(a)) == sorted([a, b]):
            wishes = [text.format(colour_of(a)) for text in TOGETHER]
    return str(rng.choice(wishes)) if wishes else None


def wished(facts, rng):
    """
    A wish, and the plan that would fulfil it; in a picture there is nothing more to do.
    Example: ("Instruction: I am thirsty.", " Plan: pick red can.")
    """
    names = [f["name"] for f in _things(facts)]
    things = [n for n in names if n.split()[-1] in KINDS]
    moves = [INSTRUCTIONS["move near"].format(a=a, b=b) for a in things for b in names if a != b]
    picks = [INSTRUCTIONS["pick"].format(a=a) for a in things]
    for tasks in (moves, picks):                            # few pictures allow a move, so it goes first
        found = _one([(text, task) for task in tasks if (text := wish_for(names, task, rng))], rng)
        if found:
            return wish(found[0]), plan(found[1])
    return None


# -- Questions about a robot's hand: in the robot's own picture (the paper's Language-Table runs have such
#    questions, appendix B), and in photographs, where it stands over other tables.

def gripper(facts, rng):
    f = _hand(facts)
    return f and ("where is the gripper?", place(f))


def below(facts, rng):
    f = _hand(facts)
    return f and ("what place is below the gripper?", place(f["below"]))


def height(facts, rng):
    """in 128ths of the picture"""
    f = _hand(facts)
    return f and ("how high is the gripper?", f" {f['height']}")


def state(facts, rng):
    f = _hand(facts)
    return f and ("how is the gripper?", f" {f['state']}")


def held(facts, rng):
    f = _hand(facts)
    return f and ("what does the gripper hold?", f" {f['held']}")


# the types whose words the tokenizer learns where there are no cards (record.corpus)
PLAIN = {"locate": locate, "what at": what_at, "caption": caption, "relation": relation, "way": way,
         "color": color, "where category": _where("category"), "kind of": category,
         "where face": _where("face"), "sums": sums, "where sum": _where("sum"), "where size": _where("size"),
         "where es": _where("es"), "where fr": _where("fr"), "where de": _where("de"),
         "gripper": gripper, "below": below, "height": height, "state": state, "held": held}


def _framed(question_type):
    def framed(facts, rng):
        found = question_type(facts, rng)
        return found and (f"Q: {found[0]} A:", found[1])
    return framed


# All types, by the names that presets use. Wishes are prompts already (tokenizer.wish); the others get their
# frame here. record.corpus draws in this order.
QUESTIONS = {**{name: _framed(question) for name, question in PLAIN.items()},
             "translation": _framed(translation),
             "go": _framed(_go()), "go sentence": _framed(go_by_sentence), "wish": wished,
             **{f"{form} {reference}": _framed(make(reference))
                for form, make in (("where", _where), ("go", _go), ("what", _what))
                for reference in REFERENCES}}


def ask(facts, question_type, rng):
    """
    One question of a type about a picture, or None where the picture does not allow it.
    Example: ask([{"name": "duck", "column": .4, "row": .65}], "locate", rng)
        -> ("Q: where is the duck? A:", " 12 20")
    """
    if question_type not in QUESTIONS:
        raise ValueError(f"unknown question type {question_type!r}; there are: {', '.join(QUESTIONS)}")
    return QUESTIONS[question_type](facts, rng)
