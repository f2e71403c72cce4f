"""The graph that autograd holds of a tensor."""

from torch import Tensor
from torch.autograd.graph import Node


def nodes(tensor: Tensor) -> set[Node]:
    """The operations that a backward pass from `tensor` goes through."""
    seen: set[Node] = set()
    left = [tensor.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [parent for parent, _ in node.next_functions]
    return seen
