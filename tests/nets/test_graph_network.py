"""A graph network sees a graph, not its labels."""

import torch
from torch import Tensor

from quickstudy.nets.graph_network import GraphNetwork, normalised


def graph(v: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randint(5, (1, v)), torch.rand(1, v, 3), torch.rand(1, v, v).triu(1).round()


def test_relabelling_the_nodes_changes_nothing() -> None:
    net, (operations, numbers, adjacency) = GraphNetwork(5, 3, width=16), graph(7)
    order = torch.randperm(7)
    again = net(operations[:, order], numbers[:, order], adjacency[:, order][:, :, order])
    torch.testing.assert_close(net(operations, numbers, adjacency), again)


def test_padding_changes_nothing() -> None:
    net, (operations, numbers, adjacency) = GraphNetwork(5, 3, width=16), graph(6)
    mask = torch.ones(1, 6, dtype=torch.bool)
    wide = torch.nn.functional.pad
    padded = net(
        wide(operations, (0, 2)), wide(numbers, (0, 0, 0, 2)), wide(adjacency, (0, 2, 0, 2)), wide(mask, (0, 2))
    )
    torch.testing.assert_close(net(operations, numbers, adjacency), padded)


def test_the_direction_of_an_edge_matters() -> None:
    net, (operations, numbers, adjacency) = GraphNetwork(5, 3, width=16), graph(6)
    assert not torch.allclose(net(operations, numbers, adjacency), net(operations, numbers, adjacency.mT))


def test_edges_are_weighed_by_the_degrees_of_both_ends() -> None:
    adjacency = torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    expected = adjacency / 2**0.5
    torch.testing.assert_close(normalised(adjacency), expected)
