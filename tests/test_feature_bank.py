"""Fingerprints tell contents apart, and a bank gives the features of what it is asked for."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fewshot.engine.feature_bank import FeatureBank
from fewshot.engine.fingerprints import _seen, fingerprint, fingerprints, sums, words

CPU = torch.device("cpu")
DTYPES = [
    *(torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_content_has_one_fingerprint_in_any_batch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.randint(0, 2, (50, 2, 300)).mul(3).to(dtype)
    alone = [fingerprints(values[i : i + 1])[0] for i in range(50)]
    assert fingerprints(values) == alone
    assert fingerprints(values.transpose(1, 2).contiguous().transpose(1, 2)) == alone
    assert fingerprints(values.flip(0)) == alone[::-1]
    assert len(set(alone)) == 50
    assert {len(one) for one in alone} == {16}


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.is_floating_point])
def test_a_sign_and_an_order_are_seen(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.rand(1, 400).to(dtype)
    others = values.repeat(400, 1)
    places = torch.arange(400)
    others[places, places] *= -1
    swapped = values.clone()
    swapped[0, :2] = swapped[0, [1, 0]]
    assert len({*fingerprints(values), *fingerprints(others), *fingerprints(swapped)}) == 402


def test_each_sum_tells_contents_apart_that_differ_in_upper_bits_alone() -> None:
    torch.manual_seed(0)
    drawings = torch.randint(0, 2, (20_000, 64)).float()  # 0, or bits 23 to 29
    for one in sums(words(drawings)).T:
        assert len(one.unique()) > 19_900


def test_dicts_are_told_apart_by_all_that_they_hold() -> None:
    inputs = {"tokens": torch.arange(6).view(2, 3), "lengths": torch.tensor([3, 3])}
    other = inputs | {"lengths": torch.tensor([3, 2])}
    (one, two), (same, differs) = fingerprints(inputs), fingerprints(other)
    assert one == same
    assert two != differs


def test_many_tensors_have_one_fingerprint() -> None:
    torch.manual_seed(0)
    tensors = [
        torch.rand(300, 400),
        torch.rand(5),
        torch.zeros(0),
        torch.tensor(3),
        torch.rand(7, 3),
    ]
    seen = [fingerprint(tensors)]
    assert fingerprint(tensors) == seen[0]
    for number in (0, 1, 3, 4):
        for value in (-1, 2):
            tensors[number].view(-1)[-1] = value
            seen.append(fingerprint(tensors))
    tensors[0][[0, 1]] = tensors[0][[1, 0]]  # rows of another order
    seen.append(fingerprint(tensors))
    assert len(set(seen)) == len(seen) == 10
    assert len(fingerprint([])) == 16


def test_of_a_large_tensor_a_sample_and_every_write_count() -> None:
    torch.manual_seed(0)
    large = torch.rand(2000, 300)
    seen = [fingerprint([large])]
    large[1234, 77] += 1  # autograd's counter says so
    seen.append(fingerprint([large]))
    large.data.mul_(1.001)  # the counter does not
    seen.append(fingerprint([large]))
    assert len(set(seen)) == 3
    assert fingerprint([large]) == seen[-1]


def test_a_network_in_another_layout_is_looked_at_without_a_copy() -> None:
    weight = torch.rand(64, 64, 3, 3).to(memory_format=torch.channels_last)
    assert _seen(weight).data_ptr() == weight.data_ptr()


class Embedding:
    """Features of examples that are numbers, and which were asked for in turn."""

    def __init__(self, keys: list[int]) -> None:
        self.keys = keys
        self.embedded: list[int] = []

    def __call__(self, places: Tensor) -> Tensor:
        numbers = [self.keys[place] for place in places.tolist()]
        self.embedded += numbers
        return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 4)


def asked(bank: FeatureBank, numbers: list[int], kind: str = "") -> list[int]:
    """Which examples are embedded for these; all get their own features."""
    embedding = Embedding(numbers)
    keys = [number.to_bytes(16, "big") for number in numbers]
    found = bank.features(kind, keys, embedding, CPU)
    assert found.tolist() == [[float(number)] * 4 for number in numbers]
    return embedding.embedded


def test_a_bank_asks_for_what_it_does_not_hold_and_once() -> None:
    bank = FeatureBank(2**20)
    assert asked(bank, [3, 1, 3, 2]) == [3, 1, 2]
    assert asked(bank, [2, 2, 5, 3, 5]) == [5]
    assert asked(bank, [5, 3]) == []
    assert asked(bank, [5, 3], "another kind") == [5, 3]
    assert len(bank) == 6
    bank.clear()
    assert asked(bank, [5]) == [5]


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 100])
def test_a_full_bank_keeps_what_it_holds_and_no_more(rows: int) -> None:
    bank = FeatureBank(16 * rows + 7)
    held: list[int] = []
    for numbers in ([1, 2, 1], [3, 1, 4], [4, 5, 6, 5], [1, 2, 3, 4, 5, 6, 7]):
        new = list(dict.fromkeys(number for number in numbers if number not in held))
        assert asked(bank, numbers) == new
        held = (held + new)[:rows]
        assert bank.size <= bank.limit
        assert len(bank) == len(held)


def test_kinds_share_the_memory() -> None:
    bank = FeatureBank(16 * 4)
    asked(bank, [1, 2, 3], "one")
    asked(bank, [1, 2, 3], "other")
    assert len(bank) == 4
    assert asked(bank, [1, 2, 3], "other") == [2, 3]
    assert bank.size == bank.limit


def test_a_bank_grows_in_doublings() -> None:
    bank, sizes = FeatureBank(2**20), [0]
    for number in range(100):
        asked(bank, [number])
        sizes.append(bank.size)
    grown = sorted(set(sizes))
    assert all(after >= 2 * before for before, after in pairwise(grown))
