import errno
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from quickstudy import (
    MAML,
    MLP,
    Conv4,
    Episodes,
    LabelledSet,
    Plan,
    PrototypicalNetwork,
    Reptile,
    Sinusoid,
    evaluate,
    meta_train,
)
from quickstudy.errors import (
    DamagedArtefactError,
    DeviceLostError,
    DivergedError,
    ForeignArtefactError,
    OutputExistsError,
    ShapeError,
    TaskError,
)
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.training.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from quickstudy.training.history import History


def vectors(classes: int = 6) -> LabelledSet:
    random = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(8)
    x = torch.randn(classes, 6, generator=random)[y] + torch.randn(len(y), 6, generator=random)
    return LabelledSet(x, y, tuple("abcdefghij"[:classes]))


def pictures() -> LabelledSet:
    x = torch.randint(256, (24, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return LabelledSet(x, torch.arange(4).repeat(6), tuple("abcd"))


VECTORS = Episodes(vectors(), n_way=3, n_query=3)
PICTURES = Episodes(pictures(), n_way=3, n_query=2)


class Scale(nn.Module):
    """A net that says its own weight, so that a run can be followed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def dropout_net(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, outputs))


class Moody(nn.Module):
    """Drops out, and then takes one of two ways by what it sees: `vmap` refuses it when it has already drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.Dropout(0.3))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        return self.head(z.relu() if z.sum() > 0 else z.tanh())


LEARNERS = {
    "prototypical network with dropout": (lambda: PrototypicalNetwork(dropout_net(4)), VECTORS),
    "prototypical network on Conv4": (lambda: PrototypicalNetwork(Conv4(1, 4)), PICTURES),
    "MAML": (lambda: MAML(MLP(6, 3), lr=0.1, steps=2), VECTORS),
    "MAML on a network that vmap refuses": (lambda: MAML(Moody(), lr=0.1, steps=2), VECTORS),
    "MAML++": (lambda: MAMLPlusPlus(MLP(6, 3), lr=0.1, steps=2), VECTORS),
    "Reptile": (lambda: Reptile(MLP(6, 3), lr=0.1, steps=2), VECTORS),
}


class Stop(Exception):
    """Somebody pulls the plug."""


def stop_at(step: int):
    def watch(seen):
        if seen.history.step == step:
            raise Stop

    return watch


def run(make, source, steps=8, **options):
    torch.manual_seed(5)
    learner = make()
    options = {"validation": source, "validation_tasks": 6, "validate_every": 2, "tasks_per_step": 2} | options
    return learner, meta_train(learner, source, steps=steps, **options)


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def saved(folder: Path) -> dict:
    return read_checkpoint(folder, {})


def timeless(state) -> dict:
    """A checkpoint's state without what the clock decides."""
    if isinstance(state, dict):
        return {key: timeless(value) for key, value in state.items() if key != "seconds"}
    if isinstance(state, list):
        return [timeless(value) for value in state]
    return state.tolist() if isinstance(state, Tensor) else state


@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_that_is_resumed_equals_one_that_never_stopped(tmp_path, name):
    make, source = LEARNERS[name]
    options = {"schedule": "cosine", "clip": 1.0}
    whole, history = run(make, source, out=tmp_path / "whole", **options)
    for step in (3, 6, 7):  # in the middle of nowhere, at a validation, and just before the end
        with pytest.raises(Stop):
            run(make, source, out=tmp_path / "broken", resume=True, on_progress=stop_at(step), **options)
    again, seen = run(make, source, out=tmp_path / "broken", resume=True, **options)
    assert same_tensors(whole.state_dict(), again.state_dict())
    assert [v.mean for v in history.validations] == [v.mean for v in seen.validations]
    assert history.to_settings()["window"] == seen.to_settings()["window"]
    # parameters, the best ones, optimiser, sampler, random state, history
    assert timeless(saved(tmp_path / "whole")) == timeless(saved(tmp_path / "broken"))


def test_a_run_that_is_finished_can_be_resumed_and_does_nothing(tmp_path):
    make, source = LEARNERS["MAML"]
    first, _ = run(make, source, out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    again, history = run(make, source, out=tmp_path, resume=True)
    assert history.step == 8
    assert same_tensors(first.state_dict(), again.state_dict())
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_resuming_where_there_is_no_checkpoint_starts(tmp_path):
    assert run(*LEARNERS["MAML"], steps=2, out=tmp_path, resume=True)[1].step == 2


def test_the_same_seed_trains_the_same_weights_and_another_does_not():
    make, source = LEARNERS["prototypical network with dropout"]
    one, same, other = (run(make, source, steps=3, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert same_tensors(one, same)
    assert not same_tensors(one, other)


def test_a_process_that_is_killed_leaves_a_checkpoint_that_goes_on(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch
        from test_meta_train import LEARNERS
        from quickstudy import meta_train
        torch.manual_seed(5)
        make, source = LEARNERS["MAML"]
        meta_train(make(), source, steps=10**9, out=sys.argv[1], checkpoint_seconds=0, tasks_per_step=2)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)])
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / CHECKPOINT).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    step = saved(tmp_path)["history"]["step"]
    assert step >= 1
    history = run(*LEARNERS["MAML"], steps=step + 2, out=tmp_path, resume=True, validation=None)[1]
    assert history.step == step + 2


def test_a_full_disk_leaves_the_previous_checkpoint_as_it_was(tmp_path, monkeypatch):
    make, source = LEARNERS["MAML"]
    run(make, source, steps=4, out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run(make, source, out=tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / CHECKPOINT]  # no half of one beside it
    resumed, _ = run(make, source, out=tmp_path, resume=True)
    assert same_tensors(run(make, source)[0].state_dict(), resumed.state_dict())


class Exploding(MAML):
    """Its loss is not a number from the fourth step on."""

    calls = 0

    def loss(self, tasks, *, generator=None):
        self.calls += 1
        return super().loss(tasks) * (math.nan if self.calls > 3 else 1)


def test_a_run_that_diverges_stops_with_its_step_and_its_last_good_checkpoint(tmp_path):
    said = r"the loss is nan at step 4\..*, of step 2: go on from it \(--resume\) with an lr below 0.001, or"
    with pytest.raises(DivergedError, match=said) as error:
        run(lambda: Exploding(MLP(6, 3)), VECTORS, out=tmp_path)
    assert str(tmp_path / CHECKPOINT) in str(error.value)
    assert saved(tmp_path)["history"]["step"] == 2


def test_a_run_goes_on_with_another_outer_rate_and_clip_and_tells_so(tmp_path):
    def weights(steps, out, **options):
        return run(*LEARNERS["MAML"], validation=None, resume=True, steps=steps, out=tmp_path / out, **options)

    start = weights(1, "a")[0]
    weights(1, "b", lr=1e-3)
    weights(1, "c")
    same, _ = weights(2, "a")
    other, history = weights(2, "b", lr=2e-3, clip=1e6)
    assert history.changes == ["lr was [0.001] until step 1", "clip was None until step 1"]
    assert (history.lr, history.clip) == ([2e-3], 1e6)
    assert History.from_settings(saved(tmp_path / "b")["history"]).changes == history.changes
    for a, b, c in zip(start.parameters(), same.parameters(), other.parameters()):  # Adam's step is as long as its rate
        torch.testing.assert_close(c - a, 2 * (b - a))
    clipped, _ = weights(2, "c", clip=1e-9)
    assert not same_tensors(clipped.state_dict(), same.state_dict())


def test_a_run_that_is_resumed_without_a_word_keeps_its_rate_and_its_clip(tmp_path):
    def sgd(steps, out, **options):
        options = {"validation": None, "schedule": "cosine", "resume": True} | options
        return run(lambda: Reptile(MLP(6, 3), steps=2), VECTORS, steps=steps, out=tmp_path / out, **options)

    def until(step):
        def stop(seen):
            if seen.history.step == step:
                raise KeyboardInterrupt

        return stop

    whole, _ = sgd(4, "a", lr=0.7, clip=0.1)
    with pytest.raises(KeyboardInterrupt):
        sgd(4, "b", lr=0.7, clip=0.1, validate_every=2, on_progress=until(3))
    resumed, history = sgd(4, "b")
    assert (history.lr, history.clip, history.changes) == ([0.7], 0.1, [])
    assert same_tensors(whole.state_dict(), resumed.state_dict())
    _, history = sgd(4, "b", lr=7.0)  # it is over, so that nothing has this rate
    assert (history.lr, history.changes) == ([0.7], [])


class Astray(Scale):
    """Its answers are infinite once it has learned for two steps."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (self.weight.detach() - 1 < -0.015).logical_not()


def test_a_regression_that_diverges_in_validation_says_after_which_step(tmp_path):
    def loss(self, tasks, *, generator=None):
        return self.net.weight.expand(len(tasks))

    learner = MAML(Astray(), lr=0.0)
    learner.loss = loss.__get__(learner)
    source = Sinusoid(n_shot=3, n_query=3)
    with pytest.raises(
        DivergedError, match=r"^after step 2, adapting to 4 of 4 .*checkpoint.*, of step 1: go on from it"
    ):
        meta_train(
            learner, source, steps=3, lr=0.01, validation=source, validation_tasks=4, validate_every=1, out=tmp_path
        )


def test_data_that_are_not_finite_are_told_from_a_run_that_diverges():
    class Holed:
        def sample(self, b, *, generator):
            task = VECTORS.sample(b, generator=generator)
            task.query.x[0, 0] = float("nan")
            return task

    with pytest.raises(TaskError, match=r"1 of \d+ inputs hold NaN or infinity"):
        run(lambda: MAML(MLP(6, 3)), Holed(), validation=None)


def test_what_is_masked_out_is_not_to_blame_for_a_run_that_diverges():
    class Padded:
        def sample(self, b, *, generator):
            task = VECTORS.sample(b, generator=generator)
            mask = torch.ones(task.query.y.shape, dtype=torch.bool)
            mask[:, 0] = False
            task.query.x[:, 0] = float("nan")
            return replace(task, query=replace(task.query, mask=mask))

    with pytest.raises(DivergedError, match="the loss is nan at step 4"):
        run(lambda: Exploding(MLP(6, 3)), Padded(), validation=None)


class Overflowing(MAML):
    """Its loss is fine and its gradient is not."""

    def loss(self, tasks, *, generator=None):
        return super().loss(tasks) + sum((0 * p).sqrt().sum() for p in self.parameters())


def test_weights_that_are_no_longer_finite_are_never_saved(tmp_path):
    with pytest.raises(DivergedError, match="the weights are no longer finite after step 1"):
        run(lambda: Overflowing(MLP(6, 3)), VECTORS, out=tmp_path, checkpoint_seconds=0, validate_every=1)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_folder_with_a_checkpoint_is_not_overwritten(tmp_path):
    run(*LEARNERS["MAML"], steps=2, out=tmp_path)
    with pytest.raises(OutputExistsError, match="--resume"):
        run(*LEARNERS["MAML"], steps=2, out=tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": 3}, "had seed = 0, not 3"),
        ({"tasks_per_step": 4}, "had tasks_per_step = 2, not 4"),
        ({"schedule": "cosine"}, "had schedule = 'constant', not 'cosine'"),
        ({"settings": {"n_way": 5, "shape": (1, 2)}}, "had n_way = 3, not 5"),
    ],
)
def test_a_run_is_resumed_only_with_its_own_settings(tmp_path, options, told):
    first = {"settings": {"n_way": 3, "shape": (1, 2)}}
    run(*LEARNERS["MAML"], steps=1, out=tmp_path, validation=None, **first)
    with pytest.raises(ForeignArtefactError, match=told):
        run(*LEARNERS["MAML"], steps=2, out=tmp_path, resume=True, **(first | options))


def test_a_run_is_resumed_only_with_its_own_learner_and_network(tmp_path):
    run(*LEARNERS["MAML"], steps=1, out=tmp_path)
    with pytest.raises(ForeignArtefactError, match="had learner = 'MAML', not 'PrototypicalNetwork'"):
        run(*LEARNERS["prototypical network with dropout"], steps=2, out=tmp_path, resume=True)
    with pytest.raises(ForeignArtefactError, match="had parameters = "):
        run(lambda: MAML(MLP(6, 3, hidden=(7,))), VECTORS, steps=2, out=tmp_path, resume=True)
    with pytest.raises(ForeignArtefactError, match=r"had option lr = 0\.1, not 0\.2"):
        run(lambda: MAML(MLP(6, 3), lr=0.2, steps=2), VECTORS, steps=2, out=tmp_path, resume=True)
    with pytest.raises(ForeignArtefactError, match="had option order = 2, not 1"):
        run(lambda: MAML(MLP(6, 3), lr=0.1, steps=2, order=1), VECTORS, steps=2, out=tmp_path, resume=True)


def test_a_run_goes_on_with_less_memory(tmp_path):
    run(*LEARNERS["MAML"], steps=1, out=tmp_path)
    less = {"memory_budget": 1 << 20, "low_memory": True, "batching": "loop"}
    found = run(lambda: MAML(MLP(6, 3), lr=0.1, steps=2, **less), VECTORS, steps=2, out=tmp_path, resume=True)
    assert found[1].step == 2


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"?" + b[-8:]])
def test_a_damaged_checkpoint_is_named_and_left_alone(tmp_path, damage):
    run(*LEARNERS["MAML"], steps=1, out=tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    content = path.read_bytes()
    with pytest.raises(DamagedArtefactError, match="no checkpoint that can be read") as error:
        run(*LEARNERS["MAML"], steps=2, out=tmp_path, resume=True)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_a_checkpoint_keeps_nested_values_of_every_kind(tmp_path):
    shared = torch.arange(3)
    state = {"a": {0: shared, 1: shared}, "b": [1, 0.1, None, True, "ü", math.inf, {}], "c": torch.tensor(2.5)}
    write_checkpoint(tmp_path, {}, state)
    found = saved(tmp_path)
    assert torch.equal(found["a"][0], shared)
    assert torch.equal(found["a"][1], shared)
    assert found["b"] == state["b"]
    assert found["c"] == 2.5


def test_a_process_of_another_device_that_has_ended_is_told_in_a_sentence(monkeypatch):
    def lost(self, *args, **options):
        raise RuntimeError(
            "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234\nand a trace"
        )

    fabric = Fabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(type(fabric), "world_size", 2)
    monkeypatch.setattr(type(fabric), "all_reduce", lost)
    with pytest.raises(DeviceLostError, match=r"has ended, at step 1\. Resume from the last checkpoint") as error:
        run(*LEARNERS["MAML"], fabric=fabric)
    assert "\n" not in str(error.value)


def test_nothing_is_unpickled_in_resuming(tmp_path, monkeypatch):
    run(*LEARNERS["MAML"], steps=1, out=tmp_path)

    def refuse(*args, **options):
        raise AssertionError("unpickled")

    for name in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(name, refuse)
    assert run(*LEARNERS["MAML"], steps=2, out=tmp_path, resume=True)[1].step == 2


def test_the_learner_ends_with_the_weights_of_its_best_validation():
    net, seen = Scale(), []
    data = LabelledSet(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4), tuple("abc"))
    source = Episodes(data, n_way=3, n_query=2)

    class ThirdTimeLucky(Episodes):
        """Its queries are labelled rightly in the third validation only."""

        def sample(self, b, *, generator):
            seen.append(net.weight.item())
            task = super().sample(b, generator=generator)
            return task if len(seen) == 3 else replace(task, query=replace(task.query, y=(task.query.y + 1) % 3))

    validation = ThirdTimeLucky(data, n_way=3, n_query=2)
    learner = PrototypicalNetwork(net)
    history = meta_train(learner, source, steps=6, validate_every=1, validation=validation, validation_tasks=8, lr=0.1)
    assert history.best == history.validations[2]
    assert history.best.mean == 100
    assert net.weight.item() == seen[2]
    assert len(set(seen)) > 1
    assert not learner.training


def test_without_validation_the_learner_keeps_its_last_weights_in_evaluation_mode():
    learner, history = run(*LEARNERS["prototypical network with dropout"], steps=3, validation=None)
    assert history.best is None
    assert not learner.training


class Watched(PrototypicalNetwork):
    """Keeps its optimiser, so that a test may look at it."""

    def optimizer(self, lr=None):
        self.outer = super().optimizer(lr)
        return self.outer


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("cosine", 0.0)])
def test_the_cosine_schedule_begins_at_the_rate_and_ends_at_nought(schedule, last):
    learner, rates = Watched(MLP(6, 3)), []
    meta_train(
        learner,
        VECTORS,
        steps=50,
        lr=0.01,
        tasks_per_step=1,
        schedule=schedule,
        on_progress=lambda seen: rates.append(learner.outer.param_groups[0]["lr"] / 0.01),
    )
    assert rates[0] == 1
    assert rates[-1] == pytest.approx(last, abs=2e-3)
    assert rates == sorted(rates, reverse=True)


def test_a_run_stops_by_the_clock(tmp_path):
    start = time.monotonic()
    history = run(*LEARNERS["MAML"], steps=10**9, seconds=0.3, validate_every=10**9, out=tmp_path)[1]
    assert 0.3 <= history.seconds < 5
    assert time.monotonic() - start < 30
    assert history.step < 10**9
    assert len(history.validations) == 1
    assert saved(tmp_path)["history"]["step"] == history.step


def test_progress_tells_the_rate_and_the_time_left():
    seen = []
    run(*LEARNERS["MAML"], steps=4, validation=None, on_progress=lambda p: seen.append((p.fraction, p.seconds_left)))
    assert [fraction for fraction, _ in seen] == [0.25, 0.5, 0.75, 1.0]
    assert seen[-1][1] == 0


def test_clipping_bounds_the_outer_gradient():
    learner = Reptile(MLP(6, 3), lr=1.0, steps=3)
    before = [p.detach().clone() for p in learner.parameters()]
    meta_train(learner, VECTORS, steps=1, clip=1e-3)
    moved = torch.stack([(p - old).norm() for p, old in zip(learner.parameters(), before)]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_learner_without_parameters_is_refused():
    with pytest.raises(ShapeError, match="NearestNeighbour has no parameters"):
        meta_train(NearestNeighbour(), VECTORS, steps=1)
    with pytest.raises(ShapeError, match="nothing to meta-train"):
        meta_train(PrototypicalNetwork(MLP(6, 3).requires_grad_(False)), VECTORS, steps=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "cos"}, "schedule is 'cos', but for meta-training it is 'constant' or 'cosine'."),
        ({"steps": -1}, "steps is -1, but for meta-training it is at least 0."),
        ({"tasks_per_step": 0}, "tasks_per_step is 0, but for meta-training it is at least 1."),
        ({"seconds": math.nan}, "seconds is nan, but for meta-training it is above 0."),
        ({"clip": 0.0}, "clip is 0.0, but for meta-training it is above 0."),
        ({"validation_tasks": 1}, "1 validation tasks have no interval. Take two or more."),
        ({"validate_every": 0, "validation": VECTORS}, "validate_every is 0, but for meta-training it is at least 1."),
    ],
)
def test_a_run_that_cannot_be_made_is_refused_with_what_can(options, said):
    with pytest.raises(ShapeError, match=f"^{said}$"):
        meta_train(Reptile(MLP(6, 3)), VECTORS, **{"steps": 1, **options})
    if "validate_every" not in options:
        with pytest.raises(ShapeError, match=f"^{said}$"):
            Plan(**options)


def test_data_that_hold_nan_are_refused():
    data = vectors()
    data.x[3, 2] = math.nan
    with pytest.raises(TaskError, match="1 of 48 examples hold NaN or infinity"):
        meta_train(MAML(MLP(6, 3)), Episodes(data, n_way=3, n_query=3), steps=1)


class Unknowns:
    """A regression whose targets are not all known."""

    def sample(self, n, *, generator):
        task = Sinusoid(n_shot=5, n_query=5).sample(n, generator=generator)
        task.query.y[0, 2] = math.nan
        return task


def test_targets_that_hold_nan_are_refused():
    with pytest.raises(TaskError, match="1 of 40 targets hold NaN or infinity"):
        meta_train(MAML(MLP(1, 1), lr=0.01), Unknowns(), steps=1)
    with pytest.raises(TaskError, match="1 of 40 query targets hold NaN or infinity"):
        evaluate(MAML(MLP(1, 1), lr=0.01), Unknowns(), tasks=8)


def test_pictures_that_the_network_cannot_take_are_refused_with_their_shape():
    with pytest.raises(ShapeError, match=r"pictures are \(1, 16, 16\); this Conv4 takes \(3, h, w\)"):
        meta_train(PrototypicalNetwork(Conv4(3, 4)), PICTURES, steps=1)


def test_regression_is_trained_and_judged_by_its_squared_error():
    source = Sinusoid(n_shot=5, n_query=5)
    history = meta_train(MAML(MLP(1, 1), lr=0.01), source, steps=2, validation=source, validation_tasks=6)
    assert history.best.metric == "mean squared error"
    assert history.best.mean == min(v.mean for v in history.validations)


@pytest.mark.parametrize("name", ["MAML", "prototypical network on Conv4"])
def test_mixed_precision_trains_float32_weights(name):
    make, source = LEARNERS[name]
    learner, history = run(make, source, steps=2, fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    assert history.step == 2
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in learner.parameters())
    assert not same_tensors(learner.state_dict(), run(make, source, steps=2)[0].state_dict())


def test_tensorboard_gets_its_events_when_asked(tmp_path):
    pytest.importorskip("tensorboard")
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path, name="log")
    run(*LEARNERS["MAML"], steps=2, fabric=Fabric(accelerator="cpu", devices=1, loggers=[logger]))
    logger.finalize("success")
    assert [path.stat().st_size > 0 for path in tmp_path.rglob("events.out.tfevents.*")] == [True]


def test_seconds_are_read_from_the_clock_that_is_given():
    ticks = iter(range(1000))
    history = run(*LEARNERS["MAML"], steps=10**9, seconds=7, clock=lambda: float(next(ticks)))[1]
    assert (history.step, history.seconds) == (7, 7.0)


def test_infinities_that_a_network_holds_by_design_are_no_divergence(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(6, 3)
            self.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))

        def forward(self, x):
            return self.last(x) + self.mask.exp()[0, 1]

    _, history = run(lambda: MAML(Masked()), VECTORS, steps=4, out=tmp_path)
    assert history.step == 4


def test_a_run_is_not_resumed_with_layers_of_other_names(tmp_path):
    run(lambda: MAML(nn.Sequential(nn.Flatten(), nn.Linear(6, 3))), VECTORS, steps=1, out=tmp_path)
    with pytest.raises(ForeignArtefactError, match="the checkpoint is of another network"):
        run(lambda: MAML(nn.Sequential(nn.Linear(6, 3))), VECTORS, steps=2, out=tmp_path, resume=True)


def test_a_learner_that_anneals_is_resumed_with_as_many_steps_in_all(tmp_path):
    run(*LEARNERS["MAML++"], steps=2, out=tmp_path)
    with pytest.raises(ForeignArtefactError, match="had steps = 2, not 20"):
        run(*LEARNERS["MAML++"], steps=20, out=tmp_path, resume=True)
