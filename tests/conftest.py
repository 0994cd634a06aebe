"""one thread for every test and every process that a test starts: models are tiny, and a second thread only waits"""
import multiprocessing
import os
import sys
import threading

os.environ["OMP_NUM_THREADS"] = "1"         # before torch is imported

import pytest  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

torch.set_num_threads(1)
# tqdm's own lock is shared with forks, and a fork that is killed may hold it; its monitor is a thread, which forks do not have
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0


@pytest.fixture(scope="session")
def fork():
    """
    A context whose processes are forks of this one. They know its monkeypatches, and have what others take seconds to import:
    torch, and its compiler, which every optimizer wants.
    """
    import torch._dynamo  # noqa: F401
    return multiprocessing.get_context("fork")


def as_script(main, argv, log, environment={}):
    """in a fork: main() as the script that argv names, with all that it prints in the file log"""
    os.environ.update(environment)
    sys.argv = argv
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)       # pytest's write elsewhere
    main()


@pytest.fixture(scope="session")
def script(fork):
    """script(main, argv, log, environment) -> its process, begun; it dies with this one"""
    def begin(*arguments):
        process = fork.Process(target=as_script, args=arguments, daemon=True)
        process.start()
        return process
    return begin
