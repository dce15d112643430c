import json
import subprocess
import sys

import pytest

PEAK = """
import json, sys
import torch
from quickstudy import MAML, Examples, Task, conv4_classifier

torch.set_num_threads(1)
torch.manual_seed(0)
given = json.loads(sys.argv[1])
y = torch.arange(5).repeat(given.pop("tasks"), 1)
x = torch.rand(*y.shape, 1, 28, 28)
tasks = Task(Examples(x, y), Examples(x, y), 5)


def peak(**options):
    learner = MAML(conv4_classifier(5, width=24), lr=0.1, **options).train()
    learner.loss(tasks).mean().backward()
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


print(json.dumps([peak(**options) for options in given["runs"]]))
"""
"""Peaks of a process grow only, so that what takes least comes first."""


def peaks(tasks: int, *runs: dict) -> list[int]:
    """Bytes at most, after each of some meta-iterations in one process."""
    given = json.dumps({"tasks": tasks, "runs": runs})
    done = subprocess.run([sys.executable, "-c", PEAK, given], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read where Linux keeps it")


def test_graphs_take_no_more_than_the_budget():
    budget = 20 << 20
    one, within, all_of_them = peaks(
        6, {"steps": 4, "memory_budget": 1}, {"steps": 4, "memory_budget": budget}, {"steps": 4}
    )
    assert within - one < budget
    assert all_of_them - one > budget  # the budget was what held it


def test_low_memory_hardly_grows_with_the_steps():
    few, many, kept = peaks(3, {"steps": 2, "low_memory": True}, {"steps": 8, "low_memory": True}, {"steps": 8})
    assert many - few < (kept - few) / 3
