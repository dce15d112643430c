"""Optuna's tree-structured Parzen estimator."""

from collections.abc import Sequence

from torch import Generator

from quickstudy.experience.proposer import Proposer
from quickstudy.experience.studies import quiet
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture
from quickstudy.nas.baselines.candidates import tried, unseen
from quickstudy.nas.parameters import parameters_of
from quickstudy.nas.space import Space, draw


class TreeParzen(Proposer[Architecture, Space]):
    """Asks Optuna's sampler, with its own defaults, in a study in memory that is made of the trials each time.

    Args:
        initial: Random members at the start.
        attempts: Questions to the sampler before a random member takes the place of one that is new and exists.

    References:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011; Akiba et al.,
        [Optuna](https://arxiv.org/abs/1907.10902), 2019.
    """

    def __init__(self, *, initial: int = 10, attempts: int = 20) -> None:
        self.initial, self.attempts = initial, attempts

    def propose(
        self,
        task: TaskDescription,
        trials: Sequence[Trial[Architecture]],
        space: Space,
        *,
        n: int = 1,
        generator: Generator,
    ) -> list[Architecture]:
        """`n` answers.

        Raises:
            MissingExtraError: Where Optuna is not installed.
        """
        parameters = parameters_of(space)
        import optuna
        from optuna.trial import TrialState

        seen, found = tried(trials), list[Architecture]()
        if len(trials) < self.initial:
            return unseen(space, n, seen, generator=generator)
        distributions = dict(parameters.distributions)
        sampler = optuna.samplers.TPESampler(n_startup_trials=self.initial, seed=draw(2**31, generator))
        with quiet():
            study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(
            optuna.trial.create_trial(
                state=TrialState.FAIL if trial.value is None else TrialState.COMPLETE,
                value=trial.value,
                params=dict(trial.choice.choices),
                distributions=distributions,
            )
            for trial in trials
        )
        for _ in range(n * self.attempts):
            if len(found) == n:
                return found
            answer = parameters.decode(study.ask(distributions).params)
            if answer not in seen and space.has(answer):
                seen.add(answer)
                found.append(answer)
        return found + unseen(space, n - len(found), seen, generator=generator)
