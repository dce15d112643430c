"""A graph network over directed acyclic graphs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES = 8.0  # of a common graph, so that a sum over nodes is of the size of one


class GraphConvolution(nn.Module):
    r"""Each node takes in what is before it, what is behind it, and itself.

    $$h_v' = h_v + \mathrm{relu}\Big(\mathrm{LN}\Big(\sum_{u \in N^-(v)} \frac{W_1 h_u}{\sqrt{|N^-(v)| |N^+(u)|}} +
    \sum_{u \in N^+(v)} \frac{W_2 h_u}{\sqrt{|N^+(v)| |N^-(u)|}} + W_3 h_v\Big)\Big)$$

    where $N^-$ are the nodes that edges come from, $N^+$ those that they go to, and LN is layer normalisation. The
    direction of edges, the residual and the normalisation are not in the paper.

    Args:
        width: `d`, the features of a node.

    References:
        Kipf and Welling, [Semi-Supervised Classification with Graph Convolutional
        Networks](https://arxiv.org/abs/1609.02907), 2017, for the normalisation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.along, self.against, self.own = (nn.Linear(width, width, bias=i == 2) for i in range(3))
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, flow: Tensor) -> Tensor:
        """Nodes `(b, v, d)` and the adjacency of `normalised`, `(b, v, v)`, to `(b, v, d)`."""
        found = flow.mT @ self.along(h) + flow @ self.against(h) + self.own(h)
        return h + F.relu(self.norm(found))


class GraphNetwork(nn.Module):
    """Embeds graphs whose nodes are operations.

    Node features are an embedding of the operation and a linear map of its numbers; convolutions pass them along the
    edges and against them; the sum over nodes, over eight, is the embedding. (A mean would not tell two convolutions
    from four.) Relabelling the nodes changes nothing.

    Args:
        operations: Size of the vocabulary, input and output among it.
        numbers: Numeric features of a node.
        width: `d`.
        depth: Convolutions.

    Example:
        >>> import torch
        >>> from quickstudy.nets.graph_network import GraphNetwork
        >>> operations, numbers = torch.tensor([[0, 3, 1]]), torch.zeros(1, 3, 2)
        >>> adjacency = torch.tensor([[[0., 1., 0.], [0., 0., 1.], [0., 0., 0.]]])
        >>> GraphNetwork(4, 2, width=8)(operations, numbers, adjacency).shape
        torch.Size([1, 8])
    """

    def __init__(self, operations: int, numbers: int, *, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.operation = nn.Parameter(torch.randn(operations, width))
        self.number = nn.Linear(numbers, width)
        self.convolutions = nn.ModuleList(GraphConvolution(width) for _ in range(depth))
        self.width = width

    def forward(self, operations: Tensor, numbers: Tensor, adjacency: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings, `(b, d)`.

        Args:
            operations: Positions in the vocabulary, `(b, v)`.
            numbers: `(b, v, numbers)`.
            adjacency: 1 from row to column, or a weight of that edge, `(b, v, v)`.
            mask: True where there is a node, `(b, v)`; everywhere by default.
        """
        h = F.relu(self.operation[operations] + self.number(numbers))
        present = torch.ones_like(h[..., :1]) if mask is None else mask[..., None].to(h.dtype)
        flow = normalised(adjacency)
        for convolution in self.convolutions:
            h = convolution(h, flow) * present
        return (h * present).sum(1) / NODES


def normalised(adjacency: Tensor) -> Tensor:
    """Each edge by the root of the degrees at its ends: those that leave its start, and those that reach its end."""
    leaving, reaching = adjacency.sum(-1, keepdim=True), adjacency.sum(-2, keepdim=True)
    return adjacency * (leaving.clamp(min=1) * reaching.clamp(min=1)).rsqrt()
