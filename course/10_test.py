"""Assignment 10: your own. A new emergent line in study/suites.py must be new, fair and possible."""
import re

from course.grading import points
from study import suites
from world.scene import ROBOT_WORDS, VOCABULARIES, episodes

# the lines that the project has; what is not among them is yours
GIVEN = {"digits, letters", "symbols", "animals", "sums", "smallest, largest", "categories", "same colour",
         "the different one", "foreign names", "foreign sentences", "by hair", "glasses, hat"}
TABLE = {"format": "world", "vocabulary": "medium", "skills": ["pick", "move near"], "days": True}


def mine():
    found = [line for line in suites.suites({"robot": [TABLE], "image_size": 0})
             if line.table == "emergent" and line.name not in GIVEN]
    assert found, "study/suites.py: EMERGENT has no new line yet"
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
        assert len(said) > 5, f"{line.name}: only {len(said)} different instructions in 30 trials"


@points(0,
        read="the leak test: every instruction has a word, or every scene a thing, that no demonstration has")
def no_demonstration_gives_it_away():
    steps = [step for episode in episodes(range(40), "medium", ["pick", "move near"], 0, days=True,
                                          wordings=True)
             for step in episode]
    said = {word for step in steps for word in step["instruction"].split()}
    shown = {fact["name"] for step in steps for fact in step["facts"]} - {"gripper"}
    names = VOCABULARIES["medium"]
    assert said <= ROBOT_WORDS and shown <= {*names["robot"], *names["mats"]}, \
        "a demonstration shows or says what is new"
    for line in mine():
        for world in worlds(line, 30):
            assert set(re.findall(r"[\w']+", world.instruction)) - ROBOT_WORDS, \
                f"{line.name}: {world.instruction!r} has no word that is new to the robot"


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
        assert wins >= 36, f"{line.name}: the expert succeeds in {wins} of 40 trials"
