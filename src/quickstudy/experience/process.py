"""Whether a process still runs."""

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypedDict


class Process(TypedDict):
    """A process, such that no other is taken for it."""

    machine: str
    pid: int
    started: str | None
    """In ticks since the machine started; None where the system has no `/proc`."""


def this_process() -> Process:
    """The process that asks."""
    state = _state(os.getpid())
    return {"machine": _machine(), "pid": os.getpid(), "started": state and state[1]}


def is_gone(process: Process) -> bool:
    """Whether a process is known to have ended. Of another machine's nothing is known, nor on Windows.

    Example:
        >>> from quickstudy.experience.process import is_gone, this_process
        >>> is_gone(this_process())
        False
    """
    if process["machine"] != _machine() or os.name != "posix":
        return False
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's, but there
    state = _state(process["pid"])
    return state is not None and (state[0] in "ZX" or state[1] != process["started"])


@cache
def _machine() -> str:
    """This start of this machine, and of this container on it: where process numbers mean the same."""
    found = [platform.node()]
    with suppress(OSError):  # not Linux
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        found.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(found)


def _state(pid: int) -> tuple[str, str] | None:
    """State (Z: ended, though nobody asked how) and start; None where the system has no `/proc`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]
