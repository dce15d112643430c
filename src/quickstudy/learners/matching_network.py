"""Matching networks."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import Categorical

from quickstudy.errors import ShapeError
from quickstudy.learners.embedding import embed, embed_inductively, one_hot
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.nets.context import AttentionLSTM, BidirectionalLSTM
from quickstudy.tasks.task import Examples, Task


class MatchingNetwork(Learner):
    r"""Classifies a query by attending to the support examples that are like it.

    $$a(x, x_i) = \mathrm{softmax}_i\, \frac{\cos(f(x), g(x_i))}{\tau}, \qquad
      p(y = k \mid x) = \sum_{i:\, y_i = k} a(x, x_i)$$

    $f$ and $g$ are one network, or, with full context embeddings, that network followed by a bidirectional LSTM over
    the support set ($g$) and by an LSTM that attends to it for a number of steps ($f$). The bidirectional LSTM reads
    the support set as a sequence: with it the answers **depend on the order of the support set**, which is arbitrary.
    They are therefore an option. A class of which a task shows no example gets no probability.

    In meta-training, batch normalisation uses the statistics of all tasks of a step; afterwards, the running ones.

    Args:
        net: Embeds `(n, *input)` as `(n, *features)`. Its torch batch normalisation layers become `BatchNorm`.
        temperature: $\tau$. With the paper's 1, cosines in [-1, 1] cannot make sharp attention: no weight is more
            than $e^2$ times another. It is not learned itself.
        context_steps: Steps of attention of the full context embeddings; 0 does without them.
        n_features: `d`, the size of an embedding; full context embeddings need it.

    Raises:
        ShapeError: Where a task is a regression, or full context embeddings are not told `n_features`.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet
        >>> from quickstudy.learners.matching_network import MatchingNetwork
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> task = Episodes(data, n_way=3, n_shot=1, n_query=5).sample(1, generator=torch.Generator())
        >>> MatchingNetwork(MLP(8, 16)).adapt(task)(task.query.x).probs.shape
        torch.Size([1, 15, 3])

    References:
        Vinyals et al., [Matching Networks for One Shot Learning](https://arxiv.org/abs/1606.04080), 2016.
    """

    def __init__(
        self, net: nn.Module, *, temperature: float = 0.1, context_steps: int = 0, n_features: int | None = None
    ) -> None:
        super().__init__()
        self.net = make_batch_norm_explicit(net)
        self.temperature = temperature
        self.g: BidirectionalLSTM | None = None
        self.f: AttentionLSTM | None = None
        if context_steps:
            if n_features is None:
                raise ShapeError(
                    f"{context_steps} steps of full context embedding need the size of an embedding: give n_features, "
                    "for example n_features=net.n_features(28) for Conv4 on 28x28 pictures."
                )
            self.g, self.f = BidirectionalLSTM(n_features), AttentionLSTM(n_features, steps=context_steps)

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        members = self.members(task)
        support = self.in_context(embed_inductively(self.net, task.support.x).flatten(2), task.support)

        def predict(x: Tensor) -> Categorical:
            query = embed_inductively(self.net, x).flatten(2)
            return Categorical(logits=self.log_p(query, support, members), validate_args=False)

        return predict

    def embedding(self, task: Task) -> Embedding:
        return lambda x: embed_inductively(self.net, x).flatten(2)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        members = self.members(tasks)
        support, query = (z.flatten(2) for z in embed(self.net, tasks.support, tasks.query))
        log_p = self.log_p(query, self.in_context(support, tasks.support), members)
        return -(log_p.gather(-1, tasks.query.y[..., None]).squeeze(-1) * tasks.query.weights()).sum(1)

    def members(self, task: Task) -> Tensor:
        """Which support example is of which class, `(b, n, k)` bool; masked ones are of none."""
        if task.n_way is None:
            raise ShapeError("a matching network classifies; this task is a regression (n_way is None).")
        return one_hot(task.support, task.n_way).bool()

    def in_context(self, support: Tensor, examples: Examples) -> Tensor:
        """$g(x_i, S)$ of embeddings `(b, n, d)`."""
        if self.g is None:
            return support
        context: Tensor = self.g(support, examples.real())
        return context

    def log_p(self, query: Tensor, support: Tensor, members: Tensor) -> Tensor:
        """Log-probabilities of each class, of embeddings `(b, q, d)` and `(b, n, d)` to `(b, q, k)`."""
        real = members.any(-1)  # (b, n)
        if self.f is not None:
            query = self.f(query, support, real)
        cosines = F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).mT  # (b, q, n)
        lowest = torch.finfo(cosines.dtype).min / 4  # finite, so that a class without examples has a finite loss
        log_a = (cosines / self.temperature).masked_fill(~real[:, None], lowest).log_softmax(-1)
        return log_a[..., None].masked_fill(~members[:, None], lowest).logsumexp(-2)
