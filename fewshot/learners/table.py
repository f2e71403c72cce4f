"""The table of a validation or test: one row an episode, whatever the ranks and batches."""

import torch
from torch import Tensor
from torchmetrics import Metric


class EpisodeTable(Metric):
    """One row of values an episode, gathered over all ranks in the order of the episodes' numbers.

    `columns` gives the table: ``{"episode": (n,) int64, name: (n,) float32, ...}``.
    """

    full_state_update = False
    numbers: list[Tensor]
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.add_state("numbers", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    @property
    def rows_so_far(self) -> int:
        """How many episodes this rank has added."""
        return sum(len(numbers) for numbers in self.numbers)

    def update(self, numbers: Tensor, values: dict[str, Tensor]) -> None:
        """Add the episodes `numbers` (B,) with their `values`, a tensor (B,) a name."""
        self.names = tuple(values)
        self.numbers.append(numbers)
        self.rows.append(torch.stack([values[name].detach().float() for name in self.names], dim=1))

    def compute(self) -> dict[str, Tensor]:
        """All episodes' rows on the CPU, sorted by number."""
        numbers, rows = _joined(self.numbers), _joined(self.rows)
        order = numbers.argsort()
        columns = rows[order].unbind(dim=1)
        return {"episode": numbers[order], **dict(zip(self.names, columns, strict=True))}

    def columns(self) -> dict[str, Tensor]:
        """`compute`, with columns also for one episode alone, where torchmetrics makes scalars."""
        return {name: column.reshape(-1) for name, column in self.compute().items()}


class AnswerTable(Metric):
    """One row a query: the number of its episode, its label and its answer, over all ranks."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, numbers: Tensor, labels: Tensor, answers: Tensor) -> None:
        """Add the queries of episodes `numbers` (B,): `labels` and `answers` (B, n)."""
        owners = numbers[:, None].expand_as(labels)
        self.rows.append(torch.stack([owners, labels, answers], -1).flatten(0, 1).int())

    def compute(self) -> Tensor:
        """All queries' rows (Q, 3) on the CPU; ranks follow each other."""
        return _joined(self.rows)


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """A list state as one CPU tensor (torchmetrics has joined it if ranks were synchronised)."""
    return (torch.cat(state) if isinstance(state, list) else state).cpu()
