"""What an untrained network tells about its accuracy once trained, and how long one prediction takes.

Each proxy takes a network and a batch of inputs `(n, *shape)` and labels `(n,)`, returns one finite number, and leaves
the network as it was. Those without data read the shape of the inputs only.

Example:
    >>> import torch
    >>> from quickstudy.nas.build import build
    >>> from quickstudy.nas.proxies import PROXIES
    >>> from quickstudy.nas.tiny import Tiny
    >>> space = Tiny(shape=(1, 12, 12), n_classes=3)
    >>> network = build(space, space.sample(generator=torch.Generator().manual_seed(0)))
    >>> batch = torch.rand(8, 1, 12, 12), torch.randint(3, (8,))
    >>> sorted(name for name, proxy in PROXIES.items() if proxy(network, batch) < float("inf"))
    ['gradient_norm', 'jacov', 'multiply_adds', 'naswot', 'parameters', 'synflow']
"""

import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.batch_norm import NO_EPS

Batch = tuple[Tensor, Tensor]
Proxy = Callable[[nn.Module, Batch], float]
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def parameters(module: nn.Module, batch: Batch) -> float:
    """Numbers that training sets. The baseline that other proxies often do not beat.

    References:
        Ning et al., [Evaluating Efficient Performance Estimators of Neural
        Architectures](https://arxiv.org/abs/2008.03064), 2021.
    """
    return float(sum(p.numel() for p in module.parameters()))


def multiply_adds(module: nn.Module, batch: Batch) -> float:
    """Of convolutions and linear layers, for one example.

    References:
        Ning et al., [Evaluating Efficient Performance Estimators of Neural
        Architectures](https://arxiv.org/abs/2008.03064), 2021.
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = layer.get_parameter("weight")
        total += output[0].numel() * weight[0].numel()

    network = copy.deepcopy(module).eval()
    for layer in network.modules():
        if isinstance(layer, WEIGHTED):
            layer.register_forward_hook(add)
    with torch.no_grad():
        network(batch[0][:1])
    return float(total)


def synflow(module: nn.Module, batch: Batch) -> float:
    r"""Logarithm of the synaptic flow of all weights.

    $$\log \sum_\theta \theta \frac{\partial R}{\partial \theta}, \qquad R = 1^\top f_{|\theta|}(1)$$

    $R$ is the sum of the outputs of the network for an input of ones, with the absolute values of its weights, without
    biases and normalisation. It grows exponentially with depth. Such a network is homogeneous, $f(a x) = a f(x)$ for
    $a > 0$, and so is each link of a chain: we divide what a link puts out by its mean, and add the logarithms of those
    means to the result. With double precision within a link, nothing overflows.

    References:
        Tanaka et al., [Pruning neural networks without any data by iteratively conserving synaptic
        flow](https://arxiv.org/abs/2006.05467), 2020.
        Abdelfattah et al., [Zero-Cost Proxies for Lightweight NAS](https://arxiv.org/abs/2101.08134), 2021.
    """
    network = copy.deepcopy(module).eval().double()
    for layer in network.modules():
        if isinstance(layer, NORMS):
            layer.reset_parameters()
            layer.eps = NO_EPS
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.abs_()
            if name.endswith("bias"):
                p.zero_()
    x, log_scale = torch.ones_like(batch[0][:1], dtype=torch.float64), 0.0
    for link in chain(network):
        x = link(x)
        scale = x.detach().mean().clamp_min(torch.finfo(x.dtype).tiny)
        x, log_scale = x / scale, log_scale + float(scale.log())
    weights = [layer.weight for layer in network.modules() if isinstance(layer, WEIGHTED)]
    gradients = torch.autograd.grad(x.sum(), weights, allow_unused=True)
    flow = sum(float((weight.detach() * g).sum()) for weight, g in zip(weights, gradients) if g is not None)
    return log_scale + math.log(max(flow, torch.finfo(x.dtype).tiny))


def chain(module: nn.Module) -> list[nn.Module]:
    """The modules whose composition a network is."""
    if not isinstance(module, nn.Sequential):
        return [module]
    return [link for child in module for link in chain(child)]


def jacov(module: nn.Module, batch: Batch) -> float:
    r"""How different the network's derivatives are from example to example; higher is better.

    $$-\sum_i \left(\log(\sigma_i + k) + \frac{1}{\sigma_i + k}\right), \qquad k = 10^{-5}$$

    $\sigma_i$ are the eigenvalues of the correlation of the rows $\partial (1^\top f(x_i)) / \partial x_i$.

    References:
        Mellor et al., [Neural Architecture Search without Training](https://arxiv.org/abs/2006.04647v1), version 1,
        2020.
    """
    network = copy.deepcopy(module).train()
    x = batch[0].detach().clone().requires_grad_()
    (rows,) = torch.autograd.grad(network(x).sum(), x)
    rows = rows.flatten(1).double()
    rows = F.normalize(rows - rows.mean(1, keepdim=True), dim=1)
    values = torch.linalg.eigvalsh(rows @ rows.mT).clamp_min(0) + 1e-5
    return -float((values.log() + 1 / values).sum())


def naswot(module: nn.Module, batch: Batch) -> float:
    r"""How well the network's ReLUs tell examples apart; higher is better.

    $$\log \left| K \right|, \qquad K_{ij} = N - d_H(c_i, c_j)$$

    $c_i$ is the binary code of an example, which of the $N$ rectified values are positive; $d_H$ counts differences.
    We add one to the diagonal, so that two examples with the same code give a low value and not minus infinity.

    References:
        Mellor et al., [Neural Architecture Search without Training](https://arxiv.org/abs/2006.04647), 2021.
    """
    x = batch[0]
    kernel = torch.eye(len(x), dtype=torch.float64, device=x.device)

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        code = (output > 0).flatten(1).float()
        kernel.add_(code @ code.mT + (1 - code) @ (1 - code).mT)

    network = copy.deepcopy(module).train()
    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(add)
    with torch.no_grad():
        network(x)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def gradient_norm(module: nn.Module, batch: Batch) -> float:
    """Sum over the layers of the Euclidean norm of the cross-entropy's gradient.

    References:
        Abdelfattah et al., [Zero-Cost Proxies for Lightweight NAS](https://arxiv.org/abs/2101.08134), 2021.
    """
    network = copy.deepcopy(module).train()
    weights = [layer.weight for layer in network.modules() if isinstance(layer, WEIGHTED)]
    x, y = batch
    gradients = torch.autograd.grad(F.cross_entropy(network(x), y), weights, allow_unused=True)
    return float(sum(float(g.norm()) for g in gradients if g is not None))


PROXIES: Mapping[str, Proxy] = {
    proxy.__name__: proxy for proxy in (parameters, multiply_adds, synflow, jacov, naswot, gradient_norm)
}
"""All of them, by name."""


def measure_latency(module: nn.Module, shape: tuple[int, ...], *, seconds: float = 0.1) -> float:
    """Median milliseconds of one prediction for one example, on one thread of this machine.

    Args:
        module: It is measured in evaluation mode, where it lies, and left as it was.
        shape: Of one example, `(channels, *size)`.
        seconds: How long to measure; 10 predictions at least, after 3 that do not count.
    """
    network = copy.deepcopy(module).eval()
    parameter = next(network.parameters(), torch.empty(0))
    x = torch.zeros(1, *shape, dtype=parameter.dtype, device=parameter.device)
    threads, times = torch.get_num_threads(), list[float]()
    try:
        torch.set_num_threads(1)
        with torch.inference_mode():
            for _ in range(3):
                network(x)
            end = time.perf_counter() + seconds
            while len(times) < 10 or time.perf_counter() < end:
                start = time.perf_counter()
                network(x)
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(times)
