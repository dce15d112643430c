import importlib
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from quickstudy.training.unknown import calibrate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

torch.set_num_threads(1)  # many tiny tensors: threads would only wait for one another
os.environ["OMP_NUM_THREADS"] = "1"  # so they would in the processes that tests begin


@pytest.fixture(scope="module")
def script():
    """Imports a script of benchmarks/ by its name; with the file of tests, all that lies beside it is forgotten."""
    threads, before = torch.get_num_threads(), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def few_queries():
    """What "none of these" is told by comes from few queries: how many are enough is tested where it is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quickstudy.training.train_prior.calibrate", partial(calibrate, queries=24))
        yield
