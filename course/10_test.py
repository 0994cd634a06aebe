"""Assignment 10: your own. A new emergent line in study/suites.py must be new, fair and possible."""
import re

from course.grading import expect, points
from study import suites
from world.scene import ROBOT_WORDS, VOCABULARIES, episodes

# the lines that the project has; what is not among them is yours
GIVEN = {"digits, letters", "symbols", "animals", "sums", "smallest, largest", "categories", "same colour",
         "the different one", "foreign names", "foreign sentences", "by hair", "glasses, hat"}
TABLE = {"format": "world", "vocabulary": "medium", "skills": ["pick", "move near"], "days": True}


def mine():
    found = [line for line in suites.suites({"robot": [TABLE], "image_size": 0})
             if line.table == "emergent" and line.name not in GIVEN]
    expect("new lines in study/suites.py", len(found), "one or more; EMERGENT has no new line yet",
           holds=found)
    return found


def worlds(line, n):
    for seed in range(10_000, 10_000 + n):
        trial = line.make()
        trial.reset(seed=seed)
        yield trial.world


@points(0, read="study/suites.py: EMERGENT, and the top of that file")
def there_is_a_new_line_and_every_trial_of_it_can_be_drawn():
    for line in mine():
        said = {world.instruction for world in worlds(line, 30)}
        expect(f"{line.name}: different instructions in 30 trials (can it be drawn?)", len(said),
               "more than 5",
               holds=len(said) > 5)


@points(0,
        read="the leak test: every instruction has a word, or every scene a thing, that no demonstration has")
def no_demonstration_gives_it_away():
    steps = [step for episode in episodes(range(40), "medium", ["pick", "move near"], 0, days=True,
                                          wordings=True)
             for step in episode]
    said = {word for step in steps for word in re.findall(r"\w+", step["instruction"])}
    shown = {fact["name"] for step in steps for fact in step["facts"]} - {"gripper"}
    names = VOCABULARIES["medium"]
    expect("words of demonstrations that no robot may know", sorted(said - ROBOT_WORDS), [])
    expect("things in demonstrations that no robot may know", sorted(shown - {*names["robot"],
                                                                              *names["mats"]}), [])
    for line in mine():
        for world in worlds(line, 30):
            new = set(re.findall(r"[\w']+", world.instruction)) - ROBOT_WORDS
            expect(f"{line.name}: words of {world.instruction!r} that are new to the robot", sorted(new),
                   "one or more", holds=new)


@points(0, read="the expert must be able to do it: 36 of 40")
def the_expert_can_do_it():
    for line in mine():
        wins = 0
        for world in worlds(line, 40):
            ended = False
            while not ended:
                _, reward, terminated, truncated, _ = world.step(world.expert())
                ended = terminated or truncated
            wins += reward
        expect(f"{line.name}: successes of the expert in 40 trials", wins, "at least 36", holds=wins >= 36)
