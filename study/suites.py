"""
What the policy is asked in the paper's tables: which scene, in what light, in which words. eval.py runs it, and one more test needs
no more than one more line:

    "symbols": {"animals": ("move {a} near {animal}",)}         # a group of Table 5, a line of it, its templates

A template's first word, "pick" or "move", says the skill. {a} is a thing that the robot knows; the other placeholder, of which there is one, is a way to refer
to something that stands there, and COMPANY says what stands beside it so that the words decide. "es: move {a} near {b}" is the same sentence
in Spanish. One trial of "move {a} near {sum}": a red can, an apple, a 3 and a 4 are on the table, and the instruction
reads "move red can near the sum of two plus one".

Every emergent instruction has a word that no demonstration may have, and no card, person or new thing is in any demonstration
(tests/test_suites.py). In "same colour", "the different one" and the foreign lines the things are all known, and only the words are new.
In wishes (section 4.4, chain of thought; web.THOUGHTS) the instruction does not name the thing, and mostly not the skill either.
"""
import re
from typing import NamedTuple

import numpy as np

from world import draw, web
from world.scene import CARDS, INSTRUCTIONS, KINDS, VOCABULARIES, Request, day, person

# ---------------------------------------------------------------------------------------------------------------------
# Table 4: column -> (whose things are to be moved, how the lab looks). "pairs" are a known colour and a known thing never seen together
GENERALISATION = {
    "seen": ("robot", "as in training"),
    "objects, easy": ("pairs", "as in training"),
    "objects, hard": ("web", "as in training"),
    "backgrounds, easy": ("robot", "another table"),
    "backgrounds, hard": ("robot", "patterned table"),
    "environments, easy": ("robot", "another room"),
    "environments, hard": ("robot", "another camera"),
}

# Table 5: group -> line -> templates
EMERGENT = {
    "symbols": {
        "digits, letters": ("move {a} near {number}", "move {a} near {letter}"),
        "symbols": ("move {a} near {symbol}",),
        "animals": ("move {a} near {animal}",),
    },
    "reasoning": {
        "sums": ("move {a} near {sum}",),
        "smallest, largest": ("move {a} near {size}",),
        "categories": ("pick {category}", "move {a} near {category}"),
        "same colour": ("move {a} near {same colour}",),
        "the different one": ("pick {different}",),
        "foreign names": ("pick {es}", "pick {fr}", "pick {de}", "move {a} near {es}", "move {a} near {fr}", "move {a} near {de}"),
        "foreign sentences": tuple(f"{language}: {text}" for language in web.LANGUAGES for text in ("pick {a}", "move {a} near {b}")),
    },
    "people": {
        "by hair": ("move {a} near {hair}",),
        "glasses, hat": ("move {a} near {face}",),
    },
}

# section 4.4: line -> (which skill it takes, whose thing must be moved)
CHAIN_OF_THOUGHT = {"a wish": ("pick", "robot"), "a wish, new things": ("pick", "web"),
                    "a colour together": ("move near", "robot"), "a colour together, new things": ("move near", "pairs")}


# ---------------------------------------------------------------------------------------------------------------------
# looks: a generator -> style, camera

def _look(name, rng, days):
    style, camera = day(rng.integers(2 ** 31)) if days else (draw.Style(), draw.Camera())
    if name == "another table":                             # one colour, as in training, but not that one
        style = draw.Style(table=tuple(rng.uniform(.35, .95, 3)), floor=style.floor, light=style.light)
    elif name == "patterned table":
        style = draw.Style(table=tuple(rng.uniform(.35, .95, 3)), floor=style.floor, light=style.light,
                           texture=str(rng.choice(["wood", "stripes", "checks", "speckles", "cloth"])), clutter=int(rng.integers(2 ** 31)))
    elif name == "another room":                            # table, floor and light are others, the camera has been moved a little
        style = draw.Style(table=tuple(rng.uniform(.35, .95, 3)), floor=tuple(rng.uniform(.2, .9, 3)), light=float(rng.uniform(.65, 1.2)))
        camera = draw.Camera(tilt=65 + rng.choice([-4, 4]), width=.5)
    elif name == "another camera":                          # all of it, a pattern and clutter, and the camera stands elsewhere
        style = draw.Style(table=tuple(rng.uniform(.35, .95, 3)), floor=tuple(rng.uniform(.2, .9, 3)), light=float(rng.uniform(.65, 1.2)),
                           texture=str(rng.choice(["wood", "stripes", "checks", "speckles", "cloth"])), clutter=int(rng.integers(2 ** 31)))
        camera = draw.Camera(tilt=65 + rng.choice([-9, 9]), width=rng.uniform(.52, .58))
    return style, camera


# ---------------------------------------------------------------------------------------------------------------------
# company: what stands there, for each way to refer to one of them

def _some(rng, pool, n):
    pool = list(pool)
    return [str(x) for x in rng.permutation(pool)[:n]]


def _people(rng, names, n):
    return [web.someone(rng, hair, names["wears"]) for hair in _some(rng, names["hair"], n)]


def _alike(rng, names):
    """two with the same noun, one with another"""
    nouns = [n.split()[-1] for n in names["robot"]]
    noun = str(rng.choice([n for n in dict.fromkeys(nouns) if nouns.count(n) > 1]))
    return _some(rng, [n for n in names["robot"] if n.split()[-1] == noun], 2) + _some(rng, [n for n in names["robot"] if n.split()[-1] != noun], 1)


def _cards(category):
    def two(rng, names):
        first = _some(rng, [c for c in names["cards"] if c in CARDS[category]], 1)
        return first + _some(rng, [c for c in names["cards"] if c not in first], 1)
    return two


COMPANY = {
    **{category: _cards(category) for category in CARDS},
    "hair": lambda rng, names: _people(rng, names, 2),
    "face": lambda rng, names: _people(rng, names, 2),
    "sum": lambda rng, names: _some(rng, [c for c in names["cards"] if c.isdigit()], 2),
    "size": lambda rng, names: _some(rng, [c for c in names["cards"] if c.isdigit()], 2),
    "category": lambda rng, names: _some(rng, [*names["robot"], *names["pairs"], *names["web"]], 2),
    "same colour": lambda rng, names: _some(rng, names["robot"], 2),
    "different": _alike,
    **{language: lambda rng, names: _some(rng, names["robot"], 2) for language in web.LANGUAGES},
}


def _facts(things):
    """what web.REFERENCES wants to know of things"""
    facts = []
    for t in things:
        if isinstance(t, dict):
            facts.append({"name": person(t), "face": t})
        else:
            facts.append({"name": t, "category": web.CARD_CATEGORY.get(t) or KINDS[t.split()[-1]].category})
    return facts


def request(template, rng, vocabulary) -> Request:
    """
    A scene and an instruction from a template.
    Example: request("move {a} near {sum}", rng, "medium") -> Request("move near", ("red can", "apple", "3", "4"), 0, 2,
        "move red can near the sum of two plus one")
    """
    names = VOCABULARIES[vocabulary]
    language, _, text = template.rpartition(": ")
    skill = {"pick": "pick", "move": "move near"}.get(text.partition(" ")[0])
    kinds = [k for k in re.findall("{([^}]+)}", text) if k in COMPANY]
    if not skill or language and language not in web.LANGUAGES or len(kinds) != (not language):
        raise ValueError(f"the template {template!r} cannot be asked: it begins with pick or move and has one of {', '.join(COMPANY)} in braces, "
                         f"beside {{a}}; or it is a whole sentence of one of the languages {', '.join(web.LANGUAGES)}, as \"es: pick {{a}}\"")
    if language:                                            # nothing but known things, in words that the robot never heard
        things = _some(rng, names["robot"], 4)
        b = things[1] if skill == "move near" else ""
        return Request(skill, tuple(things), 0, 1 if b else None, web.say(skill, language, things[0], b))
    kind, = kinds
    for _ in range(1000):                                   # until the reference means one thing alone
        company = COMPANY[kind](rng, names)
        known = _some(rng, [n for n in names["robot"] if n not in company], 2)
        things = [*known, *company][:4] if skill == "move near" else company + known[:3 - len(company)]
        facts = _facts(things)
        first = things.index(company[0])
        phrase, meant = web.REFERENCES[kind](facts, rng) or ("", None) if kind in web.REFERENCES else (facts[first]["name"], facts[first])
        at = next((i for i, f in enumerate(facts) if f is meant), 0)
        movable = isinstance(things[at], str) and things[at].split()[-1] in KINDS
        if not phrase or things[at] not in company or skill == "pick" and not movable \
                or kind == "same colour" and not phrase.endswith(f" {things[0]}"):
            continue
        a, b = (0, at) if skill == "move near" else (at, None)
        return Request(skill, tuple(things), a, b, text.format_map({"a": things[0], kind: phrase}))
    raise ValueError(f"the vocabulary {vocabulary!r} has nothing for the template {template!r}")


def wish(line, rng, vocabulary) -> Request:
    """
    A scene and an instruction that takes a thought.
    Example: Request("pick", ("blue can", "apple", "sponge", "red block"), 0, None, "I am thirsty")
    """
    names, (skill, whose) = VOCABULARIES[vocabulary], CHAIN_OF_THOUGHT[line]
    for _ in range(10_000):
        things = _some(rng, names[whose], 1) + _some(rng, names["robot"], 3)
        said = web.thought(things, INSTRUCTIONS[skill].format(a=things[0], b=things[1]), rng)
        if said and len(set(things)) == 4:
            together = skill == "move near"                 # two things belong together, whichever goes to the other
            return Request(skill, tuple(things), 0, 1 if together else None, said, either=together)
    raise ValueError(f"the vocabulary {vocabulary!r} has nothing for {line!r}")


# ---------------------------------------------------------------------------------------------------------------------

class Suite(NamedTuple):
    """a line of a table. templates, or the skills, targets and look of a line of Table 4"""
    table: str
    group: str
    name: str
    templates: tuple = ()
    skills: tuple = ()
    targets: str = "robot"
    look: str = "as in training"

    def questions(self):
        """the web questions that ask for the same: [(kind, about)], as eval.web_accuracy takes them"""
        if any(":" in t for t in self.templates):
            return [("translation", None)]
        kinds = dict.fromkeys(k for t in self.templates for k in re.findall("{([^}]+)}", t) if k in COMPANY)
        return [(f"where {k}", None) if k in web.REFERENCES else ("locate", k) for k in kinds]

    def trial(self, seed, c):
        """what world.World and its reset need for the trial of this seed; c: the configuration that the model was trained with"""
        rng = np.random.default_rng([seed, 4])
        style, camera = _look(self.look, rng, c.get("days", False))
        if self.skills:
            return style, camera, {"skill": self.skills[seed % len(self.skills)], "targets": self.targets}
        made = wish(self.name, rng, c["vocabulary"]) if self.table == "thought" else \
            request(self.templates[seed % len(self.templates)], rng, c["vocabulary"])
        return style, camera, {"request": made}


def suites(c) -> list[Suite]:
    """every line of every table that a model of this configuration can be asked"""
    names, both = VOCABULARIES[c["vocabulary"]], tuple(s for s in ("pick", "move near") if s in c["skills"])
    found = []
    if both:
        found += [Suite("generalisation", "seen" if column == "seen" else "unseen", column, skills=both, targets=targets, look=look)
                  for column, (targets, look) in GENERALISATION.items() if names[targets]]
    if names["cards"] and len(both) == 2:
        found += [Suite("emergent", group, line, templates) for group, lines in EMERGENT.items() for line, templates in lines.items()]
        found += [Suite("thought", "thought", line) for line in CHAIN_OF_THOUGHT]
    return found
