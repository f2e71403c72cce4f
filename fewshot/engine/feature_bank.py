"""Features of examples, by what the examples hold, within a bound of memory.

Shapes: n examples asked for, m of them embedded for it.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


class FeatureBank:
    """Holds the features of examples that have been embedded, by their keys.

    What comes when it is full is not held, and is embedded whenever it is asked for: nothing is
    thrown out for it. Episodes draw their examples at random, so that of any that might be held
    the same share is asked for; and where sources take turns, those thrown out would be the next.

    Args:
        limit: bytes of features that are held. They lie where they were made.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._shelves: dict[Hashable, _Shelf] = {}

    def __len__(self) -> int:
        """How many examples it holds."""
        return sum(len(shelf.places) for shelf in self._shelves.values())

    @property
    def size(self) -> int:
        """Bytes of memory that the features take."""
        return sum(shelf.size for shelf in self._shelves.values())

    def clear(self) -> None:
        """Forget all features."""
        self._shelves.clear()

    def held(self) -> dict[Hashable, tuple[list[bytes], Tensor]]:
        """All that it holds: keys and features (n, ...) by kind."""
        shelves = {kind: shelf for kind, shelf in self._shelves.items() if shelf.places}
        return {kind: (list(shelf.places), shelf.filled) for kind, shelf in shelves.items()}

    def at(self, kind: Hashable, keys: Sequence[bytes]) -> tuple[list[int], Tensor | None]:
        """Which of these keys (n,) it holds, and their features (m, ...); None for none."""
        shelf = self._shelves.get(kind, _Shelf())
        places = [place for place, key in enumerate(keys) if key in shelf.places]
        return places, shelf.at([keys[place] for place in places]) if places else None

    def take(self, kind: Hashable, keys: Sequence[bytes], features: Tensor) -> None:
        """Hold the features (n, ...) of more examples with these keys, none of them twice."""
        shelf = self._shelves.setdefault(kind, _Shelf())
        new = [place for place, key in enumerate(keys) if key not in shelf.places]
        if new:
            rows = features if len(new) == len(keys) else features[new]
            shelf.add([keys[place] for place in new], rows, self.limit - self.size + shelf.size)

    def features(
        self,
        kind: Hashable,
        keys: Sequence[bytes],
        embed: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> Tensor:
        """Features (n, ...) of the examples with these keys.

        Args:
            kind: of the examples; keys of two kinds are told apart.
            keys: of each example.
            embed: from the places (m,) in `keys` of examples that are not held, none of them
                twice, to their features (m, ...).
            device: where the places are to be.
        """
        shelf = self._shelves.setdefault(kind, _Shelf())
        missing: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in shelf.places:
                missing.setdefault(key, place)
        if not missing:
            return shelf.at(keys)
        fresh = embed(torch.tensor(list(missing.values()), device=device))
        if shelf.add(list(missing), fresh, self.limit - self.size + shelf.size):
            return shelf.at(keys)
        row = {key: i for i, key in enumerate(missing)}
        held = torch.tensor([key in shelf.places for key in keys])
        found = fresh.new_empty(len(keys), *fresh.shape[1:])
        if held.any():
            found[held.to(device)] = shelf.at([key for key in keys if key in shelf.places])
        places = [row[key] for key in keys if key not in shelf.places]
        found[~held.to(device)] = fresh[torch.tensor(places, device=device)]
        return found


class _Shelf:
    """Features (capacity, ...) of examples of one kind, and the row of each."""

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}
        self.rows: Tensor | None = None

    @property
    def size(self) -> int:
        return 0 if self.rows is None else self.rows.nbytes

    @property
    def filled(self) -> Tensor:
        """All features (n, ...), in the order of the places."""
        assert self.rows is not None
        return self.rows[: len(self.places)]

    def at(self, keys: Sequence[bytes]) -> Tensor:
        """The features (n, ...) of examples that are held."""
        assert self.rows is not None
        places = torch.tensor([self.places[key] for key in keys])
        return self.rows[places.to(self.rows.device)]

    def add(self, keys: Sequence[bytes], features: Tensor, limit: int) -> bool:
        """Hold the features (m, ...) of new examples, as many as go into `limit` bytes of it.

        Returns:
            Whether that is all of them.
        """
        of_one = features[0].nbytes
        most = limit // of_one if of_one else len(self.places) + len(keys)
        end = min(most, len(self.places) + len(keys))
        begin = len(self.places)
        if (added := end - begin) > 0:
            self._grow(end, most, features)
            assert self.rows is not None
            self.rows[begin:end] = features[:added]
            self.places.update(zip(keys[:added], range(begin, end), strict=True))
        return added == len(keys)

    def _grow(self, needed: int, most: int, like: Tensor) -> None:
        """Make room for so many rows, twice as many as before if that is within `most`."""
        held = 0 if self.rows is None else len(self.rows)
        if needed <= held:
            return
        grown = like.new_empty(min(most, max(needed, 2 * held)), *like.shape[1:])
        if self.rows is not None:
            grown[:held] = self.rows
        self.rows = grown
