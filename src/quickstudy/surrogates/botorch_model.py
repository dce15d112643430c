"""A fitted process as a model of BoTorch's, for the acquisition functions that it has and we do not."""

import torch
from botorch.models import SingleTaskGP
from botorch.models.transforms.input import AffineInputTransform
from gpytorch.kernels import ConstantKernel, LinearKernel, MaternKernel, ScaleKernel
from gpytorch.means import LinearMean

from quickstudy.surrogates.gaussian_process import SHIFT, SLOPE, GaussianProcess

TINY = 1e-12
"""In place of a variance of 0, which GPyTorch does not take."""


def botorch_model(process: GaussianProcess) -> SingleTaskGP:
    """The most probable setting of a process as an exact GP of GPyTorch's with known noise.

    Its inputs are `(n, 1, d + 1)`: the features, and what the prior predicts (anything, where there is no prior); its
    outputs are in the values' units, or normal scores where the process was fitted to ranks.

    Example:
        >>> import torch
        >>> from botorch.acquisition import LogExpectedImprovement
        >>> from quickstudy.surrogates.botorch_model import botorch_model
        >>> from quickstudy.surrogates.gaussian_process import GaussianProcess
        >>> x = torch.linspace(0, 6, 20)[:, None]
        >>> model = botorch_model(GaussianProcess.fit(x, x[:, 0].sin()))
        >>> candidates = torch.tensor([[[1.5, 0.0]], [[4.5, 0.0]]]).double()
        >>> LogExpectedImprovement(model, best_f=0.9)(candidates).argmax()
        tensor(0)
    """
    units, d = process.units, process.x.shape[1]
    lengthscale, share, noise = process.settings[0].tolist()
    variance = float(process.variance[0]) * units.value_scale**2

    rough = ScaleKernel(MaternKernel(2.5, active_dims=tuple(range(d)))).double()
    rough.base_kernel.lengthscale = lengthscale
    rough.outputscale = max((1 - share) * variance, TINY)
    linear = LinearKernel(ard_num_dims=d + 1).double()
    linear.variance = (torch.tensor([2 * share] * d + [SLOPE]).double() * variance).clamp_min(TINY).view(1, -1)
    shift = ConstantKernel().double()
    shift.constant = torch.tensor(SHIFT * variance).double()

    mean = LinearMean(d + 1).double()
    slope = torch.zeros(d + 1, 1).double()
    slope[-1] = units.value_scale
    mean.initialize(weights=slope, bias=torch.tensor([units.value_centre]).double())

    y = units.value_centre + units.value_scale * process.y[:, None]
    with_prior = units.prior_scale is not None and units.weight > 0
    width = torch.cat([units.width, units.width.new_tensor([prior_width(process) if with_prior else 1.0])])
    centre = torch.cat([units.centre, units.centre.new_tensor([units.prior_centre])])
    if not with_prior:
        width[-1] = 1 / TINY
    transform = AffineInputTransform(d + 1, coefficient=width, offset=centre)
    inputs = torch.cat([process.x, process.m[:, None]], 1) * width + centre
    return SingleTaskGP(
        inputs,
        y,
        train_Yvar=torch.full_like(y, noise * variance),
        covar_module=rough + linear + shift,
        mean_module=mean,
        outcome_transform=None,
        input_transform=transform,
    ).eval()


def prior_width(process: GaussianProcess) -> float:
    """What predictions are divided by."""
    return (process.units.prior_scale or 1.0) / process.units.weight
