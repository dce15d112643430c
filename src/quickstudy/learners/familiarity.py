"""How like the classes that a task shows a query is: what "none of these" is told by."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Generator, Tensor

from quickstudy.errors import ShapeError
from quickstudy.learners.embedding import one_hot
from quickstudy.learners.learner import Learner
from quickstudy.tasks.task import Task


def familiarity(learner: Learner, task: Task, *, generator: Generator | None = None) -> Callable[[Tensor], Tensor]:
    r"""A number for each query that is larger the more it is like one of the classes of its task.

    $$\max_k \cos(f(x), c_k), \qquad c_k = \frac{1}{|S_k|} \sum_{x \in S_k} f(x)$$

    with $f$ the learner's embedding. A probability says which class it is if it is one of them; a query far from all
    of them can still lie much further from the others than from one. Learners without an embedding have nothing else,
    and are asked for the probability of the best class.

    Args:
        learner: Meta-trained, in evaluation mode.
        task: A batch of tasks; its queries are not read.
        generator: Of the learner's own noise.

    Returns:
        A function of queries `(b, q, *input)` to `(b, q)`, in [-1, 1]. Compare its values within a learner and a size
        of task.

    Raises:
        ShapeError: Where a task is a regression.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from quickstudy import Examples, PrototypicalNetwork, Task
        >>> from quickstudy.learners.familiarity import familiarity
        >>> support = Examples(torch.eye(3)[None, :2], torch.tensor([[0, 1]]))
        >>> known = familiarity(PrototypicalNetwork(nn.Flatten()), Task(support, support, n_way=2))
        >>> known(torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]]]))
        tensor([[1., 0.]])

    References:
        Snell et al., [Prototypical Networks for Few-shot Learning](https://arxiv.org/abs/1703.05175), 2017, for $c_k$.
    """
    if task.n_way is None:
        raise ShapeError("familiarity is of classes; this task is a regression (n_way is None).")
    n_way, task = task.n_way, task.cleared()
    embed = learner.embedding(task)
    if embed is None:
        predictor = learner.adapt(task, generator=generator)
        return lambda x: predictor(x).probs.amax(-1)  # type: ignore[attr-defined]
    z = embed(task.support.x)  # (b, n, d)
    members = one_hot(task.support, n_way).to(z.dtype)  # (b, n, k)
    means = F.normalize(members.mT @ z, dim=-1)  # whose length is one, so that sums serve as well
    return lambda x: (F.normalize(embed(x), dim=-1) @ means.mT).amax(-1)
