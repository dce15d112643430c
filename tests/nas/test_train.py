import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

import quickstudy.nas.train as module
from quickstudy.errors import DivergedError, ShapeError
from quickstudy.nas.build import build, count
from quickstudy.nas.export import export_onnx
from quickstudy.nas.standardise import Standardise, standardised
from quickstudy.nas.tiny import Tiny
from quickstudy.nas.train import Descent, Schedule, answer, augmented, batches, products, train


def seeded(seed=0):
    return Generator().manual_seed(seed)


@pytest.fixture
def space():
    return Tiny(shape=(2, 8, 8), n_classes=3)


@pytest.fixture
def network(space):
    cell = ("conv1", "sep_conv3", "none", "skip_connect", "conv1", "avg_pool3")
    return build(space, space.architecture((*cell, 6, 1, 2, "stride1", "avg", "mean")), generator=seeded())


@pytest.fixture
def examples():
    """Pictures, far from mean zero, whose class is the position of a bright column."""
    y = torch.arange(90) % 3
    x = 0.1 * torch.rand(90, 2, 8, 8, generator=seeded()) + 5
    x[torch.arange(90), :, :, 1 + 2 * y] += 0.3
    return x, y


SHORT = Schedule(steps=12, batch_size=8)


def test_a_network_of_tiny_learns_a_task(network, examples):
    x, y = examples
    whole = standardised(network, x[:60])
    trained = train(whole, x[:60], y[:60], Schedule(steps=60, batch_size=16), generator=seeded())
    assert trained.complete
    assert trained.steps == 60
    assert trained.losses[-10:].mean() < trained.losses[:10].mean()
    assert (answer(whole, x[60:]).argmax(1) == y[60:]).float().mean() > 0.9
    assert not whole.training


def test_the_same_seed_gives_the_same_weights(space, network, examples):
    first = {name: value.clone() for name, value in network.state_dict().items()}
    found = []
    for seed in (1, 1, 2):
        network.load_state_dict(first)
        train(network, *examples, Schedule(steps=6, shift=1, flip=True), generator=seeded(seed))
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_rate_begins_and_ends_at_zero_whatever_the_number_of_steps():
    schedule = Schedule(lr=0.3, warm_up=0.25)
    assert schedule.rate(0.0) == 0.0
    assert schedule.rate(0.25) == pytest.approx(0.3)
    assert schedule.rate(1.0) == pytest.approx(0.0)
    rates = [schedule.rate(i / 100) for i in range(101)]
    assert max(rates) == pytest.approx(0.3)
    assert sorted(rates[25:], reverse=True) == rates[25:]


@pytest.mark.parametrize(("n", "size"), [(10, 4), (10, 32), (7, 7)])
def test_all_examples_are_seen_equally_often(n, size):
    order = batches(n, Schedule(steps=20, batch_size=size), seeded())
    assert order.shape == (20, min(n, size))
    seen = order.flatten().bincount(minlength=n)
    assert seen.max() - seen.min() <= 1


def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_a_remedy(examples):
    x, y = examples
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+\. Lower the rate"):
        train(network, x * 1e18, y, Schedule(steps=40, lr=1e18), generator=seeded())


def test_standardising_once_is_the_same_as_standardising_every_batch(network, examples):
    x, y = examples
    first = {name: value.clone() for name, value in network.state_dict().items()}
    whole = standardised(network, x)
    losses = train(whole, x, y, SHORT, generator=seeded()).losses
    network.load_state_dict(first)
    direct = train(network, whole[0](x), y, SHORT, generator=seeded()).losses
    torch.testing.assert_close(losses, direct)


def test_standardised_inputs_have_mean_zero_and_spread_one_in_every_channel(examples):
    x = examples[0] * torch.tensor([1.0, 7.0]).view(2, 1, 1)
    z = Standardise.of(x)(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-3, rtol=0)


def test_a_channel_that_never_varies_stays_finite():
    x = torch.ones(4, 1, 6)
    assert torch.equal(Standardise.of(x)(x), torch.zeros(4, 1, 6))


def test_a_channel_of_small_numbers_is_standardised_and_one_that_only_rounds_is_not(examples):
    x = 1e-25 * examples[0]
    torch.testing.assert_close(Standardise.of(x)(x).std((0, 2, 3), correction=0), torch.ones(2), atol=1e-3, rtol=0)
    rounded = torch.full((8, 1, 6), 1e4)
    rounded[0, 0, 0] = 1e4 + 1e-3
    assert torch.equal(Standardise.of(rounded).spread, torch.ones(1))


def test_standardising_adds_no_parameter(space, examples):
    for seed in range(5):
        architecture = space.sample(generator=seeded(seed))
        whole = standardised(build(space, architecture), examples[0])
        assert sum(p.numel() for p in whole.parameters()) == count(space, architecture).parameters


def test_a_standardised_network_exports_with_its_standardisation(network, examples, tmp_path):
    import onnxruntime

    x, y = examples
    whole = standardised(network, x)
    train(whole, x, y, SHORT, generator=seeded())
    path = export_onnx(whole, x.shape[1:], tmp_path / "net.onnx", ["a", "b", "c"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    (logits,) = onnxruntime.InferenceSession(path, options).run(["logits"], {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits).softmax(1), answer(whole, x), atol=1e-4, rtol=1e-4)


def test_products_compute_what_convolutions_compute(network):
    x = torch.randn(5, 2, 8, 8, generator=seeded()).contiguous(memory_format=torch.channels_last)
    network.train()
    found = []
    for context in (products(network), products(nn.Sequential())):
        with context:
            logits = network(x)
            found.append((logits, *torch.autograd.grad(logits.square().sum(), list(network.parameters()))))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_products_leave_the_modules_as_they_were(network):
    with products(network):
        assert any("forward" in vars(layer) for layer in network.modules())
    assert not any("forward" in vars(layer) for layer in network.modules())


def test_steps_are_those_of_sgd():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    other, schedule, x = copy.deepcopy(one), Schedule(momentum=0.8), torch.randn(9, 3, generator=seeded())
    decays = [p for p in other.parameters() if p.dim() > 1], [p for p in other.parameters() if p.dim() <= 1]
    parts = [{"params": p, "weight_decay": w} for p, w in zip(decays, (schedule.weight_decay, 0.0))]
    descent, optimizer = Descent(one, schedule), torch.optim.SGD(parts, lr=1.0, momentum=0.8, nesterov=True)
    for rate in (0.1, 0.3, 0.2):
        one(x).square().mean().backward()
        descent.step(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        other(x).square().mean().backward()
        optimizer.step()
    for a, b in zip(one.parameters(), other.parameters()):
        torch.testing.assert_close(a, b)


def clock_of(seconds_a_step, rates, monkeypatch, first=0.0):
    """A clock that goes forward by so much with every step, and more with the first; its rate is added to `rates`."""
    sound = Descent.step

    def step(self, rate):
        rates.append(rate)
        sound(self, rate)

    monkeypatch.setattr(Descent, "step", step)
    return SimpleNamespace(perf_counter=lambda: seconds_a_step * len(rates) + (first if rates else 0.0))


def test_a_deadline_makes_a_shorter_plan_that_ends_at_a_rate_of_zero(network, examples, monkeypatch):
    rates = []
    monkeypatch.setattr(module, "time", clock_of(1.0, rates, monkeypatch))
    trained = train(network, *examples, Schedule(steps=500, batch_size=4), generator=seeded(), deadline=31.0)
    assert not trained.complete
    assert 27 < trained.steps <= 31
    assert len(rates) == trained.steps
    assert rates[-1] < 0.05 * max(rates)


def test_a_first_step_that_takes_long_makes_no_plan_shorter(network, examples, monkeypatch):
    monkeypatch.setattr(module, "time", clock_of(0.01, [], monkeypatch, first=1.0))
    trained = train(network, *examples, Schedule(steps=200, batch_size=4), generator=seeded(), deadline=5.0)
    assert trained.complete


def test_a_first_step_that_takes_most_of_the_time_is_not_the_last(network, examples, monkeypatch):
    monkeypatch.setattr(module, "time", clock_of(0.01, [], monkeypatch, first=3.5))
    trained = train(network, *examples, Schedule(steps=500, batch_size=4), generator=seeded(), deadline=5.0)
    assert 120 < trained.steps < 150


def test_a_plan_grows_again_when_a_slow_moment_is_over(network, examples, monkeypatch):
    rates = []
    sound = clock_of(1.0, rates, monkeypatch)
    slow = SimpleNamespace(perf_counter=lambda: sound.perf_counter() + 2.0 * min(50, len(rates)))
    monkeypatch.setattr(module, "time", slow)
    trained = train(network, *examples, Schedule(steps=500, batch_size=4), generator=seeded(), deadline=350.0)
    assert 220 < trained.steps <= 250  # 116 at the pace of the first fifty
    assert rates[-1] < 0.05 * max(rates)


def test_after_the_deadline_a_training_stops_at_once(network, examples):
    trained = train(network, *examples, Schedule(steps=500), generator=seeded(), deadline=0.0)
    assert trained.steps == 1
    assert not trained.complete


def test_a_deadline_that_is_far_away_changes_nothing(network, examples):
    first = {name: value.clone() for name, value in network.state_dict().items()}
    losses = train(network, *examples, SHORT, generator=seeded()).losses
    network.load_state_dict(first)
    trained = train(network, *examples, SHORT, generator=seeded(), deadline=float("inf"))
    assert trained.complete
    assert torch.equal(trained.losses, losses)


def test_progress_says_what_is_done_and_planned(network, examples):
    told = []
    train(
        network,
        *examples,
        Schedule(steps=30, batch_size=4),
        generator=seeded(),
        on_progress=lambda done, planned: told.append((done, planned)),
    )
    assert told == [(25, 30), (30, 30)]


def test_answers_are_probabilities_that_do_not_depend_on_the_batch_and_leave_the_mode(network, examples):
    x = examples[0]
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = answer(network, x)
    torch.testing.assert_close(found.sum(1), torch.ones(len(x)))
    torch.testing.assert_close(found, answer(network, x, batch_size=7))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_without_being_asked_for_nothing_is_augmented():
    x = torch.rand(3, 1, 4, 4)
    assert augmented(x, Schedule(), seeded()) is x


def test_a_flip_mirrors_some_pictures():
    x = torch.rand(40, 1, 4, 4, generator=seeded())
    found = augmented(x, Schedule(flip=True), seeded())
    mirrored = (found == x.flip(-1)).flatten(1).all(1)
    kept = (found == x).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 0 < int(mirrored.sum()) < 40


@pytest.mark.parametrize("size", [(9,), (9, 9)])
def test_a_shift_moves_examples_by_at_most_so_much(size):
    x = torch.zeros(300, 1, *size)
    x[(slice(None), 0, *[4] * len(size))] = 1
    found = augmented(x, Schedule(shift=2), seeded())
    places = found.flatten(1).argmax(1)
    moved = torch.stack(torch.unravel_index(places, size), 1) - 4
    assert int(moved.abs().max()) == 2
    assert bool((augmented(x, Schedule(shift=2, moved=0.0), seeded()) == x).all())
    there = 0.5 + 0.5 / 5 ** len(size)  # half of them stay, and some of the others come to stand where they stood
    assert abs(float((moved == 0).all(1).float().mean()) - there) < 0.1
    assert len(moved.unique(dim=0)) == 5 ** len(size)
    torch.testing.assert_close(found.flatten(1).sum(1), torch.ones(300))


def test_along_a_short_side_examples_are_moved_by_less():
    x = torch.zeros(300, 1, 9, 90)
    x[:, 0, 4, 45] = 1
    found = augmented(x, Schedule(shift=10), seeded())
    rows, columns = torch.unravel_index(found.flatten(1).argmax(1), (9, 90))
    assert (int((rows - 4).abs().max()), int((columns - 45).abs().max())) == (1, 10)


def test_a_series_and_a_table_can_be_trained_on():
    y = torch.arange(20) % 2
    space = Tiny(shape=(1, 16), n_classes=2)
    for x, network in (
        (torch.rand(20, 1, 16), build(space, space.sample(generator=seeded()))),
        (torch.rand(20, 4), nn.Linear(4, 2)),
    ):
        assert train(network, x, y, SHORT, generator=seeded()).steps == 12


def test_weights_decay_and_biases_do_not(examples):
    x, y = examples
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    nn.init.ones_(network[1].weight)
    nn.init.ones_(network[1].bias)
    # with inputs of zero no weight has a gradient
    zeros = torch.zeros_like(x)
    train(network, zeros, y, Schedule(steps=3, lr=0.1, weight_decay=0.5), generator=seeded())
    assert bool((network[1].weight < 1).all())
    assert network[1].bias.sum().item() == pytest.approx(3, abs=1e-5)


@pytest.mark.parametrize(("n", "labels"), [(1, 1), (4, 3)])
def test_examples_without_labels_or_a_single_one_are_refused(n, labels):
    with pytest.raises(ShapeError, match="two examples or more"):
        train(nn.Linear(2, 2), torch.rand(n, 2), torch.zeros(labels).long(), SHORT, generator=seeded())


def test_label_smoothing_is_that_of_torch(examples):
    x, y = examples
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    order = batches(90, Schedule(steps=1, batch_size=90), seeded())[0]
    expected = F.cross_entropy(network(x[order]), y[order], label_smoothing=0.2)
    schedule = Schedule(steps=1, batch_size=90, label_smoothing=0.2)
    torch.testing.assert_close(train(network, x, y, schedule, generator=seeded()).losses[0], expected.detach())
