"""Nearest neighbour, the baseline that learns nothing."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.distributions import Distribution

from quickstudy.learners.head import head_for
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.nets.batch_norm import at_least_float32
from quickstudy.tasks.task import Task


class NearestNeighbour(Learner):
    r"""Answers with the labels of the nearest support examples, by the Euclidean distance of the inputs themselves.

    $$p(y = c \mid x) = \frac{\#\{i \in N_k(x): y_i = c\} + 1}{k + C}$$

    with $N_k(x)$ the $k$ nearest of the support set and $C$ the number of classes; one is added to every count
    (Laplace's rule), so that no probability is zero. In a regression it predicts the mean target of the neighbours.

    There is nothing to meta-learn: it has no parameters, and `loss` is zero.

    Args:
        k: Number of neighbours; all of a support set that has fewer.

    Example:
        >>> import torch
        >>> from quickstudy import Examples, Task
        >>> from quickstudy.learners.nearest_neighbour import NearestNeighbour
        >>> support = Examples(torch.tensor([[[0.0], [1.0]]]), torch.tensor([[0, 1]]))
        >>> query = Examples(torch.tensor([[[0.1], [0.8]]]), torch.tensor([[0, 1]]))
        >>> NearestNeighbour().adapt(Task(support, query, n_way=2))(query.x).probs.argmax(-1)
        tensor([[0, 1]])

    References:
        Cover and Hart, [Nearest Neighbor Pattern Classification](https://doi.org/10.1109/TIT.1967.1053964), 1967.
    """

    def __init__(self, *, k: int = 1) -> None:
        super().__init__()
        self.k = k

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        head, real, y = head_for(task), task.support.real(), task.support.y
        support = floating(task.support.x)

        def predict(x: Tensor) -> Distribution:
            # Without the matrix product, whose rounding could swap neighbours.
            distances = torch.cdist(floating(x), support, compute_mode="donot_use_mm_for_euclid_dist")  # (b, q, n)
            nearest = distances.masked_fill(~real[:, None], torch.inf).topk(
                min(self.k, support.shape[1]), largest=False
            )
            found = nearest.values.isfinite()[..., None].to(support.dtype)  # (b, q, k, 1): not among the masked
            task_index = torch.arange(len(y), device=y.device)[:, None, None]
            values = y[task_index, nearest.indices]  # (b, q, k), or (b, q, k, out)
            if task.n_way is None:
                return head((values * found).sum(2) / found.sum(2).clamp_min(1))
            votes = (F.one_hot(values, task.n_way) * found).sum(2)
            return head((votes + 1).log())

        return predict

    def embedding(self, task: Task) -> Embedding:
        return floating

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        return floating(tasks.query.x).new_zeros(len(tasks))


def floating(x: Tensor) -> Tensor:
    """Inputs `(b, n, *input)` as vectors `(b, n, d)` of floats; halves have no distances on a processor."""
    return at_least_float32(x if x.is_floating_point() else x.float()).flatten(2)
