"""What `import quickstudy` offers, and what it leaves alone."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import quickstudy
from quickstudy import Learner

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "quickstudy"
MODULES = sorted(PACKAGE.rglob("*.py"))


def homes() -> dict[str, str]:
    """The module that each name of the front door comes from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module for node in imports for alias in node.names}


def documentation(name: str) -> str:
    """A docstring: of a class or a function its own, of a type alias the string that follows it."""
    found = getattr(quickstudy, name)
    if inspect.isclass(found) or inspect.isfunction(found):
        return inspect.cleandoc(found.__doc__ or "")
    body = ast.parse(inspect.getsource(importlib.import_module(homes()[name]))).body
    for statement, following in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return str(getattr(getattr(following, "value", None), "value", ""))
    return ""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", quickstudy.__all__)
def test_every_name_can_be_imported_and_is_documented(name):
    assert hasattr(quickstudy, name)
    assert len(documentation(name)) > 10, f"{name} has no docstring"


def runs_by_itself(name: str) -> bool:
    """Whether an example can show it: not what is abstract, a record that others return, or a type alias."""
    found = getattr(quickstudy, name)
    if inspect.isclass(found):
        return not (inspect.isabstract(found) or is_dataclass(found) or getattr(found, "_is_protocol", False))
    return inspect.isfunction(found)


@pytest.mark.parametrize("name", [name for name in quickstudy.__all__ if runs_by_itself(name)])
def test_every_class_and_function_has_an_example(name):
    assert ">>> " in documentation(name), f"{name} has no Example in its docstring"


def test_names_are_sorted_and_each_is_there_once():
    def as_ruff_sorts(name: str) -> tuple[int, str]:  # CONSTANTS, then Classes, then functions
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert quickstudy.__all__ == sorted(set(quickstudy.__all__), key=as_ruff_sorts)


def test_nothing_public_leaks():
    leaked = [
        name
        for name, value in vars(quickstudy).items()
        if not name.startswith("_") and name not in quickstudy.__all__ and not inspect.ismodule(value)
    ]
    assert leaked == []
    assert sorted(homes()) == sorted(quickstudy.__all__)


IMPORTING = """
import json, logging, random, socket, sys, types
import numpy, torch

def refuse(*args, **kwargs): raise AssertionError("importing takes the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

def state():
    return (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate(),
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            logging.getLogger("quickstudy").handlers, logging.getLogger("quickstudy").level)

before = state()
import quickstudy
modules = [(n, v.__name__) for n, v in vars(quickstudy).items() if isinstance(v, types.ModuleType)]
found = {"changed": state() != before, "shown": modules, "loaded": sorted(sys.modules)}

from quickstudy.nas.train import Schedule, train
x, y, generator = torch.rand(4, 2), torch.arange(4) % 2, torch.Generator()
train(torch.nn.Linear(2, 2), x, y, Schedule(steps=2), generator=generator)
print(json.dumps({**found, "after training": sorted(sys.modules)}))
"""
OPTIONAL = {"matplotlib", "PIL", "skimage", "typer", "rich", "jinja2", "tensorboard", "sklearn", "fontTools", "pandas"}
OPTIONAL |= {"optuna", "pytest"}


@pytest.fixture(scope="module")
def importing():
    """What a fresh process, without a network, finds when it imports the package."""
    return json.loads(python(IMPORTING))


def test_modules_that_the_front_door_shows_are_its_own_packages(importing):
    assert all(name.startswith("quickstudy.") for _, name in importing["shown"])


def test_importing_loads_nothing_that_is_optional(importing):
    assert not OPTIONAL & set(importing["loaded"])


def test_importing_loads_nothing_that_takes_long(importing):
    assert not {"lightning_fabric", "torch._dynamo", "sympy"} & set(importing["loaded"])


def test_training_as_a_search_does_loads_nothing_that_takes_long(importing):
    assert not {"lightning_fabric", "torch._dynamo", "sympy"} & set(importing["after training"])


def test_importing_changes_nothing(importing):
    assert not importing["changed"]


def test_the_documentation_shows_the_whole_front_door():
    assert re.search(r"^::: quickstudy$", (ROOT / "docs" / "api" / "index.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "name", [n for n in quickstudy.__all__ if inspect.isclass(v := getattr(quickstudy, n)) and issubclass(v, Learner)]
)
def test_every_learner_is_in_the_table_of_contents_of_the_field(name):
    assert f"`{name}`" in (ROOT / "docs" / "learners.md").read_text("utf-8") or name == "Learner"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path):
    if path.relative_to(PACKAGE).parts[0] in ("cli", "priors"):
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert lines == [], f"{path.name} prints in line {lines}"


def test_the_version_is_that_of_the_package():
    assert f'version = "{quickstudy.__version__}"' in (ROOT / "pyproject.toml").read_text("utf-8")
