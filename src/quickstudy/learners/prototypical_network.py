"""Prototypical networks."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import Categorical

from quickstudy.errors import ShapeError
from quickstudy.learners.embedding import embed, embed_inductively, is_absent, one_hot, without
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.nets.batch_norm import at_least_float32, make_batch_norm_explicit, without_autocast
from quickstudy.tasks.task import Task


class PrototypicalNetwork(Learner):
    r"""Classifies a query by its distance to the mean embedding of each class.

    $$c_k = \frac{1}{|S_k|} \sum_{x \in S_k} f_\theta(x), \qquad
      p(y = k \mid x) \propto \exp\left(-d(f_\theta(x), c_k)\right)$$

    In meta-training, batch normalisation uses the statistics of all tasks of a step; afterwards, the running ones.

    Args:
        net: Embeds `(n, *input)` as `(n, *features)`. Its torch batch normalisation layers become `BatchNorm`.
        distance: "euclidean" (squared, as in the paper) or "cosine" (one minus the cosine, divided by a learned
            temperature).
        pull: Weight of a term that draws prototypes of one class, met in several tasks of a step, to their mean:
            it is not in the paper. It needs tasks that say which classes they are of (`Task.classes`), and makes a
            task's loss depend on the others of its step; on several devices, of its device.

    Raises:
        ShapeError: Where a task is a regression.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet, PrototypicalNetwork
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> task = Episodes(data, n_way=3, n_shot=1, n_query=5).sample(1, generator=torch.Generator())
        >>> PrototypicalNetwork(MLP(8, 16)).adapt(task)(task.query.x).probs.shape
        torch.Size([1, 15, 3])

    References:
        Snell et al., [Prototypical Networks for Few-shot Learning](https://arxiv.org/abs/1703.05175), 2017.
    """

    def __init__(
        self, net: nn.Module, *, distance: Literal["euclidean", "cosine"] = "euclidean", pull: float = 0.0
    ) -> None:
        super().__init__()
        self.net = make_batch_norm_explicit(net)
        self.distance, self.pull = distance, pull
        self.log_temperature = nn.Parameter(torch.tensor(0.1).log()) if distance == "cosine" else None

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        prototypes = self.prototypes(embed_inductively(self.net, task.support.x), task)
        absent = is_absent(task)
        return lambda x: Categorical(
            logits=without(self.logits(embed_inductively(self.net, x), prototypes), absent), validate_args=False
        )

    def embedding(self, task: Task) -> Embedding:
        return lambda x: embed_inductively(self.net, x).flatten(2)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        support, query = embed(self.net, tasks.support, tasks.query)
        prototypes = self.prototypes(support, tasks)
        log_p = without(self.logits(query, prototypes), is_absent(tasks)).log_softmax(-1)  # (b, q, k)
        nll = -log_p.gather(-1, tasks.query.y[..., None]).squeeze(-1)
        loss = (nll * tasks.query.weights()).sum(1)
        return loss + self.pull * spread(prototypes, tasks.classes) if self.pull else loss

    def prototypes(self, z: Tensor, task: Task) -> Tensor:
        """The mean embedding of each class, `(b, n, *features)` to `(b, k, d)`; zeros where it has no example."""
        if task.n_way is None:
            raise ShapeError("a prototypical network classifies; this task is a regression (n_way is None).")
        z = at_least_float32(z.flatten(2))
        members = one_hot(task.support, task.n_way).to(z.dtype)  # (b, n, k)
        with without_autocast(z):
            return members.mT @ z / members.sum(1).clamp_min(1)[..., None]

    def logits(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """Minus the distance of each query to each prototype, `(b, q, *features)` and `(b, k, d)` to `(b, q, k)`.

        In float32 at least, also under autocast: it is a small difference of large numbers.
        """
        z = at_least_float32(z.flatten(2))
        with without_autocast(z):
            if self.log_temperature is not None:
                return F.normalize(z, dim=-1) @ F.normalize(prototypes, dim=-1).mT / self.log_temperature.exp()
            # |z - c|^2 without |z|^2, which is the same for every class
            return 2 * z @ prototypes.mT - prototypes.square().sum(-1)[:, None]


def spread(prototypes: Tensor, classes: Tensor | None) -> Tensor:
    """Mean squared distance of each task's prototypes to the mean prototype of their class over the batch, `(b,)`."""
    if classes is None:
        raise ShapeError("pull needs tasks that say which classes they are of: Task.classes is None.")
    _, index = classes.unique(return_inverse=True)  # (b, k)
    flat, index = prototypes.flatten(0, 1), index.flatten()
    totals = torch.zeros(int(index.max()) + 1, flat.shape[-1], dtype=flat.dtype, device=flat.device)
    counts = totals.new_zeros(len(totals)).index_add(0, index, torch.ones_like(flat[:, 0]))
    means = totals.index_add(0, index, flat) / counts[:, None]
    gaps: Tensor = (flat - means[index]).square().sum(-1).unflatten(0, classes.shape).mean(1)
    return gaps
