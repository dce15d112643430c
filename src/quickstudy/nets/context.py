"""The two recurrent networks that put the embeddings of a matching network in context."""

import torch
from torch import Tensor, nn


class BidirectionalLSTM(nn.Module):
    r"""Embeds each support example in the context of the others, read as a sequence in both directions.

    $$g(x_i, S) = \overrightarrow{h}_i + \overleftarrow{h}_i + g'(x_i)$$

    The result depends on the order of the sequence. Masked examples are passed over.

    Args:
        n_features: `d`, the size of an embedding.

    References:
        Vinyals et al., [Matching Networks](https://arxiv.org/abs/1606.04080), 2016, appendix A.2.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.forwards, self.backwards = nn.LSTMCell(n_features, n_features), nn.LSTMCell(n_features, n_features)

    def forward(self, z: Tensor, real: Tensor) -> Tensor:
        """Embeddings `(b, n, d)`, and which are real `(b, n)`, to `(b, n, d)`."""
        there = self._states(self.forwards, z, real)
        back = self._states(self.backwards, z.flip(1), real.flip(1)).flip(1)
        return there + back + z

    def _states(self, cell: nn.LSTMCell, z: Tensor, real: Tensor) -> Tensor:
        hidden, memory = z.new_zeros(z[:, 0].shape), z.new_zeros(z[:, 0].shape)
        states = []
        for i in range(z.shape[1]):
            after = cell(z[:, i], (hidden, memory))
            hidden, memory = (torch.where(real[:, i, None], new, old) for new, old in zip(after, (hidden, memory)))
            states.append(hidden)
        return torch.stack(states, 1)


class AttentionLSTM(nn.Module):
    r"""Embeds a query by attending to the support set for a number of steps; the order of the set does not matter.

    $$\hat h_k, c_k = \mathrm{LSTM}(f'(x), [h_{k-1}, r_{k-1}], c_{k-1}), \quad h_k = \hat h_k + f'(x), \quad
      r_k = \sum_i \mathrm{softmax}_i(h_k^\top g(x_i))\, g(x_i)$$

    Args:
        n_features: `d`, the size of an embedding.
        steps: Steps of attention, $K$.

    References:
        Vinyals et al., [Matching Networks](https://arxiv.org/abs/1606.04080), 2016, appendix A.1.
    """

    def __init__(self, n_features: int, *, steps: int) -> None:
        super().__init__()
        self.steps = steps
        # Of the state [h, r] only r is beside the input here: h enters through the cell's own recurrence.
        self.cell = nn.LSTMCell(2 * n_features, n_features)

    def forward(self, z: Tensor, support: Tensor, real: Tensor) -> Tensor:
        """Queries `(b, q, d)`, the support set `(b, n, d)` and which of it is real `(b, n)`, to `(b, q, d)`."""
        lowest = torch.finfo(z.dtype).min
        hidden, memory, read = (torch.zeros_like(z) for _ in range(3))
        for _ in range(self.steps):
            state = (hidden.flatten(0, 1), memory.flatten(0, 1))
            after, kept = self.cell(torch.cat([z, read], -1).flatten(0, 1), state)
            hidden, memory = after.view_as(z) + z, kept.view_as(z)
            attention = (hidden @ support.mT).masked_fill(~real[:, None], lowest).softmax(-1)  # (b, q, n)
            read = attention @ support
        return hidden
