"""
What the policy is asked in the paper's tables: which scene, in what light, in which words. One more test
needs no more than one more line here:

    "symbols": {"animals": ("move {a} near {animal}",)}     # a group of table 5, a line of it, its templates

The first word of a template, "pick" or "move", is the skill. {a} is a thing that the robot knows. The other
placeholder, of which there is one, is a way to refer to something on the table. DISTRACTORS draws that
something and what stands beside it, so that only the words decide. "es: move {a} near {b}" is the same
sentence in Spanish.

One trial of "move {a} near {sum}": a red can, an apple, a 3 and a 4 are on the table, and the instruction is
"move red can near the sum of two plus one".

Every emergent instruction has a word that no demonstration may have, and no card, person or new thing is in
any demonstration (tests/test_suites.py). In "same colour", "the different one" and the foreign lines all
things are known, and only the words are new. A wish (section 4.4, chain of thought) does not name the thing,
and mostly not the skill.
"""
import re

import numpy as np

import data
import tokenizer
from eval import Line
from world import trials, web
from world.scene import CARDS, INSTRUCTIONS, KINDS, VOCABULARIES, Request, person

# Table 4: column -> (whose things are to be moved, how the lab looks: trials.look). "robot" are known things,
# "pairs" a known colour and a known thing never seen together, "web" new things
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
        "foreign names": ("pick {es}", "pick {fr}", "pick {de}",
                          "move {a} near {es}", "move {a} near {fr}", "move {a} near {de}"),
        "foreign sentences": tuple(f"{language}: {text}" for language in web.LANGUAGES
                                   for text in ("pick {a}", "move {a} near {b}")),
    },
    "people": {
        "by hair": ("move {a} near {hair}",),
        "glasses, hat": ("move {a} near {face}",),
    },
}

# section 4.4: line -> (the skill that it takes, whose thing must be moved)
CHAIN_OF_THOUGHT = {"a wish": ("pick", "robot"), "a wish, new things": ("pick", "web"),
                    "a colour together": ("move near", "robot"),
                    "a colour together, new things": ("move near", "pairs")}


# ----------------------------------------------------------------------------------------------------------
# distractors: functions (rng, names of the vocabulary) -> two or three things, of which the words mean one

def some(rng, pool, n):
    return [str(name) for name in rng.permutation(list(pool))[:n]]


def two_people(rng, names):
    return [web.someone(rng, hair, names["wears"]) for hair in some(rng, names["hair"], 2)]


def two_digits(rng, names):
    return some(rng, [card for card in names["cards"] if card.isdigit()], 2)


def two_known(rng, names):
    return some(rng, names["robot"], 2)


def two_of_any_category(rng, names):
    return some(rng, [*names["robot"], *names["pairs"], *names["web"]], 2)


def two_alike_one_other(rng, names):
    """Example: ["red can", "blue can", "apple"]"""
    def noun(name):
        return name.split()[-1]
    nouns = [noun(name) for name in names["robot"]]
    chosen = str(rng.choice([n for n in dict.fromkeys(nouns) if nouns.count(n) > 1]))
    alike = some(rng, [name for name in names["robot"] if noun(name) == chosen], 2)
    return alike + some(rng, [name for name in names["robot"] if noun(name) != chosen], 1)


def cards(category):
    """one card of a category, and any other"""
    def two(rng, names):
        first = some(rng, [card for card in names["cards"] if card in CARDS[category]], 1)
        return first + some(rng, [card for card in names["cards"] if card not in first], 1)
    return two


DISTRACTORS = {
    **{category: cards(category) for category in CARDS},
    "hair": two_people, "face": two_people, "sum": two_digits, "size": two_digits,
    "category": two_of_any_category, "same colour": two_known, "different": two_alike_one_other,
    **{language: two_known for language in web.LANGUAGES},
}


# ----------------------------------------------------------------------------------------------------------
# requests: a scene, and what is asked in it

def facts_of(things):
    """things as web.REFERENCES takes them; a dict is a face"""
    facts = []
    for thing in things:
        if isinstance(thing, dict):
            facts.append({"name": person(thing), "face": thing})
        else:
            category = web.CARD_CATEGORY.get(thing) or KINDS[thing.split()[-1]].category
            facts.append({"name": thing, "category": category})
    return facts


def parse_template(template):
    """
    -> skill, language, the sentence, the way to refer ("" of a sentence in another language).
    Example: parse_template("move {a} near {sum}") -> ("move near", "", "move {a} near {sum}", "sum")
    """
    language, _, text = template.rpartition(": ")
    skill = {"pick": "pick", "move": "move near"}.get(text.partition(" ")[0])
    ways = [way for way in re.findall("{([^}]+)}", text) if way in DISTRACTORS]
    if not skill or language and language not in web.LANGUAGES or len(ways) != (not language):
        raise ValueError(f"the template {template!r} cannot be asked: it begins with pick or move and has "
                         f"one of {', '.join(DISTRACTORS)} in braces, beside {{a}}; or it is a sentence "
                         f"in one of {', '.join(web.LANGUAGES)}, as \"es: pick {{a}}\"")
    return skill, language, text, "".join(ways)


def request(template, rng, vocabulary) -> Request:
    """
    A scene and an instruction from a template.
    Example: request("move {a} near {sum}", rng, "medium")
        -> Request(skill="move near", things=("red can", "apple", "3", "4"), a=0, b=2,
                   instruction="move red can near the sum of two plus one")
    """
    names = VOCABULARIES[vocabulary]
    skill, language, text, way = parse_template(template)
    if language:                                    # known things, in words that the robot never heard
        things = some(rng, names["robot"], 4)
        b = things[1] if skill == "move near" else ""
        return Request(skill, tuple(things), 0, 1 if b else None, web.say(skill, language, things[0], b))
    for _ in range(1000):                           # until the words mean one thing alone
        chosen = DISTRACTORS[way](rng, names)
        known = some(rng, [name for name in names["robot"] if name not in chosen], 2)
        things = [*known, *chosen][:4] if skill == "move near" else chosen + known[:3 - len(chosen)]
        facts = facts_of(things)
        if way in web.REFERENCES:
            phrase, meant = web.REFERENCES[way](facts, rng) or ("", None)
            if not phrase:
                continue
        else:                                       # a card or a person, by its name
            meant = facts[things.index(chosen[0])]
            phrase = meant["name"]
        at = facts.index(meant)
        movable = isinstance(things[at], str) and things[at].split()[-1] in KINDS
        if things[at] not in chosen or skill == "pick" and not movable:
            continue
        if way == "same colour" and not phrase.endswith(f" {things[0]}"):       # the colour of what is moved
            continue
        a, b = (0, at) if skill == "move near" else (at, None)
        return Request(skill, tuple(things), a, b, text.format_map({"a": things[0], way: phrase}))
    raise ValueError(f"the vocabulary {vocabulary!r} has nothing for the template {template!r}")


def wish_request(line, rng, vocabulary) -> Request:
    """
    A scene and an instruction that takes a thought.
    Example: Request("pick", ("blue can", "apple", "sponge", "red block"), 0, None, "I am thirsty")
    """
    names, (skill, whose) = VOCABULARIES[vocabulary], CHAIN_OF_THOUGHT[line]
    for _ in range(10_000):
        things = some(rng, names[whose], 1) + some(rng, names["robot"], 3)
        said = web.wish_for(things, INSTRUCTIONS[skill].format(a=things[0], b=things[1]), rng)
        if said and len(set(things)) == 4:
            together = skill == "move near"         # two things belong together, whichever goes to the other
            return Request(skill, tuple(things), 0, 1 if together else None, said, either=together)
    raise ValueError(f"the vocabulary {vocabulary!r} has nothing for {line!r}")


# ----------------------------------------------------------------------------------------------------------
# lines

def world_table(config):
    """the settings of the built-in world's demonstrations; config: a train.Config as a dict"""
    tables = config["robot"]
    for table in tables:
        if table["format"] == "world":
            return data.settings_of("robot", table)
    raise ValueError("the paper's lines are asked in the built-in world, but no [[robot]] has that format")


def suites(config) -> list[Line]:
    """every line of every table that a model of this configuration can be asked"""
    table, found = world_table(config), []
    size = config["image_size"]
    vocabulary, names = table["vocabulary"], VOCABULARIES[table["vocabulary"]]
    skills = [skill for skill in ("pick", "move near") if skill in table["skills"]]

    def add(title, group, name, scene, look="as in training", prompt=tokenizer.prompt):
        """scene: (seed, rng) -> what World.reset takes beside the seed"""
        def draw(seed):
            rng = np.random.default_rng([seed, 4])
            style, camera = trials.look(look, rng, table["days"])
            return style, camera, scene(seed, rng)
        make = lambda: trials.Trial(vocabulary, table["skills"], size, draw)
        found.append(Line(name, make, group, title, prompt))

    def of_table_4(targets):
        return lambda seed, rng: {"skill": skills[seed % len(skills)], "targets": targets}

    def of_templates(templates):
        return lambda seed, rng: {"request": request(templates[seed % len(templates)], rng, vocabulary)}

    def of_wishes(name):
        return lambda seed, rng: {"request": wish_request(name, rng, vocabulary)}

    for name, (targets, look) in GENERALISATION.items():
        if skills and names[targets]:
            add("generalisation", "seen" if name == "seen" else "unseen", name, of_table_4(targets), look)
    if names["cards"] and len(skills) == 2:
        for group, lines in EMERGENT.items():
            for name, templates in lines.items():
                add("emergent", group, name, of_templates(templates))
        # a wish is put as one only to who was trained on wishes
        for name in CHAIN_OF_THOUGHT:
            add("thought", "thought", name, of_wishes(name),
                prompt=tokenizer.wish if table["wishes"] else tokenizer.prompt)
    return found


def templates_of(name):
    """the templates of an emergent line, none of any other"""
    return next((lines[name] for lines in EMERGENT.values() if name in lines), ())


def web_questions(name):
    """
    The questions that ask the web for what an emergent line asks the robot: [(question_type, about)], as
    trials.questions takes them.
    Example: web_questions("animals") -> [("locate", "animal")], of "sums" -> [("where sum", None)]
    """
    ways = dict.fromkeys(parse_template(template)[3] for template in templates_of(name))
    if "" in ways:                                          # whole sentences
        return [("translation", None)]
    return [(f"where {way}", None) if way in web.REFERENCES else ("locate", way) for way in ways]
