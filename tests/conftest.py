import gc
import importlib
import json
import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from quickstudy.nas.budget import Budget
from quickstudy.training.unknown import calibrate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

torch.set_num_threads(1)  # many tiny tensors: threads would only wait for one another
os.environ["OMP_NUM_THREADS"] = "1"  # so they would in the processes that tests begin

gc.disable()  # what is imported and collected stays: looking through it, time and again, is a tenth of the suite


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


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
        for of in ("training.train_prior", "demo"):
            patch.setattr(f"quickstudy.{of}.calibrate", partial(calibrate, queries=24))
        yield


@pytest.fixture(scope="module")
def without_export():
    """ONNX files are empty: an export takes a second or two, and is tested where it is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quickstudy.search_data.export_onnx", lambda module, shape, path, *_, **__: path.touch())
        yield


@pytest.fixture
def by_trials(monkeypatch):
    """Searches of the command line are as short as their trials, whatever the clock says."""
    monkeypatch.setattr(
        "quickstudy.cli.search.Budget", lambda seconds, **options: Budget(seconds=None, steps=2, **options)
    )


@pytest.fixture
def rewritten():
    """Gives the settings of an artefact, to be changed; its manifest has no checksum of them then, as once it had."""

    @contextmanager
    def rewrite(folder):
        path = folder / "prior.json"
        manifest = json.loads(path.read_text("utf-8"))
        yield manifest["settings"]
        del manifest["settings_sha256"]
        path.write_text(json.dumps(manifest), "utf-8")

    return rewrite
