"""The contract that every learner keeps, as a test class: a new learner is one more entry of its list.

```python
import pytest
from quickstudy import MLP, PrototypicalNetwork
from quickstudy.testing.learners import Case, LearnerContract, vector_tasks

CASES = [
    Case("prototypical network", lambda: PrototypicalNetwork(MLP(6, 8)), vector_tasks),
    Case("mine", lambda: MyLearner(MLP(6, 3)), vector_tasks),
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestEveryLearner(LearnerContract):
    pass
```

It needs pytest. Comparisons are made in float64, so that their tolerance can be tight.
"""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Categorical

from quickstudy.errors import QuickstudyError, ShapeError, TaskError
from quickstudy.learners.familiarity import familiarity
from quickstudy.learners.learner import Learner
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.tasks.sinusoid import Sinusoid
from quickstudy.tasks.task import Examples, Task, TaskSource

N_WAY = 3
"""Classes of the tasks of `vector_tasks` and `picture_tasks`."""
N_CLASSES = 6
"""Classes that they are drawn from, which `Task.classes` names."""


def vector_tasks(n_shot: int) -> TaskSource:
    """3-way tasks of vectors of size 6."""
    return Episodes(_labelled(6), n_way=N_WAY, n_shot=n_shot, n_query=3)


def picture_tasks(n_shot: int) -> TaskSource:
    """3-way tasks of pictures `(1, 16, 16)`."""
    return Episodes(_labelled(1, 16, 16), n_way=N_WAY, n_shot=n_shot, n_query=3)


def curve_tasks(n_shot: int) -> TaskSource:
    """Regressions of one number on another, with four times as many points as `n_shot`."""
    return Sinusoid(n_shot=4 * n_shot, n_query=5)


def _labelled(*shape: int) -> LabelledSet:
    y = torch.arange(N_CLASSES).repeat(8)
    x = torch.rand(len(y), *shape, generator=Generator().manual_seed(0))
    centres = torch.rand(N_CLASSES, *shape, generator=Generator().manual_seed(1))
    return LabelledSet(0.5 * x + centres[y], y, tuple("abcdef"))


@dataclass(frozen=True)
class Case:
    """One learner, as the contract suite takes it."""

    name: str
    make: Callable[[], Learner]
    """Makes the learner; it may initialise itself from torch's global generator."""
    source: Callable[[int], TaskSource]
    """Makes the tasks that the learner is for, of a number of shots."""
    ordered: bool = False
    """The order of the support set matters, and the learner says so."""
    transductive: bool = False
    """A query's answer depends on the others, and the learner says so."""
    compares: bool = False
    """The loss compares tasks of a batch, and the learner says so."""
    masks: bool = True
    """Masked support examples change nothing."""
    shots: tuple[int, ...] = (1, 3)
    """Numbers of shots that one learner takes."""

    def __str__(self) -> str:
        return self.name

    def learner(self, seed: int = 0) -> Learner:
        """The learner in float64, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.make().double().eval()

    def tasks(self, b: int = 2, *, n_shot: int = 2, seed: int = 0) -> Task:
        """A batch of tasks in float64."""
        return self.source(n_shot).sample(b, generator=Generator().manual_seed(seed)).map(double)


class LearnerContract:
    """What a caller may rely on: see `Learner`. Parametrise a subclass by `case`, as above."""

    def test_a_prediction_is_a_distribution_a_query(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        predicted = learner.adapt(tasks, generator=seeded())(tasks.query.x)
        assert predicted.batch_shape == tasks.query.x.shape[:2]
        if tasks.n_way is None:
            assert predicted.event_shape == tasks.query.y.shape[2:]
            assert bool(predicted.mean.isfinite().all())
        else:
            assert isinstance(predicted, Categorical)
            assert predicted.probs.shape[-1] == tasks.n_way
            torch.testing.assert_close(predicted.probs.sum(-1), torch.ones_like(predicted.probs[..., 0]))

    def test_the_order_of_the_support_set_does_not_matter(self, case: Case) -> None:
        if case.ordered:
            pytest.skip(f"{case} says that the order matters")
        learner, tasks = case.learner(), case.tasks()
        order = torch.randperm(tasks.support.n, generator=seeded())
        shuffled = replace(tasks, support=tasks.support.map(lambda value: value[:, order]))
        assert_same(answers(learner, shuffled), answers(learner, tasks))

    def test_adapting_does_not_read_the_query_set(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        other = replace(tasks, query=tasks.query.map(torch.zeros_like))
        with torch.no_grad():
            found = learner.adapt(other, generator=seeded())(tasks.query.x)
        assert_same(numbers(found), answers(learner, tasks))

    def test_adapting_works_with_gradients_and_without(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        with torch.enable_grad():
            found = numbers(learner.adapt(tasks, generator=seeded())(tasks.query.x))
        assert_same(found.detach(), answers(learner, tasks))

    @pytest.mark.parametrize("training", [False, True])
    def test_adapting_leaves_the_learner_unchanged(self, case: Case, training: bool) -> None:
        learner, tasks = case.learner().train(training), case.tasks()
        modes = {name: module.training for name, module in learner.named_modules()}
        before = copy.deepcopy(learner.state_dict())
        found = answers(learner, tasks)
        assert {name: module.training for name, module in learner.named_modules()} == modes
        assert learner.state_dict().keys() == before.keys()
        for name, value in learner.state_dict().items():
            assert torch.equal(value, before[name]), f"{name} has changed"
        assert all(p.grad is None for p in learner.parameters()), "gradients are left behind"
        assert_same(answers(learner, tasks), found)

    def test_training_mode_does_not_change_answers(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        found = answers(learner, tasks)
        assert_same(answers(learner.train(), tasks), found)

    def test_one_predictor_answers_again_and_again(self, case: Case) -> None:
        learner, tasks, others = case.learner(), case.tasks(), case.tasks(seed=1)
        with torch.no_grad():
            predictor = learner.adapt(tasks, generator=seeded())
            first = numbers(predictor(tasks.query.x))
            learner.adapt(others, generator=seeded())(others.query.x)
            assert_same(numbers(predictor(tasks.query.x)), first)

    def test_a_query_alone_gets_the_answer_that_it_gets_among_others(self, case: Case) -> None:
        if case.transductive:
            pytest.skip(f"{case} says that it is transductive")
        learner, tasks = case.learner(), case.tasks()
        with torch.no_grad():
            predictor = learner.adapt(tasks, generator=seeded())
            among = numbers(predictor(tasks.query.x))
            for i in range(tasks.query.n):
                assert_same(numbers(predictor(tasks.query.x[:, i : i + 1])), among[:, i : i + 1])

    def test_a_batch_of_tasks_gives_what_its_tasks_give_one_by_one(self, case: Case) -> None:
        learner, tasks, generator = case.learner(), case.tasks(), seeded()
        with torch.no_grad():
            alone = [
                numbers(learner.adapt(tasks[i : i + 1], generator=generator)(tasks.query.x[i : i + 1]))
                for i in range(len(tasks))
            ]
        assert_same(answers(learner, tasks), torch.cat(alone))

    def test_a_batch_of_tasks_has_the_losses_that_its_tasks_have_one_by_one(self, case: Case) -> None:
        if case.compares:
            pytest.skip(f"{case} says that it compares tasks")
        learner, tasks, generator = case.learner(), case.tasks(), seeded()
        alone = [learner.loss(tasks[i : i + 1], generator=generator).detach() for i in range(len(tasks))]
        assert_same(learner.loss(tasks, generator=seeded()).detach(), torch.cat(alone))

    @pytest.mark.parametrize("training", [False, True])
    def test_the_loss_is_a_finite_number_a_task(self, case: Case, training: bool) -> None:
        learner, tasks = case.learner().train(training), case.tasks()
        loss = learner.loss(tasks, generator=seeded())
        assert loss.shape == (len(tasks),)
        assert loss.is_floating_point()
        assert bool(loss.isfinite().all())

    def test_the_loss_gives_gradients_to_what_is_meta_learned(self, case: Case) -> None:
        learner, tasks = case.learner().train(), case.tasks()
        loss = learner.loss(tasks, generator=seeded()).mean()
        parameters = [p for group in learner.parameter_groups() for p in group["params"]]
        if not parameters:
            assert not loss.requires_grad
            assert float(loss) == 0, "a learner without parameters has nothing to lower, so that its loss is zero"
            return
        loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert gradients, "no parameter has a gradient"
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert any(bool(g.any()) for g in gradients), "every gradient is zero"

    def test_a_meta_training_step_changes_what_is_meta_learned(self, case: Case) -> None:
        learner, tasks = case.learner().train(), case.tasks()
        if not list(learner.parameters()):
            pytest.skip(f"{case} has nothing to meta-learn")
        before = copy.deepcopy(dict(learner.named_parameters()))
        optimizer = learner.optimizer()
        learner.loss(tasks, generator=seeded()).mean().backward()
        optimizer.step()
        changed = [name for name, p in learner.named_parameters() if not torch.equal(p, before[name])]
        assert changed
        assert bool(torch.cat([p.flatten() for p in learner.parameters()]).isfinite().all())

    def test_the_same_seed_gives_the_same(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        assert_same(answers(learner, tasks), answers(learner, tasks))
        assert_same(learner.loss(tasks, generator=seeded()), learner.loss(tasks, generator=seeded()))

    def test_the_global_generator_is_left_alone(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        before = torch.get_rng_state()
        answers(learner, tasks)
        learner.loss(tasks, generator=seeded())
        assert torch.equal(torch.get_rng_state(), before), "noise was drawn that `generator` did not give"

    def test_masked_support_examples_change_nothing(self, case: Case) -> None:
        if not case.masks:
            pytest.skip(f"{case} takes no masks")
        learner, tasks = case.learner(), case.tasks()
        support = pad(tasks.support)
        assert_same(answers(learner, replace(tasks, support=support)), answers(learner, tasks))

    def test_masked_query_examples_do_not_count_in_the_loss(self, case: Case) -> None:
        if case.transductive:
            pytest.skip(f"{case} says that it is transductive")
        if not case.masks:
            pytest.skip(f"{case} takes no masks")
        learner, tasks = case.learner(), case.tasks()
        mask = torch.ones(tasks.query.y.shape[:2], dtype=torch.bool)
        mask[:, -2:] = False
        masked = replace(tasks, query=replace(tasks.query, mask=mask))
        fewer = replace(tasks, query=tasks.query.map(lambda value: value[:, :-2]))
        assert_same(learner.loss(masked, generator=seeded()), learner.loss(fewer, generator=seeded()))

    def test_masked_examples_change_nothing_in_meta_training(self, case: Case) -> None:
        if case.transductive:
            pytest.skip(f"{case} says that it is transductive")
        if not case.masks:
            pytest.skip(f"{case} takes no masks")
        learner, padded, tasks = case.learner().train(), case.learner().train(), case.tasks()
        more = replace(tasks, support=pad(tasks.support), query=pad(tasks.query))
        assert_same(padded.loss(more, generator=seeded()), learner.loss(tasks, generator=seeded()))
        for (name, found), expected in zip(padded.state_dict().items(), learner.state_dict().values()):
            assert torch.allclose(found, expected), f"{name} depends on masked examples"

    def test_it_takes_any_number_of_shots(self, case: Case) -> None:
        learner = case.learner()
        for n_shot in case.shots:
            tasks = case.tasks(n_shot=n_shot)
            assert bool(answers(learner, tasks).isfinite().all())
            assert bool(learner.loss(tasks, generator=seeded()).isfinite().all())

    def test_numbers_stay_in_the_precision_that_they_come_in(self, case: Case) -> None:
        for dtype in (torch.float32, torch.float64):
            learner = case.learner().to(dtype)
            tasks = case.tasks()
            if dtype == torch.float32:
                tasks = tasks.map(lambda value: value.float() if value.is_floating_point() else value)
            assert answers(learner, tasks).dtype == dtype
            assert learner.loss(tasks, generator=seeded()).dtype == dtype

    def test_a_deep_copy_answers_alike_and_shares_nothing(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        found = answers(learner, tasks)
        twin = copy.deepcopy(learner)
        assert_same(answers(twin, tasks), found)
        with torch.no_grad():
            for tensor in (*twin.parameters(), *twin.buffers()):
                tensor.zero_()
        assert_same(answers(learner, tasks), found)
        assert list(twin.parameters()) == [] or bool((answers(twin, tasks) != found).any()), "the copy is not its own"

    def test_its_state_makes_another_answer_alike(self, case: Case) -> None:
        learner, other, tasks = case.learner(), case.learner(seed=1), case.tasks()
        # A step of meta-training first, so that running averages differ from those that a learner begins with.
        learner.train().loss(tasks, generator=seeded())
        other.load_state_dict(learner.eval().state_dict())
        assert_same(answers(other, tasks), answers(learner, tasks))

    def test_more_classes_than_it_has_outputs_for_are_refused_by_their_number(self, case: Case) -> None:
        tasks = case.tasks()
        if tasks.n_way is None:
            pytest.skip(f"{case} is for regressions")
        wide = 40  # more classes than any tiny network here has outputs
        try:
            answers(case.learner(), replace(tasks, n_way=wide))
        except QuickstudyError as refusal:
            message = str(refusal)
        else:
            return  # it takes any number of classes
        assert str(wide) in message, "the message quotes the value that is wrong"

    def test_a_loss_of_queries_of_no_class_of_the_task_is_refused_by_their_label(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        if tasks.n_way is None:
            pytest.skip(f"{case} is for regressions")
        strange = replace(tasks, query=replace(tasks.query, y=tasks.query.y + tasks.n_way))
        with pytest.raises(ShapeError, match="a query label is"):
            learner.loss(strange, generator=seeded())

    def test_inputs_of_another_kind_are_taken_or_refused_in_one_sentence(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        support, query = (
            replace(part, x=(255 * part.x).to(torch.uint8) if part.x.is_floating_point() else part.x)
            for part in (tasks.support, tasks.query)
        )
        assert_taken_or_refused(learner, replace(tasks, support=support, query=query), "torch.uint8")

    def test_inputs_of_another_size_are_taken_or_refused_in_one_sentence(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        larger = replace(
            tasks,
            support=replace(tasks.support, x=torch.cat(2 * [tasks.support.x], -1)),
            query=replace(tasks.query, x=torch.cat(2 * [tasks.query.x], -1)),
        )
        assert_taken_or_refused(learner, larger, r"\d")  # the size of inputs, or of the features made of them

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_inputs_that_are_not_finite_are_refused(self, case: Case, value: float) -> None:
        learner, tasks = case.learner(), case.tasks()
        x = tasks.support.x.clone()
        x[1, -1] = value
        bad = replace(tasks, support=replace(tasks.support, x=x))
        with pytest.raises(TaskError, match=f"1 of {len(x) * tasks.support.n} support inputs hold NaN or infinity"):
            learner.adapt(bad, generator=seeded())
        with pytest.raises(TaskError, match="queries hold NaN or infinity"):
            learner.adapt(tasks, generator=seeded())(torch.full_like(tasks.query.x, value))

    def test_queries_of_another_size_than_the_support_set_are_refused(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        predictor = learner.adapt(tasks, generator=seeded())
        for strange in (torch.cat(2 * [tasks.query.x], -1), tasks.query.x[0], tasks.query.x[:1]):
            with pytest.raises(ShapeError, match=re.escape(str(tuple(strange.shape)))):
                predictor(strange)

    def test_a_query_is_more_familiar_the_more_it_is_like_a_class_that_was_shown(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        if tasks.n_way is None:
            with pytest.raises(ShapeError, match="regression"):
                familiarity(learner, tasks)
            return
        with torch.no_grad():
            known = familiarity(learner, tasks, generator=seeded())
            found = known(tasks.query.x)
            assert found.shape == tasks.query.y.shape
            assert bool((found.abs() <= 1 + 1e-6).all())
            assert_same(known(tasks.query.x), found)
            if not case.transductive:
                assert_same(known(tasks.query.x[:, :1]), found[:, :1])
            one_shot = case.tasks(n_shot=1)
            known = familiarity(learner, one_shot, generator=seeded())
            if learner.embedding(one_shot) is not None:
                assert_same(known(one_shot.support.x), torch.ones_like(one_shot.support.y, dtype=torch.double))

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_tasks_of_another_device_get_the_same_answers(self, case: Case) -> None:
        learner, tasks = case.learner(), case.tasks()
        found = answers(learner, tasks)
        there = answers(learner.to("cuda"), tasks.to("cuda"))
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), found, rtol=1e-5, atol=1e-6)
        assert learner.loss(tasks.to("cuda"), generator=seeded()).device.type == "cuda"


def assert_taken_or_refused(learner: Learner, tasks: Task, quoted: str) -> None:
    """Answers and losses are finite, or what is raised is quickstudy's own: one sentence that quotes what is wrong."""
    attempts: list[Callable[[], Tensor]] = [
        lambda: answers(learner, tasks),
        lambda: learner.loss(tasks, generator=seeded()),
    ]
    for attempt in attempts:
        try:
            found = attempt()
        except QuickstudyError as refusal:
            message = str(refusal)
        else:
            assert bool(found.isfinite().all())
            continue
        assert re.search(quoted, message), "the message quotes what is wrong"
        assert "\n" not in message


def double(value: Tensor) -> Tensor:
    """Floats in float64; anything else as it is."""
    return value.double() if value.is_floating_point() else value


def pad(examples: Examples) -> Examples:
    """The same examples, and two that are masked out: their inputs are not numbers, and their labels -1."""
    mask = torch.ones(len(examples.x), examples.n + 2, dtype=torch.bool)
    mask[:, -2:] = False
    x = torch.cat([examples.x, torch.full_like(examples.x[:, :2], math.nan)], 1)
    return Examples(x, torch.cat([examples.y, torch.full_like(examples.y[:, :2], -1)], 1), mask)


def seeded() -> Generator:
    """A generator of one seed."""
    return Generator().manual_seed(7)


def answers(learner: Learner, tasks: Task) -> Tensor:
    """What the learner predicts of the query sets, as numbers, `(b, q, ...)`."""
    with torch.no_grad():
        return numbers(learner.adapt(tasks, generator=seeded())(tasks.query.x))


def numbers(predicted: torch.distributions.Distribution) -> Tensor:
    """Probabilities, or the mean of a regression."""
    return predicted.probs if isinstance(predicted, Categorical) else predicted.mean


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal up to the rounding of float64."""
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
