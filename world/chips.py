"""
What may be said to the robot in a scene: chips() lists instructions that the things on the table allow, each
with the task that it means, and understand() reads a plain instruction that somebody typed.
"""
import re
from typing import NamedTuple

from tokenizer import tidy
from world import web
from world.scene import CARD, INSTRUCTIONS, KINDS, REMARKS, WORDINGS, Task, Thing, World


class Chip(NamedTuple):
    """
    An instruction, and when it is fulfilled. group: seen (every word may stand in a demonstration), unseen
    (it names what only the web names), symbols, people, reasoning, wish; of the playground "the task", which
    the scene came with, and "typed"; task: its skill is "" where nobody can judge it; strict,
    movers: as World has them.
    """
    group: str
    text: str
    task: Task
    strict: bool = False
    movers: tuple = ()

    def put(self, world):
        """from now on this is the world's task"""
        world.task, world.strict = self.task, self.strict
        world.movers = [thing for thing in self.movers or (self.task.a,) if thing]


def understand(world, text):
    """
    The Task of a plain instruction about things on the table, in the words of INSTRUCTIONS or WORDINGS. Its
    skill is "" if it is none, or if the table does not allow it.

    Example: "Move the apple near the heart." -> Task("move near", apple, heart, ...)
    """
    said, things = tidy(text), {tidy(t.name): t for t in world.things}
    for remark in REMARKS:
        said = said.removesuffix(f", {remark}")
    # "the can" will do where there is one can, "the red item" where nothing else is red
    shorts = [(tidy(t.noun), t) for t in world.things]
    shorts += [(f"{t.color} item", t) for t in world.things if t.noun in KINDS]
    for name, t in shorts:
        same = [other for short, other in shorts if short == name]
        things.setdefault(name, t if len(same) == 1 else None)
    if world.opening is not None:
        things["drawer"] = "drawer"
    for skill, plain in INSTRUCTIONS.items():
        for template in (plain, *WORDINGS[skill]):
            pattern = template.replace("{a}", "(?P<a>.+?)").replace("{b}", "(?P<b>.+)")
            match = re.fullmatch(pattern, said)
            if not match:
                continue
            named = {k: things.get(words.removeprefix("the ")) for k, words in match.groupdict().items()}
            a, b = named.get("a"), named.get("b")
            if None in named.values() or a is not None and a is b:      # it is not there, or said twice
                continue
            if a == "drawer" or b == "drawer" and skill not in ("put into", "take out"):
                continue
            if a or "drawer" in things:                 # without an a it is the drawer that moves
                return Task(skill, a, b, text)
    return Task("", instruction=text)


def chips(world, rng, most=3):
    """
    Instructions that this scene allows, at most so many of a group, as Chips. Those of the groups symbols,
    people, reasoning and wish only in vocabularies that have cards: no other model has learnt their words.
    """
    names, things = world.names, [t for t in world.things if t is not world.held]
    free = [t for t in things if t.inside is None and t.kind is not CARD]
    seen, web_names = {*names["robot"], *names["mats"]}, {*names["pairs"], *names["web"]}
    groups = {}

    def add(skill, a=None, b=None, text=None, group=None, **judged):
        if skill in world.skills:
            known = all(t.name in seen for t in (a, b) if isinstance(t, Thing))
            group, text = group or ("seen" if known else "unseen"), text or World.describe(skill, a, b)
            groups.setdefault(group, {})[text] = Chip(group, text, Task(skill, a, b, text), **judged)

    for a in free:
        add("pick", a)
        for b in things:
            if b is not a and b.name in seen | web_names:
                add("move near", a, b)
            elif b is not a:
                add("move near", a, b, group="people" if b.face else "symbols", strict=True)
        if a.kind.tall:
            add("knock" if a.upright else "upright", a)
        if not a.kind.container and not a.kind.long:
            for b in [t for t in free if t.kind.container] + ["drawer"] * bool(world.opening):
                add("put into", a, b)
    for a in things:
        if a.inside is not None:
            add("take out", a, a.inside)
    if world.opening is not None:
        add("close" if world.opening > .05 else "open")
    if names["cards"] and free:
        add_emergent(add, world, free, rng)
    return [list(found.values())[i] for found in groups.values()
            for i in rng.permutation(len(found))[:most]]


def add_emergent(add, world, free, rng):
    """table 5 of the paper: no thing is named plainly: references, other languages; and wishes (4.4)"""
    facts = [{**fact, "thing": t, **({"face": t.face} if t.face else
              {"category": web.CARD_CATEGORY.get(t.name) or KINDS[t.noun].category})}
             for t, fact in zip(world.things, world.facts())]
    for way, refer in web.REFERENCES.items():
        phrase, fact = refer(facts, rng) or ("", None)
        if not fact:
            continue
        thing, group = fact["thing"], "people" if way == "face" else "reasoning"
        if way in ("category", "different", "es", "fr", "de") and thing in free:
            add("pick", thing, text=f"pick {phrase}", group=group, strict=True)
        # "the thing of the same colour as the apple" is where the apple goes, and no other thing
        others = [t for t in free if t is not thing and way != "different"
                  and (way != "same colour" or phrase.endswith(f" {t.name}"))]
        if others:
            a = others[rng.integers(len(others))]
            add("move near", a, thing, f"move {a.name} near {phrase}", group, strict=True)
    a = free[rng.integers(len(free))]
    for language in web.LANGUAGES:
        add("pick", a, text=web.say("pick", language, a.name), group="reasoning", strict=True)
    names = [t.name for t in world.things]
    for skill, a, b in [("pick", a, None) for a in free] + [("move near", a, b) for a in free for b in free]:
        text = web.wish_for(names, World.describe(skill, a, b), rng)
        if text and a is not b:
            add(skill, a, b, text, "wish", strict=True, movers=(a, b) if b else ())
