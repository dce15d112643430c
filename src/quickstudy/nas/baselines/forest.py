"""A random forest that was trained on other tasks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator

from quickstudy.errors import MissingExtraError, TaskError
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import candidates, tried
from quickstudy.nas.source import Source, scaled_ranks
from quickstudy.nas.space import Space


class Forest(Proposer[Architecture, Space]):
    """Predicts ranks from one-hot codes and proposes in the order of its prediction: a prior that takes no feedback.

    Args:
        source: Other tasks, each of whose values are replaced by their rank, 0 to 1, so that tasks may be mixed.
        trees: In the forest.
        seed: Of the forest.
        drawn: Members to choose among where the space cannot be listed.
        smoothed: Whether what it would return has the best mean of two ranks among the trials, by its value and by what
            the forest predicts, rather than the best value.

    Raises:
        TaskError: Where the source has no rows.
        MissingExtraError: Where scikit-learn is not installed.

    References:
        Breiman, Random Forests, 2001.
    """

    def __init__(
        self, source: Source, *, trees: int = 200, seed: int = 0, drawn: int = 10_000, smoothed: bool = False
    ) -> None:
        try:
            from sklearn.ensemble import RandomForestRegressor
        except ImportError as error:
            raise MissingExtraError("A forest needs scikit-learn: pip install 'quickstudy[nas]'.") from error
        if not source.rows:
            raise TaskError("A forest that takes no feedback knows nothing without other tasks. Give it a source.")
        codes = torch.cat([source.space.one_hot(rows.architectures) for rows in source.rows.values()])
        ranks = torch.cat([rows.ranks for rows in source.rows.values()])
        self.forest = RandomForestRegressor(trees, random_state=seed, n_jobs=1).fit(codes.numpy(), ranks.numpy())
        self.space, self.drawn, self.smoothed = source.space, drawn, smoothed
        self._listed: tuple[tuple[Architecture, ...], list[int]] | None = None

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """The `n` that promise most."""
        everything, codes = candidates(space, n=self.drawn, generator=generator)
        if self._listed is None or self._listed[0] is not everything:  # what it predicts never changes
            predicted: np.ndarray = self.forest.predict(codes.numpy())
            self._listed = everything, np.argsort(-predicted, kind="stable").tolist()
        seen, found = tried(trials), list[Architecture]()
        for i in self._listed[1]:
            if everything[i] not in seen:
                found.append(everything[i])
                if len(found) == n:
                    break
        return found

    def incumbent(
        self, task: TaskDescription, trials: Sequence[Trial[Architecture]], space: Space
    ) -> Trial[Architecture] | None:
        """The trial with the best value, or with the best mean of two ranks."""
        done = [trial for trial in trials if trial.value is not None]
        if not done or not self.smoothed:
            return super().incumbent(task, trials, space)
        predicted = torch.from_numpy(self.forest.predict(self.space.one_hot([trial.choice for trial in done]).numpy()))
        values = torch.tensor([trial.value for trial in done], dtype=torch.float64)
        both = scaled_ranks(predicted) + scaled_ranks(values)
        return max(zip(both.tolist(), values.tolist(), done), key=lambda one: one[:2])[2]
