"""Fine-tuning of a body that ordinary classification has pretrained."""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.distributions import Categorical

from quickstudy.errors import ShapeError, TaskError
from quickstudy.learners.embedding import embed, embed_inductively
from quickstudy.learners.head import Classification
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.learners.solve import Solution, descend, outputs, real_examples
from quickstudy.nets.batch_norm import make_batch_norm_explicit
from quickstudy.tasks.task import Examples, Task


class FineTune(Learner):
    r"""Pretrains a body by classifying all meta-training classes at once, and fits a new head to every task.

    $$\min_{\theta, W} -\log p(c \mid f_\theta(x)), \qquad
      V_T = \arg\min_V L_{S_T}(V f_\theta) + \tfrac{\lambda}{2} \|V\|^2$$

    `loss` is the first: cross-entropy over the classes of the data set (`Task.classes`), of support and query
    examples alike, by a classifier that new tasks do not use. `adapt` is the second: logistic regression on the
    features of the support set, by full-batch gradient steps with Nesterov's momentum and step size $1/L$, for
    $L = \frac12 (1 + \mathrm{mean} \|f\|^2) + \lambda$, which bounds the curvature of a linear head with its bias, so
    that there is no rate to tune; for cosines it is $\frac12 \text{scale}^2 + \lambda$, which is no bound but serves.

    With linear classifiers this is the Baseline of Chen et al., with cosine ones their Baseline++. They start a head at
    random and take mini-batches of four; ours starts at zero (linear) or at the class means (cosine), so that it is
    a function of the task.

    In meta-training, batch normalisation uses the statistics of all tasks of a step; afterwards, the running ones.

    Args:
        net: The body; embeds `(n, *input)` as `(n, *features)`. Its torch batch normalisation layers become
            `BatchNorm`.
        n_features: `d`, the number of features that it makes.
        n_classes: Number of meta-training classes.
        classifier: "linear", or "cosine": of features and weights of length one.
        scale: What cosines are multiplied by.
        steps: Steps that fit the head.
        weight_decay: $\lambda$, on the weights of a task's linear head; of cosine ones the length does not matter.
        body_steps: Steps of Adam that afterwards train body and head together; 0 leaves the body as pretrained.
        body_lr: Their learning rate.

    Raises:
        ShapeError: Where a task is a regression, or features are not `n_features`.
        TaskError: In `loss`, where tasks do not say which classes they are of, or name one beyond `n_classes`.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet
        >>> from quickstudy.learners.fine_tune import FineTune
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> task = Episodes(data, n_way=3, n_shot=1, n_query=5).sample(1, generator=torch.Generator())
        >>> FineTune(MLP(8, 16), n_features=16, n_classes=4).adapt(task)(task.query.x).probs.shape
        torch.Size([1, 15, 3])

    References:
        Chen et al., [A Closer Look at Few-shot Classification](https://arxiv.org/abs/1904.04232), 2019.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        n_features: int,
        n_classes: int,
        classifier: Literal["linear", "cosine"] = "linear",
        scale: float = 10.0,
        steps: int = 100,
        weight_decay: float = 1e-3,
        body_steps: int = 0,
        body_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.net = make_batch_norm_explicit(net)
        self.classifier = nn.Linear(n_features, n_classes, bias=classifier == "linear")
        self.cosine, self.scale = classifier == "cosine", scale
        self.weight_decay = 0.0 if self.cosine else weight_decay
        self.steps, self.body_steps, self.body_lr = steps, body_steps, body_lr

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        if task.n_way is None:
            raise ShapeError("fine-tuning here classifies; this task is a regression (n_way is None).")
        features = embed_inductively(self.net, task.support.x).flatten(2)
        self.check(features)
        weight, bias = self.fit_head(features.detach(), task.support, task.n_way)
        if self.body_steps:
            head = Classification(task.n_way)
            solutions = [self.tune_body(task.support, i, weight[i], bias[i], head) for i in range(len(task))]
            return lambda x: head(outputs(solutions, x))

        def predict(x: Tensor) -> Categorical:
            z = embed_inductively(self.net, x).flatten(2)
            return Categorical(logits=self.logits(z, weight, bias), validate_args=False)

        return predict

    def embedding(self, task: Task) -> Embedding:
        return lambda x: embed_inductively(self.net, x).flatten(2)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        n_classes = self.classifier.out_features
        if tasks.classes is None:
            raise TaskError("pretraining needs tasks that say which classes they are of: Task.classes is None.")
        if int(tasks.classes.max()) >= n_classes:
            raise TaskError(
                f"a task holds class {int(tasks.classes.max())} of its data; this learner has n_classes={n_classes}, "
                "counted from 0. Build it with the number of classes of the meta-training set."
            )
        examples = tasks.everything
        (z,) = embed(self.net, examples)
        z = z.flatten(2)
        self.check(z)
        logits = self.logits(z, self.classifier.weight, self.classifier.bias)  # (b, n, n_classes)
        labels = tasks.classes.gather(1, examples.y)
        nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        return (nll * examples.weights()).sum(1)

    def logits(self, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of features `(..., n, d)` by weights `(..., k, d)` and `(..., k)`, to `(..., n, k)`."""
        if self.cosine:
            return self.scale * F.normalize(z, dim=-1) @ F.normalize(weight, dim=-1).mT
        logits = z @ weight.mT
        return logits if bias is None else logits + bias[..., None, :]

    def fit_head(self, z: Tensor, support: Examples, n_way: int) -> tuple[Tensor, Tensor]:
        """Weights `(b, k, d)` and biases `(b, k)` of logistic regressions on features `(b, n, d)`."""
        target = F.one_hot(support.y, n_way).to(z.dtype)
        share = support.weights().to(z.dtype)[..., None]  # (b, n, 1)
        length = z.new_tensor(self.scale) ** 2 if self.cosine else 1 + z.square().sum(-1, keepdim=True)
        rate = 1 / (0.5 * (share * length).sum(1, keepdim=True) + self.weight_decay)  # (b, 1, 1)
        bias = z.new_zeros(len(z), n_way)
        weight = z.new_zeros(len(z), n_way, z.shape[-1])
        if self.cosine:
            weight = F.normalize((target * share).mT @ F.normalize(z, dim=-1), dim=-1)
        before = (weight, bias)
        for step in range(self.steps):
            momentum = step / (step + 3)
            ahead = [now + momentum * (now - old) for now, old in zip((weight, bias), before)]
            gradients = self.gradients(z, ahead[0], ahead[1], target, share)
            before = (weight, bias)
            weight, bias = ahead[0] - rate * gradients[0], ahead[1] - rate[..., 0] * gradients[1]
        return weight, bias

    def gradients(
        self, z: Tensor, weight: Tensor, bias: Tensor, target: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of each task's regularised mean loss."""
        with torch.enable_grad():
            weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
            nll = -(self.logits(z, weight, bias).log_softmax(-1) * target).sum(-1, keepdim=True)
            penalty = 0.5 * self.weight_decay * weight.square().sum()
            of_weight, of_bias = torch.autograd.grad(
                (nll * share).sum() + penalty, (weight, bias), allow_unused=True, materialize_grads=True
            )
        return of_weight, of_bias

    def tune_body(self, support: Examples, i: int, weight: Tensor, bias: Tensor, head: Classification) -> Solution:
        """A copy of the body with the head of task `i`, trained together; batch normalisation stays as pretrained."""
        x, y = real_examples(support, i)
        tuned = _BodyAndHead(copy.deepcopy(self.net), weight, bias, self)
        tuned.eval().requires_grad_(True)
        descend(tuned, x, y, head, torch.optim.Adam(tuned.parameters(), lr=self.body_lr), self.body_steps)
        return Solution(tuned.requires_grad_(False), {})

    def check(self, z: Tensor) -> None:
        """Raises ShapeError where features are not of the size that the classifier takes."""
        if z.shape[-1] != self.classifier.in_features:
            raise ShapeError(
                f"the body makes {z.shape[-1]} features; this learner was built with "
                f"n_features={self.classifier.in_features}. Build it with n_features={z.shape[-1]}."
            )


class _BodyAndHead(nn.Module):
    def __init__(self, body: nn.Module, weight: Tensor, bias: Tensor, learner: FineTune) -> None:
        super().__init__()
        self.body = body
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.logits = learner.logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.body(x).flatten(1), self.weight, self.bias)
