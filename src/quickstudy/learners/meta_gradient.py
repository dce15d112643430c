"""The exact gradient of what comes after adaptation, with respect to what came before it.

It is taken in two halves, because their shapes differ. The support half has few images and is differentiated twice: it
runs under `vmap` over tasks, or in a loop for networks that `vmap` cannot take. The query half has many images and is
differentiated once: each task's adapted weights are detached, gradients are taken there natively, and the cotangents
of all tasks are pulled back through the adaptation at once. Tasks come in chunks that fit a memory budget, and no
graph outlives its chunk.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.func import grad_and_value, vmap

from quickstudy.learners.head import Head
from quickstudy.learners.inner_loop import Adapted, InnerLoop, Own, Params, channels_last, loss_scale
from quickstudy.learners.noise import Noise
from quickstudy.tasks.task import Examples, Task

BACK = 2.5
"""Times the graph of first derivatives that second ones take: on the way back through gradients, theirs are kept."""


@dataclass
class MetaGradient:
    """Query losses after an inner loop, and their gradient."""

    loop: InnerLoop
    penalty: Callable[[Params], Tensor] | None = None
    """A scalar function of one task's adapted weights that is added to its query loss."""
    memory_budget: int = 2 << 30
    """Bytes that the graph of one chunk of tasks may take, with what the way back through it adds."""
    low_memory: bool = False
    """Recompute every step on the way back instead of keeping its graph: memory does not grow with the number of steps,
    but for the weights of about log2(steps) of them, and each is taken 2 + log2(steps) / 2 times instead of once."""
    _graph_bytes: dict[Any, int] = field(default_factory=dict, repr=False)

    def losses(self, meta: Params, tasks: Task, head: Head, emphasis: dict[int, float]) -> Tensor:
        """Query loss of each task, `(b,)`, differentiable once with respect to `meta`.

        Args:
            meta: What is meta-learned.
            tasks: A batch of tasks.
            head: What outputs mean.
            emphasis: For each step after which queries are asked (0: before the first), the weight of their loss.
        """
        emphasis = dict(sorted(emphasis.items()))
        free = {name: value for name, value in meta.items() if value.requires_grad}
        if not (torch.is_grad_enabled() and free):
            with torch.no_grad():
                adapted = self.loop.adapt(meta, tasks.support, head, list(emphasis))
                return self._query_half(adapted, tasks.query, head, emphasis, None)[0]

        def solve(values: Sequence[Tensor], share: Tensor | None) -> tuple[Tensor, list[Tensor]]:
            return self._solve({**meta, **dict(zip(free, values))}, list(values), tasks, head, emphasis, share)

        if tasks.query.x.device.type == "cpu":
            keep_freed_memory()
        losses: Tensor = _Losses.apply(solve, *free.values())  # type: ignore[no-untyped-call]
        return losses

    def _solve(
        self,
        meta: Params,
        leaves: list[Tensor],
        tasks: Task,
        head: Head,
        emphasis: dict[int, float],
        share: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Losses, and the gradient of their sum weighted by `share` (ones by default) with respect to `leaves`."""
        losses, totals = [], [torch.zeros_like(leaf) for leaf in leaves]
        scale = loss_scale(tasks.query.x)
        step = self.tasks_at_once(meta, tasks, head, list(emphasis))
        for first in range(0, len(tasks), step):
            chunk = tasks[first : first + step]
            part = None if share is None else share[first : first + step]
            half = self._recomputing_half if self.low_memory else self._support_half
            found, gradients = half(meta, leaves, chunk, head, emphasis, part)
            losses.append(found)
            for total, gradient in zip(totals, gradients):
                if gradient is not None:
                    total += gradient / scale if scale != 1 else gradient
        return torch.cat(losses), totals

    def _support_half(
        self,
        meta: Params,
        leaves: list[Tensor],
        tasks: Task,
        head: Head,
        emphasis: dict[int, float],
        share: Tensor | None,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        adapted = self.loop.adapt(meta, tasks.support, head, list(emphasis))
        losses, cotangents = self._query_half(adapted, tasks.query, head, emphasis, share)
        outputs = [leaf for network in adapted for leaf in network.leaves()]
        return losses, pull_back(outputs, [c for network in cotangents for c in network.leaves()], leaves)

    def _recomputing_half(
        self,
        meta: Params,
        leaves: list[Tensor],
        tasks: Task,
        head: Head,
        emphasis: dict[int, float],
        share: Tensor | None,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """The same without the graph of the steps, which are taken back one at a time, each recomputed.

        Queries are asked on the way back, so that there is one network that was asked at a time.
        """
        loop, support, last = self.loop, tasks.support, max(emphasis)

        noise = Noise(support.x.device)

        def advance(step: int, phi: Params) -> Params:
            def function(phi: Params, meta: Params, own: Own) -> list[Adapted]:
                return [Adapted(loop.advance(step, phi, meta, own, head), {})]

            with noise.of(("step", step)):
                return loop.over_tasks(function, meta, support, phi)[0].weights

        def read_out(step: int, phi: Params) -> Adapted:
            def function(phi: Params, meta: Params, own: Own) -> list[Adapted]:
                return [loop.read_out(step, phi, meta, own)]

            with noise.of(("read out", step)):
                return loop.over_tasks(function, meta, support, phi)[0]

        def start() -> Params:
            return {n: v.expand(len(tasks), *v.shape) for n, v in loop.start(meta).items()}

        with torch.no_grad():
            phi = start()
            for step in range(last):
                phi = advance(step, phi)
        losses = list[Tensor]()
        totals: list[Tensor | None] = [None] * len(leaves)

        def ask(step: int, phi: Params) -> tuple[list[Tensor], list[Tensor]]:
            """What the network of a step is, and the cotangents of that."""
            network = read_out(step, phi)
            loss, (cotangents,) = self._query_half([network], tasks.query, head, {step: emphasis[step]}, share)
            losses.append(loss)
            return network.leaves(), cotangents.leaves()

        def collect(outputs: Sequence[Tensor], given: Sequence[Tensor], phi: Params) -> list[Tensor]:
            gradients = pull_back(outputs, given, [*phi.values(), *leaves])
            for i, gradient in enumerate(gradients[len(phi) :]):
                if gradient is not None:
                    previous = totals[i]
                    totals[i] = gradient if previous is None else previous + gradient
            return [torch.zeros_like(v) if g is None else g for v, g in zip(phi.values(), gradients)]

        def reverse(first: int, end: int, phi: Params, back: list[Tensor]) -> list[Tensor]:
            """Takes the cotangent of the weights at `end` back to those at `first`, which are `phi`."""
            if end - first > 1:
                middle, half_way = (first + end) // 2, phi
                with torch.no_grad():
                    for step in range(first, middle):
                        half_way = advance(step, half_way)
                return reverse(first, middle, phi, reverse(middle, end, half_way, back))
            own = {name: value.detach().requires_grad_() for name, value in phi.items()}
            outputs = list(advance(first, own).values())
            if first in emphasis:
                asked, cotangents = ask(first, own)
                outputs, back = [*outputs, *asked], [*back, *cotangents]
            return collect(outputs, back, own)

        own = {name: value.detach().requires_grad_() for name, value in phi.items()}
        back = collect(*ask(last, own), own)
        if last:
            with torch.no_grad():
                phi = start()
            back = reverse(0, last, phi, back)
        collect(list(start().values()), back, {})
        return torch.stack(losses).sum(0), totals

    def _query_half(
        self, adapted: list[Adapted], query: Examples, head: Head, emphasis: dict[int, float], share: Tensor | None
    ) -> tuple[Tensor, list[Adapted]]:
        """Losses `(b,)`, and their gradients with respect to the adapted networks, times `loss_scale`."""
        loss_scaled = loss_scale(query.x)
        structure, scales, alone = adapted[0], list(emphasis.values()), self.loop.many_go_one_by_one(query.x)

        def loss(leaves: Sequence[Tensor], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            network = structure.with_leaves(leaves)
            share = None if query.mask is None else weights
            output = self.loop.call(network.weights, x, network.moments, share, inside_vmap=not alone)
            total = (head.losses(output, y) * weights).sum()
            return loss_scaled * (total if self.penalty is None else total + self.penalty(network.weights))

        with torch.enable_grad():
            results = [self._each(loss, [v.detach() for v in network.leaves()], query) for network in adapted]
        losses = torch.stack([scale / loss_scaled * value for scale, (value, _) in zip(scales, results)]).sum(0)
        cotangents = []
        for scale, (_, gradients) in zip(scales, results):
            if share is None:
                scaled = [g if scale == 1 else scale * g for g in gradients]
            else:
                scaled = [scale * share.view(-1, *(1,) * (g.ndim - 1)) * g for g in gradients]
            cotangents.append(structure.with_leaves(scaled))
        return losses, cotangents

    def _each(self, loss: Callable[..., Tensor], leaves: list[Tensor], query: Examples) -> tuple[Tensor, list[Tensor]]:
        """The value of a task's query loss and its gradient, of each task."""
        batched = (query.x, query.y, query.weights())

        def vectorised() -> tuple[Tensor, list[Tensor]]:
            gradients, values = vmap(grad_and_value(loss), randomness="different")(leaves, *batched)
            return values, list(gradients)

        def each() -> tuple[Tensor, list[Tensor]]:
            values, stacked = [], [torch.empty_like(v, memory_format=torch.contiguous_format) for v in leaves]
            for i in range(len(query.x)):
                own = [leaf[i].detach().requires_grad_() for leaf in leaves]
                x, y, weights = (value[i] for value in batched)
                value = loss(own, channels_last(x), y, weights)
                values.append(value.detach())
                for place, gradient in zip(stacked, torch.autograd.grad(value, own, allow_unused=True)):
                    place[i] = 0 if gradient is None else gradient
            return torch.stack(values), stacked

        return each() if self.loop.many_go_one_by_one(query.x) else self.loop.vectorised(vectorised, each)

    def tasks_at_once(self, meta: Params, tasks: Task, head: Head, asked: Sequence[int]) -> int:
        """As many tasks as the graph of their support half, measured on one, fits into the budget, there and back.

        Queries are asked after some steps; the graph of each network that is asked is kept until the last.
        """
        steps = (min(max(asked), 1),) if self.low_memory else tuple(asked)
        key = (tasks.support.x.shape[1:], tasks.query.x.shape[1:], tasks.support.x.dtype, steps)
        if key not in self._graph_bytes:
            plain = copy.copy(self.loop)
            plain.batching = "loop"  # hooks on saved tensors do not reach inside vmap
            storages: dict[int, int] = {}

            def pack(value: Tensor) -> Tensor:
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
                return value

            one, noise = tasks[:1], Noise(tasks.support.x.device)
            with noise.of("before"), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
                adapted = plain.adapt(meta, one.support, head, list(steps))[-1]
                if not self.loop.many_go_one_by_one(one.query.x):
                    plain.outputs(adapted, one.query.x)  # the query half is vectorised too
            noise.restore("before")
            self._graph_bytes[key] = max(1, sum(storages.values()))
        back = BACK if self.loop.order == 2 else 1
        return max(1, min(len(tasks), int(self.memory_budget / (back * self._graph_bytes[key]))))


def keep_freed_memory() -> None:
    """Lets the C library keep what a task frees for the next one, which otherwise fetches it page by page.

    glibc keeps up to twice the largest block that was freed before, and counts blocks of up to 32 MB. This one is never
    written to, so it costs nothing; nor does it do anything where the library is another one.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def pull_back(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """The vector-Jacobian product, None for inputs that no output depends on."""
    pairs = [(output, cotangent) for output, cotangent in zip(outputs, cotangents) if output.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    return torch.autograd.grad([o for o, _ in pairs], list(inputs), [c for _, c in pairs], allow_unused=True)


class _Losses(torch.autograd.Function):
    """Losses whose gradient is taken along with them, for equal weights; others cost a second solution."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[..., tuple[Tensor, list[Tensor]]], *meta: Tensor) -> Tensor:
        def solve_for(share: Tensor | None) -> tuple[Tensor, list[Tensor]]:
            with torch.enable_grad():
                return solve([value.detach().requires_grad_() for value in meta], share)

        noise = Noise(meta[0].device)

        def solve_again(share: Tensor | None) -> tuple[Tensor, list[Tensor]]:
            with noise.of("solution"):
                return solve_for(share)

        losses, gradients = solve_again(None)
        ctx.solve_for = solve_again
        ctx.save_for_backward(*gradients)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, ...]:
        if bool((share == share[0]).all()):
            return (None, *(share[0] * gradient for gradient in ctx.saved_tensors))
        return (None, *ctx.solve_for(share)[1])
