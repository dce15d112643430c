"""Gradient descent on support sets, which all gradient learners share."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call, grad, vmap

from quickstudy.errors import ShapeError, is_out_of_memory
from quickstudy.learners.embedding import evaluating
from quickstudy.learners.head import Head, head_for
from quickstudy.learners.learner import Embedding, Predictor
from quickstudy.learners.noise import Noise
from quickstudy.nets.batch_norm import Moments, batch_norms, moments_of, normalised_by, normalised_by_batch
from quickstudy.nets.buffers import keeping_buffers
from quickstudy.nets.second_derivatives import twice_differentiable
from quickstudy.tasks.task import Examples, Task

logger = logging.getLogger(__name__)

Params = dict[str, Tensor]
T = TypeVar("T")
Statistics = Literal["support", "transductive"]
"""What batch normalisation normalises queries by: the moments of the support set under the adapted weights, so that a
query gets the same answer alone or among others; or those of the query set, as in the published code of MAML."""


class Adapted(NamedTuple):
    """A network as adaptation leaves it; outside `vmap` every leaf begins with the task axis `b`."""

    weights: Params
    moments: dict[str, Moments]
    """What its batch normalisation layers normalise queries by; empty where they use the queries themselves."""

    def leaves(self) -> list[Tensor]:
        """All tensors in a fixed order."""
        return [*self.weights.values(), *(part for moments in self.moments.values() for part in moments)]

    def with_leaves(self, leaves: Sequence[Tensor]) -> "Adapted":
        """The same structure of other tensors."""
        n = len(self.weights)
        moments = {name: Moments(*leaves[n + 2 * i : n + 2 * i + 2]) for i, name in enumerate(self.moments)}
        return Adapted(dict(zip(self.weights, leaves)), moments)


@dataclass
class Refusal:
    """Whether `vmap` has refused a network, or what else is computed with it."""

    known: bool = False


class Own(NamedTuple):
    """The support set of one task."""

    x: Tensor
    y: Tensor
    share: Tensor
    """Each example's share of the loss, `(n,)`."""
    masked: bool
    """Whether shares differ."""


def named_tensors(learner: nn.Module) -> Params:
    """All that a learner meta-learns, by name."""
    return dict(learner.named_parameters())


def theta(meta: Params) -> Params:
    """The parameters of a learner's `net` among all that it meta-learns."""
    return {name.removeprefix("net."): value for name, value in meta.items() if name.startswith("net.")}


def merge(step: int, phi: Params, meta: Params) -> Params:
    """The network of a step: adapted weights where there are any, else the meta-learned ones."""
    return {**theta(meta), **phi}


@dataclass
class InnerLoop:
    r"""Adapts a network to a batch of support sets by gradient descent, differentiably.

    $$\phi_0 = \mathrm{start}(\theta), \qquad \phi_{i+1} = \mathrm{update}(\phi_i, \nabla_\phi L_S(\phi_i))$$

    What is meta-learned comes as `meta`, the learner's named parameters; those of the network begin with `net.`.
    Support sets always see batch normalisation by their own moments. Buffers of the network stay as they are.

    Raises:
        ShapeError: Where nothing adapts.
    """

    net: nn.Module
    """Maps `(n, *input)` to `(n, out)`."""
    update: Callable[[int, Params, Params, Params], Params]
    """`update(step, phi, gradients, meta)` gives the next weights."""
    steps: int = 1
    """Number of gradient steps."""
    order: Literal[1, 2] = 2
    """2 differentiates through the gradients of the steps; 1 takes them for constants."""
    start: Callable[[Params], Params] = theta
    """`start(meta)` gives the weights that adapt, before the first step."""
    weights: Callable[[int, Params, Params], Params] = merge
    """`weights(step, phi, meta)` gives all parameters of the network at a step."""
    statistics: Statistics = "support"
    """What queries are normalised by."""
    moments: Callable[[int], dict[str, Moments]] | None = None
    """`moments(step)` gives what layers normalise by at a step, support and queries; None: what `statistics` says."""
    batching: Literal["vmap", "loop"] = "vmap"
    """How support sets are batched. A network that `vmap` refuses is taken in a loop, with a warning in the log."""
    refusal: Refusal = field(default_factory=Refusal)
    """Shared by all inner loops of a learner, which are replacements of one another."""

    def __post_init__(self) -> None:
        names = [name for name, _ in self.net.named_parameters()]
        if not self.start({f"net.{name}": value for name, value in self.net.named_parameters()}):
            why = f"none of its {len(names)}, such as {names[0]!r}, is let adapt" if names else "it has none"
            raise ShapeError(f"{type(self.net).__name__} needs a parameter that adapts by gradient descent: {why}.")

    def adapt(self, meta: Params, support: Examples, head: Head, visited: Sequence[int]) -> list[Adapted]:
        """The networks at the steps in `visited`, each for the whole batch, with their graph where that is enabled."""

        def trajectory(meta: Params, own: Own) -> list[Adapted]:
            phi, found = self.start(meta), []
            for step in range(max(visited) + 1):
                if step in visited:
                    found.append(self.read_out(step, phi, meta, own))
                if step < max(visited):
                    phi = self.advance(step, phi, meta, own, head)
            return found

        return self.over_tasks(trajectory, meta, support)

    def predictors(self, meta: Params, task: Task, visited: Sequence[int]) -> list[Predictor]:
        """What the networks at the steps in `visited` predict, adapted in evaluation mode to a batch of tasks."""
        task, head = task.cleared(), head_for(task)
        with evaluating(self.net):
            return [self.predictor(adapted, head) for adapted in self.adapt(meta, task.support, head, visited)]

    def predictor(self, adapted: Adapted, head: Head) -> Predictor:
        """What the adapted networks predict, in evaluation mode."""

        def predict(x: Tensor) -> Distribution:
            with evaluating(self.net):
                return head(self.outputs(adapted, x))

        return predict

    def embedding(self, meta: Params, task: Task) -> Embedding | None:
        """What the last layer, a linear one, is given before the first step; None where the network has no such layer.

        Adaptation serves to tell the classes of a task from one another; what is of none of them is told better
        without. Batch normalisation is by the support set, even where `statistics` says otherwise.
        """
        body = all_but_the_last_layer(self.net)
        if body is None:
            return None
        alone, task = replace(self, statistics="support"), task.cleared()
        with evaluating(self.net):
            (start,) = alone.adapt(meta, task.support, head_for(task), [0])
        names = dict(body.named_parameters()).keys()

        def one(adapted: Adapted, x: Tensor) -> Tensor:
            with normalised_by(self.net, adapted.moments):
                z: Tensor = functional_call(body, {name: adapted.weights[name] for name in names}, (x,))
            return z.flatten(1)

        def embed(x: Tensor) -> Tensor:
            with evaluating(self.net):
                own = (start.with_leaves([leaf[i] for leaf in start.leaves()]) for i in range(len(x)))
                return torch.stack([one(adapted, channels_last(x[i])) for i, adapted in enumerate(own)])

        return embed

    def outputs(self, adapted: Adapted, x: Tensor) -> Tensor:
        """Outputs of the adapted networks for queries, `(b, q, *input)` to `(b, q, out)`."""

        alone = self.many_go_one_by_one(x)

        def one(leaves: list[Tensor], x: Tensor) -> Tensor:
            own = adapted.with_leaves(leaves)
            return self.call(own.weights, x, own.moments, inside_vmap=not alone)

        def each() -> Tensor:
            return torch.stack([one([leaf[i] for leaf in leaves], channels_last(x[i])) for i in range(len(x))])

        leaves = adapted.leaves()
        if alone:
            return each()
        return self.vectorised(lambda: vmap(one, randomness="different")(leaves, x), each)

    def many_go_one_by_one(self, x: Tensor) -> bool:
        """Whether many examples of a task are better taken task by task.

        On a CPU a convolution by weights of each task's own is a grouped one under `vmap`, and slow.
        """
        return x.device.type == "cpu" and any(map(is_convolution, self.net.modules()))

    @property
    def loops(self) -> bool:
        """Whether tasks are taken one by one."""
        return self.batching == "loop" or self.refusal.known

    def vectorised(self, vectorised: Callable[[], T], each: Callable[[], T]) -> T:
        """`vectorised()`, or `each()` where `vmap` refuses the network, from then on.

        What was drawn before it refused is drawn again, so that a run which is resumed, and refused anew, draws no more
        than one that went on.
        """
        if self.loops:
            return each()
        noise = Noise(next(self.net.parameters()).device)
        try:
            with noise.of("this attempt"):
                return vectorised()
        except (RuntimeError, NotImplementedError, ValueError) as refusal:
            if is_out_of_memory(refusal):
                raise  # a smaller memory_budget is the remedy, not a loop over tasks
            noise.restore("this attempt")
            self.refusal.known = True
            try:
                found = each()
            except Exception:
                self.refusal.known = False  # the network fails by itself: its own error is the one to show
                raise
            logger.warning("vmap refuses this network, so its tasks are taken one by one: %s", refusal)
            return found

    def advance(self, step: int, phi: Params, meta: Params, own: Own, head: Head) -> Params:
        """One step of one task."""

        def loss(phi: Params) -> Tensor:
            moments = {} if self.moments is None else self.moments(step)
            output = self.call(self.weights(step, phi, meta), own.x, moments, own.share if own.masked else None)
            return scale * (head.losses(output, own.y) * own.share).sum()

        scale = loss_scale(own.x)
        gradients = self._gradients(loss, phi)
        if scale != 1:
            gradients = {name: gradient / scale for name, gradient in gradients.items()}
        return self.update(step, phi, gradients, meta)

    def read_out(self, step: int, phi: Params, meta: Params, own: Own) -> Adapted:
        """The network of one task at a step, and what it normalises queries by."""
        weights = self.weights(step, phi, meta)
        if self.moments is not None:
            return Adapted(weights, self.moments(step))
        if self.statistics == "transductive" or not batch_norms(self.net):
            return Adapted(weights, {})
        with moments_of(self.net, own.share if own.masked else None) as moments:
            self.forward(weights, own.x)
        return Adapted(weights, moments)

    def call(
        self,
        weights: Params,
        x: Tensor,
        moments: dict[str, Moments],
        share: Tensor | None = None,
        *,
        inside_vmap: bool = True,
    ) -> Tensor:
        """The outputs of one task's network, normalised by `moments`, or by a batch whose examples have a `share`."""
        if moments:
            normalised: AbstractContextManager[object] = normalised_by(self.net, moments)
        elif inside_vmap:
            # Under vmap, the second derivative of torch's fused training kernel is wrong (2.13), and says nothing.
            normalised = moments_of(self.net, share)
        else:
            normalised = normalised_by_batch(self.net, share)
        with normalised:
            return self.forward(weights, x)

    def forward(self, weights: Params, x: Tensor) -> Tensor:
        """The outputs of the network with other weights, `(n, *input)` to `(n, out)`; its buffers stay as they are."""
        with keeping_buffers(self.net.modules()):
            output: Tensor = functional_call(self.net, weights, (x,))
        return output

    def over_tasks(
        self, function: Callable[..., list[Adapted]], meta: Params, support: Examples, phi: Params | None = None
    ) -> list[Adapted]:
        """`function(meta, own)`, or `function(phi, meta, own)`, of each task, stacked."""
        batched = (support.x, support.y, support.weights())
        b, masked = len(support.x), support.mask is not None

        def nth(phi: Params, i: int) -> Params:
            return {name: value[i] for name, value in phi.items()}

        def one(phi: Params | None, meta: Params, x: Tensor, y: Tensor, share: Tensor) -> list[Adapted]:
            own = Own(x, y, share, masked)
            return function(meta, own) if phi is None else function(phi, meta, own)

        def vectorised() -> list[Adapted]:
            in_dims = (None if phi is None else 0, None, 0, 0, 0)
            with self._definitions(batched=True):
                return vmap(one, in_dims, randomness="different")(phi, meta, *batched)

        def each() -> list[Adapted]:
            with self._definitions(batched=False):
                found = [one(None if phi is None else nth(phi, i), meta, *(v[i] for v in batched)) for i in range(b)]
            return [
                same[0].with_leaves([torch.stack(parts) for parts in zip(*(adapted.leaves() for adapted in same))])
                for same in zip(*found)
            ]

        return self.vectorised(vectorised, each)

    def _definitions(self, *, batched: bool) -> AbstractContextManager[None]:
        """Within it, what is differentiated twice is so rightly."""
        return twice_differentiable(self.net, batched=batched) if self._second_order() else nullcontext()

    def _second_order(self) -> bool:
        """Whether gradients of the steps are themselves differentiated."""
        return self.order == 2 and torch.is_grad_enabled()

    def _gradients(self, loss: Callable[[Params], Tensor], phi: Params) -> Params:
        second = self._second_order()
        if not self.loops:
            with nullcontext() if second else torch.no_grad():
                gradients: Params = grad(loss)(phi)
                return gradients
        with torch.enable_grad():
            leaves = {n: v if second and v.requires_grad else v.detach().requires_grad_() for n, v in phi.items()}
            values = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=second, allow_unused=True)
        return {name: torch.zeros_like(phi[name]) if g is None else g for name, g in zip(leaves, values)}


def all_but_the_last_layer(net: nn.Module) -> nn.Sequential | None:
    """A sequence without its last layer, where that is linear and not the only one."""
    if not isinstance(net, nn.Sequential) or len(net) < 2 or not isinstance(net[-1], nn.Linear):
        return None
    return nn.Sequential(OrderedDict(list(net._modules.items())[:-1]))  # named_children skips what stands there twice


def loss_scale(x: Tensor) -> float:
    """What a loss is multiplied by and its gradient divided by, so that float16 does not round small ones to zero.

    A power of two, so that nothing else is rounded; 1 outside of mixed precision in float16. It is fixed: gradients of
    adaptation are within the loss, where the scaler of the training loop does not reach.
    """
    device = x.device.type
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return 1024.0 if half else 1.0


def channels_last(x: Tensor) -> Tensor:
    """Pictures in the layout that convolutions are fastest on; anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def is_convolution(module: nn.Module) -> bool:
    """Whether it is one of torch's convolutions, of any dimension."""
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def gradient_descent(step: int, phi: Params, gradients: Params, meta: Params, *, lr: float) -> Params:
    r"""The update $\phi \leftarrow \phi - \alpha \nabla$ with one fixed rate $\alpha$."""
    return {name: value - lr * gradients[name] for name, value in phi.items()}
