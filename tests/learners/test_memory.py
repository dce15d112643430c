import json
import subprocess
import sys

import pytest

PEAK = """
import json, os, sys
import torch
from quickstudy import MAML, Examples, Task, conv4_classifier

torch.set_num_threads(1)
torch.manual_seed(0)


def peak(tasks, **options):
    learner = MAML(conv4_classifier(5, width=24), lr=0.1, **options).train()
    learner.loss(tasks).mean().backward()
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


for n, *runs in json.loads(sys.argv[1]):
    if os.fork() == 0:  # for a peak of its own
        y = torch.arange(5).repeat(n, 1)
        x = torch.rand(*y.shape, 1, 28, 28)
        tasks = Task(Examples(x, y), Examples(x, y), 5)
        print(json.dumps([peak(tasks, **options) for options in runs]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
"""Peaks of a process grow only, so that what takes least comes first."""

BUDGET = 20 << 20
RUNS = (
    (6, {"steps": 4, "memory_budget": 1}, {"steps": 4, "memory_budget": BUDGET}, {"steps": 4}),
    (3, {"steps": 2, "low_memory": True}, {"steps": 8, "low_memory": True}, {"steps": 8}),
)
"""Numbers of tasks, and how MAML learns from them."""


@pytest.fixture(scope="module")
def peaks() -> list[list[int]]:
    """Bytes at most, after each of some meta-iterations in one process."""
    done = subprocess.run([sys.executable, "-c", PEAK, json.dumps(RUNS)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read where Linux keeps it")


def test_graphs_take_no_more_than_the_budget(peaks):
    one, within, all_of_them = peaks[0]
    assert within - one < BUDGET
    assert all_of_them - one > BUDGET  # the budget was what held it


def test_low_memory_hardly_grows_with_the_steps(peaks):
    few, many, kept = peaks[1]
    assert many - few < (kept - few) / 3
