"""one thread for every test and every process that a test starts: models are tiny, and a second thread only waits"""
import os

os.environ["OMP_NUM_THREADS"] = "1"         # before torch is imported

import torch  # noqa: E402

torch.set_num_threads(1)
