"""Relation networks."""

import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import Categorical

from quickstudy.errors import ShapeError
from quickstudy.learners.embedding import embed, embed_inductively, evaluating, is_absent, one_hot, scatter, without
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.tasks.task import Task


class RelationNetwork(Learner):
    r"""Classifies a query by a learned comparison with each class.

    $$c_k = \frac{1}{|S_k|} \sum_{x \in S_k} f_\varphi(x), \qquad r_k = \sigma(g_\phi([c_k, f_\varphi(x)])), \qquad
      L = \sum_k (r_k - 1[y = k])^2$$

    The scores $r_k$ are trained by mean squared error, as in the paper, and each may be anything in [0, 1]. What the
    learner predicts is their normalisation, $p(y = k \mid x) = r_k / \sum_j r_j$, whose mode is the paper's answer.
    The paper sums the maps of a class; we take their mean, which is the same for one shot, and keeps its scale when a
    new task has more shots than meta-training had.

    In meta-training, batch normalisation uses the statistics of all tasks of a step; afterwards, the running ones.

    Args:
        net: $f$, embeds `(n, *input)` as feature maps `(n, c, h, w)`. Its torch batch normalisation layers become
            `BatchNorm`, as do those of `relation`.
        relation: $g$, maps what `net` makes of classes `(b, k, c, h, w)` and of queries `(b, q, c, h, w)` to one logit
            a pair, `(b, q, k)`. `relation_nets(channels, width, size=28)` makes both as in the paper.

    Raises:
        ShapeError: Where a task is a regression.

    Example:
        >>> import torch
        >>> from quickstudy import Episodes, LabelledSet
        >>> from quickstudy.learners.relation_network import RelationNetwork
        >>> from quickstudy.nets.relation_module import relation_nets
        >>> data = LabelledSet(torch.rand(40, 1, 16, 16), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> task = Episodes(data, n_way=3, n_shot=1, n_query=5).sample(1, generator=torch.Generator())
        >>> RelationNetwork(*relation_nets(1, 8, size=16)).adapt(task)(task.query.x).probs.shape
        torch.Size([1, 15, 3])

    References:
        Sung et al., [Learning to Compare: Relation Network for Few-Shot Learning](https://arxiv.org/abs/1711.06025),
        2018.
    """

    def __init__(self, net: nn.Module, relation: nn.Module) -> None:
        super().__init__()
        self.net, self.relation = make_batch_norm_explicit(net), make_batch_norm_explicit(relation)

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        classes = self.class_maps(embed_inductively(self.net, task.support.x), task)
        absent = is_absent(task)

        def predict(x: Tensor) -> Categorical:
            queries = embed_inductively(self.net, x)
            with evaluating(self.relation):
                logits = F.logsigmoid(self.relation(classes, queries))
            return Categorical(logits=without(logits, absent), validate_args=False)

        return predict

    def embedding(self, task: Task) -> Embedding:
        return lambda x: embed_inductively(self.net, x).flatten(2)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        support, queries = embed(self.net, tasks.support, tasks.query)
        classes = self.class_maps(support, tasks)
        scores: Tensor = self.compare(classes, queries, tasks.query.mask).sigmoid()  # (b, q, k)
        gaps = (scores - F.one_hot(tasks.query.y, classes.shape[1])).masked_fill(is_absent(tasks), 0).square().sum(-1)
        return (gaps * tasks.query.weights()).sum(1)

    def compare(self, classes: Tensor, queries: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of each query with each class, `(b, q, k)`; masked queries are compared with none, and get zeros."""
        if mask is None:
            logits: Tensor = self.relation(classes, queries)
            return logits
        of_task, real = mask.nonzero()[:, 0], mask.flatten()
        alone: Tensor = self.relation(classes[of_task], queries[mask][:, None])[:, 0]  # (real queries, k)
        among: Tensor = scatter(alone, real).unflatten(0, mask.shape)
        return among

    def class_maps(self, maps: Tensor, task: Task) -> Tensor:
        """The mean maps of each class, `(b, n, *maps)` to `(b, k, *maps)`."""
        if task.n_way is None:
            raise ShapeError("a relation network classifies; this task is a regression (n_way is None).")
        members = one_hot(task.support, task.n_way).to(maps.dtype)  # (b, n, k)
        means: Tensor = members.mT @ maps.flatten(2) / members.sum(1).clamp_min(1)[..., None]
        return means.view(*means.shape[:2], *maps.shape[2:])
