"""A task's embedding is of the set, not of its order or its labels' names."""

import pytest
import torch
from torch import Generator, Tensor

from quickstudy.errors import ShapeError
from quickstudy.nets.task_encoder import TaskEncoder, contrast


def data_set(seed: int, n: int = 60, k: int = 4, shape: tuple[int, ...] = (1, 14, 14)) -> tuple[Tensor, Tensor]:
    """Classes about means of their own, as far apart and as coarse as the seed says."""
    generator = Generator().manual_seed(seed)
    coarse = torch.rand(k, shape[0], *(max(1, side // (2 + 2 * (seed % 3))) for side in shape[1:]), generator=generator)
    mode = "linear" if len(shape) == 2 else "bilinear"
    means: Tensor = torch.nn.functional.interpolate(coarse, shape[1:], mode=mode)
    y = torch.arange(n) % k
    noise = torch.randn(n, *shape, generator=generator)
    return means[y] + (0.1 + 0.3 * (seed % 4)) * noise, y


def embed(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        found: Tensor = TaskEncoder()(x[None], y[None], None if mask is None else mask[None])[0]
        return found


@pytest.mark.parametrize("shape", [(1, 14, 14), (3, 32, 20), (1, 8, 8), (2, 100), (1, 300), (1, 1, 40)])
def test_the_order_of_examples_and_the_names_of_classes_do_not_matter(shape: tuple[int, ...]) -> None:
    x, y = data_set(0, shape=shape)
    order = torch.randperm(len(y), generator=Generator().manual_seed(1))
    torch.testing.assert_close(embed(x[order], y[order]), embed(x, y), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embed(x, torch.tensor([7, 0, 3, 1])[y]), embed(x, y), atol=1e-4, rtol=1e-4)


def test_masked_examples_are_not_seen() -> None:
    x, y = data_set(0)
    mask = torch.arange(len(y)) < 40
    torch.testing.assert_close(embed(x, y, mask), embed(x[:40], y[:40]))


def test_tasks_side_by_side_are_embedded_as_each_alone() -> None:
    (x, y), (other, labels) = data_set(0), data_set(1)
    torch.manual_seed(0)
    both = TaskEncoder()(torch.stack([x, other]), torch.stack([y, labels]))
    torch.testing.assert_close(both[1], embed(other, labels))


def test_brightness_and_contrast_do_not_matter() -> None:
    x, y = data_set(0)
    torch.testing.assert_close(embed(255 * x + 3, y), embed(x, y), atol=1e-3, rtol=1e-3)


def test_a_harder_task_has_other_facts() -> None:
    x, y = data_set(0)
    noisy = x + 5 * torch.randn(x.shape, generator=Generator().manual_seed(0))
    assert embed(noisy, y)[6] < embed(x, y)[6]  # nearest class mean


def test_a_class_of_one_example_and_a_task_of_one_class_are_embedded() -> None:
    x, y = data_set(0)
    assert embed(x[:5], torch.tensor([0, 0, 1, 1, 2])).isfinite().all()
    assert embed(x[:5], torch.zeros(5, dtype=torch.int64)).isfinite().all()
    assert embed(x[:1], y[:1]).isfinite().all()


def test_with_a_generator_at_most_so_many_are_looked_at_and_the_same_ones_again() -> None:
    x, y = data_set(0, n=600)
    encoder = TaskEncoder()
    once, again = (encoder(x[None], y[None], generator=Generator().manual_seed(3), most=100) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, encoder(x[None], y[None]))


def test_contrast_learns_to_tell_parts_of_data_sets_that_it_has_not_seen() -> None:
    torch.manual_seed(0)
    encoder = TaskEncoder()
    taught = [data_set(seed) for seed in range(12)]
    new = [data_set(seed) for seed in range(12, 24)]

    def told() -> float:
        with torch.no_grad():
            here = torch.cat([encoder(x[None, :28], y[None, :28])[:, 9:] for x, y in new])
            there = torch.cat([encoder(x[None, 28:], y[None, 28:])[:, 9:] for x, y in new])
        return float((torch.cdist(here, there).argmin(1) == torch.arange(12)).float().mean())

    contrast(encoder, taught, iterations=100, generator=Generator().manual_seed(0))
    assert told() > 0.5  # by chance: a twelfth


def test_a_digest_is_of_the_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, other, larger = TaskEncoder(12), TaskEncoder(12), TaskEncoder(16)
    same = TaskEncoder(12)
    same.load_state_dict(one.state_dict())
    assert same.digest == one.digest
    assert len({one.digest, other.digest, larger.digest}) == 3
    one.spread[0] += 1e-3
    assert same.digest != one.digest


def test_too_few_data_sets_and_wrong_shapes_are_named() -> None:
    x, y = data_set(0)
    with pytest.raises(ShapeError, match="1 data sets are not told apart"):
        contrast(TaskEncoder(), [(x, y)], generator=Generator())
    with pytest.raises(ShapeError, match=r"y \(1, 59\)"):
        TaskEncoder()(x[None], y[None, 1:])
    with pytest.raises(ShapeError, match="task 0 has no example"):
        TaskEncoder()(x[None], y[None], torch.zeros(1, 60, dtype=torch.bool))
    with pytest.raises(ShapeError, match="no room beside 9 facts"):
        TaskEncoder(9)
