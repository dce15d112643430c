"""Torch's random state, to be met again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Noise:
    """Torch's random state on some occasions, so that what is computed again meets the same dropout."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = [device] if device.type == "cuda" else []
        self._states: dict[Any, list[Tensor]] = {}

    @contextmanager
    def of(self, occasion: Any) -> Iterator[None]:
        """Within it the random state is that of the first time; after a second time it is as it was before."""
        if occasion not in self._states:
            self._states[occasion] = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._cuda)]
            yield
            return
        with torch.random.fork_rng(self._cuda):
            self.restore(occasion)
            yield

    def restore(self, occasion: Any) -> None:
        """Sets the random state back to that of an occasion."""
        cpu, *cuda = self._states[occasion]
        torch.set_rng_state(cpu)
        for device, state in zip(self._cuda, cuda):
            torch.cuda.set_rng_state(state, device)
