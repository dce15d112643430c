"""How AON learns, on tasks whose outcomes are known."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import ShapeError
from quickstudy.nas.aen import Facts, Prior
from quickstudy.nas.aon import AON, Feedback, Step
from quickstudy.nas.architecture import Architecture, Encoded
from quickstudy.nas.baselines.candidates import LISTED
from quickstudy.nas.calibration import Stranger
from quickstudy.nas.landscape import Landscape
from quickstudy.nas.source import Rows, normal_scores
from quickstudy.nas.space import draw
from quickstudy.surrogates.gaussian_process import GaussianProcess

TRIALS = (0, 1, 2, 4, 6, 10, 16, 25, 40)
"""How much feedback there may be."""
TILTS = (0.0, 1.0, 3.0)
"""How far trials and starts are those that AEN thinks well of, as a search's are: logits a standard deviation."""
WITHOUT_COST = 0.5
"""Share of walks whose objective is the outcome alone."""
HEAVIEST = 1.0
"""What a standard deviation of a cost takes off at most."""
VALIDATIONS = 8
"""Batches of walks by which AON is judged, or one a task, if those are more."""
CONSIDERED = 16
"""Changes that an update looks at in training, in a space too large to be listed: there most neighbours are new, and to
evaluate them costs more than all else."""


@dataclass(frozen=True)
class Lesson:
    """A task with known outcomes, and what AENs make of it that know nothing of them."""

    landscape: Landscape
    rows: Tensor  # (r,)
    """Numbers of the members that were trained."""


@dataclass(frozen=True)
class Walks:
    """Where walks begin, and what they are told."""

    start: Tensor  # (b,)
    feedback: Feedback
    weights: Tensor  # (b, c)


def learn_to_improve(
    aon: AON,
    prior: Prior,
    experience: Mapping[str, Rows],
    others: Sequence[Stranger],
    *,
    costs: Facts | None = None,
    iterations: int = 300,
    walks: int = 32,
    lr: float = 3e-3,
    every: int = 25,
    patience: int = 4,
    generator: Generator,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> AON:
    r"""Meta-trains AON in place over tasks in which data set and objective vary, and returns it.

    A walk is one task: some of a data set's rows as feedback, as few or as many and as promising as a search's, a
    start, and an objective, the outcome less a weight, often zero, times a cost. Its loss is

    $$L = \sum_s w_s \Big( \tfrac12\, \mathbb{E}_{\alpha'} (v(\alpha') - r(\alpha'))^2 -
    \sum_{\alpha' \in N(\alpha_s)} P_{\ell_s}(\alpha')\, r(\alpha') \Big)$$

    over the neighbours $\alpha'$ of what the walk has come to: all of them, or in large spaces such as Tiny a few that
    are drawn. Later steps weigh more, and no gradient goes through the choice of a step. The reward $r$ of a member
    that was trained is its real outcome, and else that of a teacher: a Gaussian process on the prior's features
    that is given all rows of the task.

    AON sees AENs that have not seen the task's rows, `strangers`. So it learns how far they err on a new task, and how
    far feedback mends that.

    Of four tasks or more, those of the last part are only validated on; of fewer, other walks on the same tasks
    validate. The best weights are kept, the first among them: if nothing helps, AON still climbs AEN's prediction.

    Args:
        aon: Its weights are where training begins.
        prior: Learned from `experience`: the teacher.
        experience: Outcomes by task.
        others: AENs of some of the tasks, and those that they have not seen, as `strangers` gives them.
        costs: Finds the costs that may be weighed; without, the objective is the outcome.
        iterations: Batches at most; each is of one task.
        walks: A batch.
        lr: Of AdamW, annealed to zero by a cosine.
        every: Iterations between validations.
        patience: Validations without a better one that end it.
        generator: Of all randomness.
        on_progress: Called after each validation with the iterations done and in all, and the mean reward.

    Raises:
        ShapeError: Where there are fewer than two tasks, or one with fewer than four outcomes.
    """
    if len(experience) < 2:
        raise ShapeError(
            f"AON learns from tasks that AEN has not seen; {len(experience)} leaves it none to learn from. Give two."
        )
    if short := [name for name, rows in experience.items() if len(rows) < 4]:
        raise ShapeError(f"{', '.join(short)} has fewer than four outcomes. Leave it out.")
    parts = lessons(prior, experience, others, costs)
    held_out = parts[-1] if len(experience) >= 4 else [lesson for part in parts for lesson in part]
    taught = [lesson for part in (parts[:-1] if len(experience) >= 4 else parts) for lesson in part]
    considered = CONSIDERED if math.prod(map(len, prior.space.choices.values())) > LISTED else None
    seed = draw(2**31, generator)
    optimizer = torch.optim.AdamW(aon.parameters(), lr=lr, weight_decay=1e-2)
    best, kept, since = judged(aon, held_out, walks, considered, seed), deepcopy(aon.state_dict()), 0
    if on_progress is not None:
        on_progress(0, iterations, best)
    for iteration in range(1, iterations + 1):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * lr * (1 + math.cos(math.pi * (iteration - 1) / iterations))
        lesson = taught[draw(len(taught), generator)]
        given = draw_walks(lesson, walks, generator)
        steps = aon.walk(
            lesson.landscape,
            given.start,
            feedback=given.feedback,
            weights=given.weights,
            considered=considered,
            generator=generator,
        )
        optimizer.zero_grad()
        loss(lesson, given, steps).backward()
        nn.utils.clip_grad_norm_(aon.parameters(), 1.0)
        optimizer.step()
        if iteration % every == 0:
            value, since = judged(aon, held_out, walks, considered, seed), since + 1
            if value > best:
                best, kept, since = value, deepcopy(aon.state_dict()), 0
            if on_progress is not None:
                on_progress(iteration, iterations, value)
            if since == patience:
                break
    aon.load_state_dict(kept)
    return aon


def lessons(
    prior: Prior, experience: Mapping[str, Rows], others: Sequence[Stranger], costs: Facts | None = None
) -> list[list[Lesson]]:
    """The tasks part by part, each with AENs of all other parts."""
    return [[lesson(one.prior, prior, experience[name], costs) for name in one.unseen] for one in others]


def lesson(stranger: Prior, teacher: Prior, rows: Rows, costs: Facts | None) -> Lesson:
    """A task, its teacher, and AENs that are strangers to it."""
    space, reached = rows.space or teacher.space, normal_scores(rows.values).double()

    def said(architectures: Sequence[Architecture], encoded: Encoded) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            features = teacher.features(encoded)
            mean = teacher.judge(features, rows.task, teacher.proxies(architectures, space)).mean
            return features.double(), mean.double()

    features, mean = said(rows.architectures, space.encode(rows.architectures))
    process = GaussianProcess.fit(features, reached, prior_mean=mean)

    def judge(architectures: Sequence[Architecture], encoded: Encoded) -> Tensor:
        features, mean = said(architectures, encoded)
        return process.posterior(features, prior_mean=mean)[0]

    landscape = Landscape(stranger, space, task=rows.task, costs=costs, judge=judge)
    at = landscape.numbers(rows.architectures)
    landscape.outcome[at] = reached.float()
    return Lesson(landscape, at)


def draw_walks(lesson: Lesson, b: int, generator: Generator) -> Walks:
    """Walks on a task, all with as much feedback."""
    land, rows = lesson.landscape, lesson.rows
    t = min(TRIALS[draw(len(TRIALS), generator)], len(rows) // 2)
    promise = land.mean[rows].expand(b, -1)
    past = rows[likely(TILTS[draw(len(TILTS), generator)] * promise, t, generator)]  # (b, t)
    start = rows[likely(TILTS[draw(len(TILTS), generator)] * promise, 1, generator)][:, 0]
    weights = torch.zeros(b, land.costs.shape[1])
    if land.costs.shape[1]:
        column = torch.randint(land.costs.shape[1], (b, 1), generator=generator)
        heavy = (torch.rand(b, 1, generator=generator) - WITHOUT_COST).clamp_min(0) / (1 - WITHOUT_COST)
        weights.scatter_(1, column, HEAVIEST * heavy)
    reached = land.outcome[past].double()
    feedback = Feedback.of(land, past, reached)
    if t:
        penalty = (land.costs[past] * weights[:, None]).sum(-1)
        best = past.gather(1, feedback.best(penalty)[:, None])[:, 0]
        start = best.where(torch.rand(b, generator=generator) < 0.5, start)
    return Walks(start, feedback, weights)


def likely(logits: Tensor, n: int, generator: Generator) -> Tensor:
    """`n` of each row without repetition, `(b, n)`, by Gumbel's trick."""
    noise = -torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6).log().neg().log()
    return (logits + noise).topk(n, dim=1).indices


def rewards(lesson: Lesson, given: Walks, near: Tensor) -> Tensor:
    """The objective of members `(b, n)`; 0 where there is none."""
    land = lesson.landscape
    there = near.clamp_min(0)
    found = land.outcome[there] - (land.costs[there] * given.weights[:, None]).sum(-1)
    return found.masked_fill(near < 0, 0.0)


def loss(lesson: Lesson, given: Walks, steps: Sequence[Step]) -> Tensor:
    """A scalar: what is expected to be lost, and the error of AON's own values."""
    total, share = torch.zeros(()), 2 / (len(steps) * (len(steps) + 1))
    for s, step in enumerate(steps):
        reward, member = rewards(lesson, given, step.near), step.near >= 0
        expected = (step.log_probability.exp() * reward).sum(1).mean()
        error = (step.value - reward).square()[member].mean()
        total = total + (s + 1) * share * (error / 2 - expected)
    return total


def judged(aon: AON, lessons: Sequence[Lesson], walks: int, considered: int | None, seed: int) -> float:
    """The mean objective of what greedy walks end on, the same walks whenever it is asked."""
    total, batches = 0.0, max(1, VALIDATIONS // len(lessons))
    for lesson in lessons:
        generator = Generator().manual_seed(seed)
        for _ in range(batches):
            given = draw_walks(lesson, walks, generator)
            greedy = torch.ones(walks, dtype=torch.bool)
            with torch.no_grad():
                *_, last = aon.walk(
                    lesson.landscape,
                    given.start,
                    feedback=given.feedback,
                    weights=given.weights,
                    considered=considered,
                    greedy=greedy,
                    generator=generator,
                )
            end = last.near.gather(1, last.log_probability.argmax(1, keepdim=True))
            total += float(rewards(lesson, given, end).mean())
    return total / (batches * len(lessons))
