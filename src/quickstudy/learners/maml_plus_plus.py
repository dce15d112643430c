"""MAML++."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from quickstudy.errors import ShapeError
from quickstudy.learners.embedding import evaluating
from quickstudy.learners.head import Head, head_for
from quickstudy.learners.inner_loop import InnerLoop, Params, gradient_descent, named_tensors, theta
from quickstudy.learners.learner import Embedding, Learner, Predictor
from quickstudy.learners.meta_gradient import MetaGradient
from quickstudy.learners.tables import entry, key, table
from quickstudy.nets.batch_norm import Moments, batch_norms, make_batch_norm_explicit
from quickstudy.tasks.task import Examples, Task


class MAMLPlusPlus(Learner):
    r"""MAML with what makes it train stably, each part an option of its own; with all of them off it is MAML.

    - **Multi-step loss.** Early in meta-training, queries are asked after every inner step $i$:

      $$\min \sum_T \sum_{i=1}^{N} v_i L_{Q_T}(\phi_i), \qquad
        v_{i<N} = \tfrac1N \max\left(1 - \tfrac{p}{p_m}, 0.03\right), \quad v_N = 1 - \sum_{i<N} v_i$$

      where $p$ is the progress of meta-training, and $p_m$ is `multi_step`; from $p_m$ on, only $v_N = 1$ is left.
    - **Learned rates.** $\phi_{i+1} = \phi_i - \alpha_{i, l} \nabla_l$: a rate for each step $i$ and each of the
      network's parameter tensors $l$, which start as `lr`. They may become negative.
    - **Per-step batch normalisation.** Its weights and biases do not adapt; instead each step $0 \ldots N$ has its
      own, which are meta-learned. (In the published code, whose steps number $N$, queries after a step are normalised
      by the weights of the step before.)
    - **Derivative order.** First-order gradients for the first part of meta-training, which are cheaper.
    - **Cosine annealing** of the outer step size belongs to the training loop: `meta_train(..., schedule="cosine")`.

    The training loop tells `at` how much is done. A learner that is never told is at the beginning.

    `net`, `steps` ($N$), `memory_budget`, `low_memory` and `batching` are those of `MAML`.

    Args:
        lr: Inner step size $\alpha$, or what learned rates start as.
        adapt_steps: Number of inner steps on a new task; as many as `steps` by default. Further ones repeat the last
            step's rates and normalisation.
        multi_step: The part of meta-training, in [0, 1], that has the multi-step loss: 10 of 100 epochs in the
            published configurations; 0 turns it off.
        first_order: The part of meta-training that is first-order: its first 50 epochs in the paper; 0, as in the
            published configurations, turns it off.
        learned_rates: Whether there is a rate for each step and parameter tensor.
        per_step_norm: Whether batch normalisation has its own weights and biases at each step.
        statistics: What batch normalisation normalises by. "support": the support set under the current weights, for
            support and queries, so that a query's answer does not depend on the others. "transductive": each set
            by itself, as the published code does, which keeps running averages and never uses them. "running":
            meta-training as "support", while running averages are kept for each step (for a forward pass more);
            `adapt` uses those, for support and queries.
        rates_lr: Outer step size of the learned rates; by default that of $\theta$.

    Raises:
        ShapeError: Where `multi_step` or `first_order` is no part, or `adapt_steps` has no step to repeat.

    Example:
        >>> import torch
        >>> from quickstudy import MLP, Episodes, LabelledSet
        >>> from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
        >>> data = LabelledSet(torch.rand(40, 8), torch.arange(40) % 4, ("ant", "bee", "cat", "dog"))
        >>> tasks = Episodes(data, n_way=3, n_query=5).sample(2, generator=torch.Generator())
        >>> learner = MAMLPlusPlus(MLP(8, 3), steps=4, multi_step=0.5)
        >>> learner.loss(tasks).shape
        torch.Size([2])
        >>> learner.importance()
        {1: 0.25, 2: 0.25, 3: 0.25, 4: 0.25}
        >>> learner.at(0.5)
        >>> learner.importance()
        {4: 1.0}

    References:
        Antoniou et al., [How to train your MAML](https://arxiv.org/abs/1810.09502), 2019, section 4.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float = 0.1,
        steps: int = 5,
        adapt_steps: int | None = None,
        multi_step: float = 0.1,
        first_order: float = 0.0,
        learned_rates: bool = True,
        per_step_norm: bool = True,
        statistics: Literal["support", "transductive", "running"] = "support",
        rates_lr: float | None = None,
        memory_budget: int = 2 << 30,
        low_memory: bool = False,
        batching: Literal["vmap", "loop"] = "vmap",
    ) -> None:
        super().__init__()
        for name, part in (("multi_step", multi_step), ("first_order", first_order)):
            if not 0 <= part <= 1:
                raise ShapeError(f"{name} is {part}, but it is the part of meta-training, from 0 to 1.")
        if adapt_steps and not steps:
            raise ShapeError(f"adapt_steps is {adapt_steps}, and without steps there are no rates for them.")
        self.net = make_batch_norm_explicit(net)
        self.adapt_steps = steps if adapt_steps is None else adapt_steps
        self.multi_step, self.first_order, self.rates_lr = multi_step, first_order, rates_lr
        self.progress = 0.0

        parameters = dict(self.net.named_parameters())
        own = [f"{layer}.{part}" for layer in batch_norms(self.net) for part in ("weight", "bias")]
        per_step = [name for name in own if per_step_norm and name in parameters]  # a layer may have none
        self.norms = table({name: parameters[name].detach().repeat(steps + 1, 1) for name in per_step})
        for name in per_step:
            parameters[name].requires_grad_(False)  # the table takes its place
        adapting = {name: value for name, value in parameters.items() if name not in per_step}
        self.rates = table({n: v.new_full((steps,), lr) for n, v in adapting.items()} if learned_rates else {})

        self.inner = InnerLoop(
            self.net,
            partial(learned_descent, steps=steps) if learned_rates else partial(gradient_descent, lr=lr),
            steps=steps,
            start=partial(all_but, names=per_step),
            weights=partial(normalised_at, names=per_step, steps=steps),
            statistics="transductive" if statistics == "transductive" else "support",
            batching=batching,
        )
        self.meta_gradients = {
            order: MetaGradient(replace(self.inner, order=order), None, memory_budget, low_memory) for order in (1, 2)
        }
        self.running = statistics == "running"
        self.adapting = replace(self.inner, moments=self.running_moments) if self.running else self.inner
        if self.running:
            for name, layer in batch_norms(self.net).items():
                self.register_buffer(f"running_mean/{key(name)}", layer.running_mean.repeat(steps + 1, 1))
                self.register_buffer(f"running_var/{key(name)}", layer.running_var.repeat(steps + 1, 1))

    def at(self, progress: float) -> None:
        self.progress = progress

    def importance(self) -> dict[int, float]:
        """The weight of the query loss after each step that has one, at the present progress; they sum to one."""
        steps = self.inner.steps
        if self.progress >= self.multi_step or steps == 0:
            return {steps: 1.0}
        early = max(1 - self.progress / self.multi_step, 0.03) / steps
        return {**dict.fromkeys(range(1, steps), early), steps: 1 - (steps - 1) * early}

    def adapt(self, task: Task, *, generator: Generator | None = None) -> Predictor:
        head = head_for(task)
        with evaluating(self.net):
            adapted = self.adapting.adapt(named_tensors(self), task.support, head, [self.adapt_steps])[0]
        return self.adapting.predictor(adapted, head)

    def embedding(self, task: Task) -> Embedding | None:
        return self.adapting.embedding(named_tensors(self), task)

    def loss(self, tasks: Task, *, generator: Generator | None = None) -> Tensor:
        meta, head = named_tensors(self), head_for(tasks)
        if self.running and self.training:
            self.track(meta, tasks.support, head)
        meta_gradient = self.meta_gradients[1 if self.progress < self.first_order else 2]
        return meta_gradient.losses(meta, tasks, head, self.importance())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All but the learned rates, and those with the outer step size `rates_lr` where there is one."""
        groups: list[dict[str, Any]] = [
            {"params": [p for p in (*self.net.parameters(), *self.norms.parameters()) if p.requires_grad]}
        ]
        if self.rates:
            groups.append({"params": list(self.rates.parameters())})
            if self.rates_lr is not None:
                groups[-1]["lr"] = self.rates_lr
        return groups

    def running_moments(self, step: int) -> dict[str, Moments]:
        """The running averages of a step, by layer."""
        step = min(step, self.inner.steps)
        return {
            name: Moments(*(self.get_buffer(f"running_{part}/{key(name)}")[step] for part in ("mean", "var")))
            for name in batch_norms(self.net)
        }

    @torch.no_grad()
    def track(self, meta: Params, support: Examples, head: Head) -> None:
        """Moves the running averages of each step towards what these support sets have there, on average."""
        layers = batch_norms(self.net)
        for step, adapted in enumerate(self.inner.adapt(meta, support, head, range(self.inner.steps + 1))):
            for call, moments in adapted.moments.items():
                name = call if call in layers else call.rpartition(".")[0]  # a layer may be called several times
                for part, value in moments._asdict().items():
                    average = self.get_buffer(f"running_{part}/{key(name)}")[step]
                    momentum = layers[name].momentum
                    average.lerp_(value.mean(0), 0.1 if momentum is None else momentum)


def learned_descent(step: int, phi: Params, gradients: Params, meta: Params, *, steps: int) -> Params:
    r"""The update $\phi_l \leftarrow \phi_l - \alpha_{i, l} \nabla_l$."""
    i = min(step, steps - 1)
    return {name: value - entry(meta, "rates", name)[i] * gradients[name] for name, value in phi.items()}


def all_but(meta: Params, *, names: list[str]) -> Params:
    """The network's parameters but these."""
    return {name: value for name, value in theta(meta).items() if name not in names}


def normalised_at(step: int, phi: Params, meta: Params, *, names: list[str], steps: int) -> Params:
    """The network whose parameters of these names are those of the step."""
    own = {name: entry(meta, "norms", name)[min(step, steps)] for name in names}
    return {**theta(meta), **phi, **own}
