"""What a data set is like, in a few numbers."""

import hashlib
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from quickstudy.errors import ShapeError

SIDE = 16  # of the grid that every example is brought to
MAPS = (12, 32)  # of the two fixed convolutions
CENTRE = (5.0, 2.0, 6.5, 0.5, 1.5, -0.1, 0.6, 0.6, -0.5)  # of the facts, of data sets such as one may meet
SPREAD = (1.5, 1.0, 1.0, 0.6, 0.5, 0.2, 0.25, 0.25, 0.5)
FACTS = len(CENTRE)
FLOOR = 1e-3  # added to a spread before its logarithm is taken
FARTHEST = 3.0  # standard deviations that a number of an embedding may be off
TEMPERATURE = 0.2
SMALLEST = 0.4  # share of the examples, and of the classes, that a part of a data set has at least


class TaskEncoder(nn.Module):
    r"""Embeds a task by its support set, whatever the size and the channels of its inputs.

    1. Each example is brought to a grid of 16 x 16: a picture by averaging or interpolation, a series by
       interpolation to 256 steps, which are laid out row by row. Channels become their mean and their spread, and the
       grid is standardised over the task.
    2. Two convolutions with fixed random weights, means and spreads of their maps: `h_i`, 64 numbers.
    3. Pooling that knows classes but not their names: over classes, the logarithms of the spread of their means
       *between*, and of the mean spread *within*, for each number, and the mean of all examples.
    4. Plain facts: the logarithms of examples, classes, positions and channels, the number of dimensions, how unequal
       classes are, how well the nearest class mean and the nearest neighbour tell classes apart in `h`, and the ratio
       of between to within.
    5. A learned linear map of 3., beside the facts.

    The order of the examples, and which class has which label, change nothing. Only 5. is learned, by `contrast`: with
    some twenty tasks at hand, a network that learned to see would learn the tasks by heart.

    Args:
        features: `d`, the size of the embedding; 9 of them are the facts.

    Raises:
        ShapeError: Where there is no room beside the facts.

    Example:
        >>> import torch
        >>> from quickstudy.nets.task_encoder import TaskEncoder
        >>> pictures, labels = torch.rand(1, 30, 3, 28, 28), torch.arange(30)[None] % 5
        >>> TaskEncoder(16)(pictures, labels).shape
        torch.Size([1, 16])

    References:
        Zaheer et al., [Deep Sets](https://arxiv.org/abs/1703.06114), 2017. Jomaa et al.,
        [Dataset2Vec](https://arxiv.org/abs/1905.11063), 2021, for telling data sets apart by their parts.
    """

    first: Tensor
    second: Tensor
    centre: Tensor  # (s,)
    spread: Tensor  # (s,)

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        if features <= FACTS:
            raise ShapeError(f"an embedding of {features} numbers has no room beside {FACTS} facts. Give it more.")
        generator = Generator().manual_seed(0)
        first, second = MAPS
        self.register_buffer("first", torch.randn(first, 2, 3, 3, generator=generator) / 18**0.5)
        self.register_buffer("second", torch.randn(second, first, 3, 3, generator=generator) * (2 / (9 * first)) ** 0.5)
        statistics = FACTS + 3 * 2 * second
        self.register_buffer("centre", torch.cat([torch.tensor(CENTRE), torch.zeros(statistics - FACTS)]))
        self.register_buffer("spread", torch.cat([torch.tensor(SPREAD), torch.ones(statistics - FACTS)]))
        self.learned = nn.Linear(statistics - FACTS, features - FACTS, bias=False)
        self.features = features

    def forward(
        self, x: Tensor, y: Tensor, mask: Tensor | None = None, *, generator: Generator | None = None, most: int = 500
    ) -> Tensor:
        """Embeddings of `b` tasks, `(b, d)`.

        Args:
            x: Pictures `(b, n, channels, height, width)`, or series `(b, n, channels, length)`.
            y: int64 labels, `(b, n)`.
            mask: True where an example is real, `(b, n)`; everywhere by default.
            generator: Draws the examples that are looked at, where there are more than `most`; all are, without it.
            most: Examples.
        """
        return self.embed(self.describe(x, y, mask, generator=generator, most=most))

    @property
    def digest(self) -> str:
        """Of its weights: embeddings of encoders with other ones are in other units."""
        found = hashlib.sha256()
        for name, value in self.state_dict().items():
            found.update(f"{name} {tuple(value.shape)}".encode() + value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def embed(self, statistics: Tensor) -> Tensor:
        """What `describe` found, `(b, s)`, to `(b, d)`."""
        z = ((statistics - self.centre) / self.spread).clamp(-FARTHEST, FARTHEST)
        learned = torch.tanh(self.learned(z[:, FACTS:]))
        return torch.cat([z[:, :FACTS], learned], 1)

    def describe(
        self, x: Tensor, y: Tensor, mask: Tensor | None = None, *, generator: Generator | None = None, most: int = 500
    ) -> Tensor:
        """Facts and pooled statistics, which nothing is learned of: `(b, s)`.

        Raises:
            ShapeError: Where shapes do not fit, or a task has no real example.
        """
        if x.ndim not in (4, 5) or y.shape != x.shape[:2] or (mask is not None and mask.shape != y.shape):
            raise ShapeError(
                f"x is {tuple(x.shape)}, y {tuple(y.shape)}. Pass pictures (b, n, channels, height, width) or series "
                "(b, n, channels, length), and labels and mask (b, n)."
            )
        found = []
        with torch.no_grad():
            for i in range(len(x)):
                real = torch.arange(x.shape[1], device=x.device) if mask is None else mask[i].nonzero()[:, 0]
                if not len(real):
                    raise ShapeError(f"task {i} has no example to be known by. Give it one.")
                if generator is not None and len(real) > most:
                    real = real[torch.randperm(len(real), generator=generator)[:most].to(real.device)]
                found.append(self._describe(x[i, real], y[i, real]))
        return torch.stack(found)

    def _describe(self, x: Tensor, y: Tensor) -> Tensor:
        classes, of, sizes = y.unique(return_inverse=True, return_counts=True)
        h = self._examples(x)  # (n, s)
        members = F.one_hot(of, len(classes)).to(h.dtype)  # (n, k)
        means = members.T @ h / sizes[:, None]
        within = (members.T @ (h - means[of]).square() / sizes[:, None]).mean(0).sqrt()
        between = means.std(0, unbiased=False)
        share = sizes / sizes.sum()
        facts = [math.log(n) for n in (len(x), len(classes), x[0, 0].numel(), x.shape[1])]
        facts += [
            float(x.ndim - 2),
            float(-(share * share.log()).sum()) - math.log(len(classes)),
            *apart(h, of, members, means, sizes),
            float(((between + FLOOR) / (within + FLOOR)).log().mean()),
        ]
        pooled = torch.cat([h.mean(0), (between + FLOOR).log(), (within + FLOOR).log()])
        return torch.cat([pooled.new_tensor(facts), pooled])

    def _examples(self, x: Tensor) -> Tensor:
        """`h`, `(n, s)`."""
        x = x.float() if x.ndim == 4 else x.float()[:, :, None]
        x = torch.stack([x.mean(1), x.std(1, unbiased=False)], 1)  # (n, 2, height, width)
        if x.shape[2] == 1:
            x = F.interpolate(x[:, :, 0], SIDE**2, mode="linear").unflatten(2, (SIDE, SIDE))
        else:
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        scale = x[:, :1].std().clamp_min(1e-6)
        x = torch.cat([(x[:, :1] - x[:, :1].mean()) / scale, x[:, 1:] / scale], 1)
        x = F.max_pool2d(F.relu(F.conv2d(x, self.first, padding=1)), 2)
        x = F.relu(F.conv2d(x, self.second, padding=1)).flatten(2)
        return torch.cat([x.mean(2), x.std(2)], 1)


def apart(h: Tensor, of: Tensor, members: Tensor, means: Tensor, sizes: Tensor) -> tuple[float, float]:
    """The share of examples whose own class's mean is nearest, and whose nearest neighbour is of their class, each
    without the example itself; an example that is alone in its class counts as wrong."""
    h = (h - h.mean(0)) / h.std(0, unbiased=False).clamp_min(1e-6)
    means = members.T @ h / sizes[:, None]
    distance = torch.cdist(h, means)
    left = (sizes[of] - 1).clamp_min(0.5)
    own = distance.gather(1, of[:, None])[:, 0] * sizes[of] / left  # |x - m'| = |x - m| n / (n - 1)
    own = own.masked_fill(sizes[of] == 1, torch.inf)
    nearest = own <= distance.scatter(1, of[:, None], torch.inf).min(1).values
    alike = torch.cdist(h, h).fill_diagonal_(torch.inf).min(1)
    neighbour = (of[alike.indices] == of) & (len(h) > 1)
    several = len(sizes) > 1
    return float(nearest.float().mean()) if several else 1.0, float(neighbour.float().mean()) if several else 1.0


def contrast(
    encoder: TaskEncoder,
    tasks: Sequence[tuple[Tensor, Tensor]],
    *,
    parts: int = 8,
    iterations: int = 300,
    lr: float = 1e-2,
    generator: Generator,
) -> TaskEncoder:
    r"""Meta-trains an encoder in place to tell which two parts are of the same data set, and returns it.

    A part is a random share of a data set's classes and of its examples. For parts $i$ and $i'$ of each data set,

    $$L = -\sum_i \log \frac{e^{-|z_i - z_{i'}|^2 / T}}{\sum_j e^{-|z_i - z_{j'}|^2 / T}}, \qquad T = 0.2$$

    It also learns in what units the facts and statistics of data sets are to be measured. Nothing is learned of any
    outcome: what comes out is frozen, and stands in `Rows.task`.

    Args:
        encoder: Its weights are where training begins.
        tasks: Inputs `(n, *input)` and labels `(n,)` of each data set.
        parts: Of each data set, drawn once.
        iterations: Steps of AdamW, each with two parts of each data set.
        lr: Of AdamW.
        generator: Draws the parts.

    Raises:
        ShapeError: Where there are fewer than two data sets.

    References:
        Jomaa et al., [Dataset2Vec](https://arxiv.org/abs/1905.11063), 2021.
    """
    if len(tasks) < 2:
        raise ShapeError(f"{len(tasks)} data sets are not told apart. Give it two or more.")
    whole = torch.cat([encoder.describe(x[None], y[None], generator=generator) for x, y in tasks])
    drawn = torch.stack([torch.cat([part(encoder, x, y, generator) for _ in range(parts)]) for x, y in tasks])
    encoder.centre.copy_(torch.cat([whole.mean(0)[:FACTS], drawn.mean((0, 1))[FACTS:]]))
    spread = torch.cat([whole.std(0)[:FACTS], drawn.flatten(0, 1).std(0)[FACTS:]])
    encoder.spread.copy_(spread.where(spread > FLOOR, torch.ones_like(spread)))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=1e-2)
    which = torch.arange(len(tasks))
    for _ in range(iterations):
        two = torch.rand(len(tasks), parts, generator=generator).argsort(1)[:, :2]
        here, there = (encoder.embed(drawn[which, two[:, i]])[:, FACTS:] for i in (0, 1))
        loss = F.cross_entropy(-torch.cdist(here, there).square() / TEMPERATURE, which)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def part(encoder: TaskEncoder, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    """The statistics of a random part of a data set, `(1, s)`."""
    classes = y.unique()
    n = max(2, math.ceil(len(classes) * share(generator)))
    kept = torch.isin(y, classes[torch.randperm(len(classes), generator=generator)[:n]]).nonzero()[:, 0]
    kept = kept[torch.randperm(len(kept), generator=generator)[: max(2, math.ceil(len(kept) * share(generator)))]]
    return encoder.describe(x[None, kept], y[None, kept], generator=generator)


def share(generator: Generator) -> float:
    """Of a whole, uniformly."""
    return SMALLEST + (1 - SMALLEST) * float(torch.rand((), generator=generator))
