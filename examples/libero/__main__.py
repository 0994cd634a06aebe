"""
LIBERO: demonstrations by a script, for those who do not have the public ones.

    python -m examples.libero record            # demonstrations: pictures, instruction and numbers, as a log
    python -m examples.libero controls          # the script and random actions in the scenes of the benchmark

All ten tasks of the suite libero_spatial ask to put a certain bowl on the plate. One script is tried on all
of them; tasks 4 and 6 it cannot do (README.md). It knows where things are; the log that it writes holds only
what the two cameras see, the instruction, and the seven numbers. Its scenes are drawn at random, and are not
the fixed ones that the benchmark tests.
"""
import argparse
import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")               # draws without a display, on a CPU as well
    os.environ.setdefault("LP_NUM_THREADS", "1")            # Mesa draws with one thread
try:
    from libero.libero import benchmark, get_libero_path
    from libero.libero.envs import OffScreenRenderEnv
    from libero.libero.envs.env_wrapper import ControlEnv
except ImportError as e:
    sys.exit(f"error: this example needs LIBERO ({e}); see examples/libero/README.md")

OPEN, CLOSED = -1., 1.                                      # the gripper's number, as in the public data sets
CAMERAS = {"image": "agentview_image", "wrist_image": "robot0_eye_in_hand_image"}
HAND, BOWL, PLATE = "robot0_eef_pos", "akita_black_bowl_1_pos", "plate_1_pos"
REST, LIMIT = 10, 220                                       # steps before a trial, and of it, as in vla-eval


def go(obs, place, gripper, most=40):
    """
    The hand's way to a place (3,), in metres. A generator: it yields actions and is sent what the simulator
    shows after each. 1 is a target 5 cm away; quarters of that are few bins, which are learned sooner.
    """
    for _ in range(most):
        away = place - obs[HAND]
        if np.linalg.norm(away) < .015:
            break
        obs = yield np.array([*np.round(np.clip(away / .03, -1, 1) * 4) / 4, 0, 0, 0, gripper])
    return obs


def script(obs):
    """takes the bowl by its rim, 5 cm from its middle, and puts it on the plate; a generator as go() is"""
    still, rim, high = np.zeros(6), obs[BOWL] + [0, -.05, .03], np.array([0, 0, .1])
    obs = yield from go(obs, rim + high, OPEN)
    obs = yield from go(obs, rim, OPEN)
    width, before = np.abs(obs["robot0_gripper_qpos"]).sum(), np.inf
    while width < before - .0005 or width > .07:            # the fingers still close
        obs = yield np.append(still, CLOSED)
        width, before = np.abs(obs["robot0_gripper_qpos"]).sum(), width
    obs = yield from go(obs, obs[HAND] + high, CLOSED)
    plate = obs[PLATE] + obs[HAND] - obs[BOWL]              # where the hand is when the bowl is on the plate
    obs = yield from go(obs, plate + high, CLOSED)
    yield from go(obs, plate + [0, 0, .02], CLOSED)
    while True:
        yield np.append(still, OPEN)


def random(obs, rng):
    """any displacement, an open or a closed hand; a generator as go() is"""
    while True:
        yield np.array([*rng.uniform(-1, 1, 3), 0, 0, 0, rng.choice([OPEN, CLOSED])])


def episode(env, moves, noise=None, state=None):
    """
    One trial: a list of (what the simulator shows, the action), or [] if it failed. moves: script or random.
    noise: a generator of random numbers. They are added to the arm's moves but not to the log, so that the
    log shows how to correct an error. state: a scene of the benchmark instead of a random one.
    """
    obs, steps = env.reset(), []
    if state is not None:
        obs = env.set_init_state(state)
    for _ in range(REST):
        obs, *_ = env.step(np.append(np.zeros(6), OPEN))
    moves = moves(obs)
    action = next(moves)
    while len(steps) < LIMIT:
        steps.append((obs, action))
        added = np.zeros(7)
        if noise and action[:3].any():
            added[:3] = noise.normal(0, .2, 3)
        obs, _, done, _ = env.step(action + added)
        if done:
            return steps
        action = moves.send(obs)
    return []


def open_task(number, env_class, **options):
    """a task of libero_spatial: its instruction, its simulator, and the 50 scenes that the benchmark has"""
    suite = benchmark.get_benchmark_dict()["libero_spatial"]()
    task = suite.get_task(number)
    bddl = Path(get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)
    # a hard reset reads all meshes: 4 s
    env = env_class(bddl_file_name=str(bddl), hard_reset=False, **options)
    env.seed(number)
    return task.language, env, suite.get_task_init_states(number)


def record(folder, tasks, episodes, size=256):
    """a log of format = "folder": steps.jsonl and pictures/. Only successes are kept."""
    if folder.exists():
        raise ValueError(f"{folder} is there already; delete it, or name another --folder")
    (folder / "pictures").mkdir(parents=True)
    kept = 0
    with open(folder / "steps.jsonl", "w") as log:
        for number in tasks:
            instruction, env, _ = open_task(number, OffScreenRenderEnv, camera_heights=size,
                                            camera_widths=size)
            for i in tqdm(range(episodes), desc=instruction):
                steps = episode(env, script, np.random.default_rng([number, i]))
                for t, (obs, action) in enumerate(steps):
                    images = {camera: f"pictures/{kept:06}_{t:03}_{camera}.jpg" for camera in CAMERAS}
                    for camera, name in images.items():     # turned, as in the public sets and in vla-eval
                        picture = Image.fromarray(obs[CAMERAS[camera]][::-1, ::-1])
                        picture.save(folder / name, quality=95)
                    log.write(json.dumps({"episode": kept, "instruction": instruction,
                                          "action": action.tolist(), "image": images}) + "\n")
                log.flush()
                kept += len(steps) > 0
            env.close()
    print(f"{folder}: {kept} of {episodes * len(tasks)} episodes succeeded and are kept")


def controls(tasks, episodes):
    """Prints how often the script and random actions succeed in the benchmark's scenes, without pictures."""
    from eval import percent
    for number in tasks:
        instruction, env, states = open_task(number, ControlEnv, use_camera_obs=False,
                                             has_offscreen_renderer=False)
        states, rng = states[:episodes], np.random.default_rng(0)
        for name, moves in (("script", script), ("random", functools.partial(random, rng=rng))):
            k, n = sum(bool(episode(env, moves, state=state)) for state in states), len(states)
            print(f"{instruction}: {name} {percent(k, n)}, n = {n}", flush=True)
        env.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("record", help="demonstrations of the script, as a log")
    command.add_argument("--folder", type=Path, default=Path("data/libero"))
    commands.add_parser("controls", help="the script and random actions in the benchmark's scenes")
    for command in commands.choices.values():
        command.add_argument("--tasks", type=int, nargs="+", default=[0], help="numbers, 0 to 9 (0)")
        command.add_argument("--episodes", type=int, default=50,
                             help="of each task (50); the benchmark has 50 scenes at most")
    args = parser.parse_args()
    try:
        if args.command == "record":
            record(args.folder, args.tasks, args.episodes)
        else:
            controls(args.tasks, args.episodes)
    except (ValueError, OSError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
