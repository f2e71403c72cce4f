"""Random numbers that are functions of an episode's content."""

import torch

from fewshot.engine.randomness import normal, orders, reordered, seed_generators


def test_the_order_is_random_and_a_function_of_the_inputs() -> None:
    inputs = torch.randn(50, 6, 3)
    order = orders(inputs)
    assert torch.equal(order.sort(1).values, torch.arange(6).expand(50, -1))
    assert len({tuple(row) for row in order.tolist()}) > 40
    assert torch.equal(orders(inputs[7:9]), order[7:9])
    assert torch.equal(reordered(inputs, order)[3], inputs[3][order[3]])
    text = {"tokens": torch.randint(9, (4, 6, 5)), "lengths": torch.ones(4, 6, dtype=torch.int64)}
    assert torch.equal(orders(text), orders(dict(reversed(text.items()))))
    longer = {**text, "lengths": 2 * text["lengths"]}
    assert not torch.equal(orders(text), orders(longer))


def test_each_pass_has_an_order_of_its_own() -> None:
    inputs = torch.randn(20, 6, 3)
    order = orders(inputs, passes=3)
    assert torch.equal(order[:, :6], orders(inputs))
    assert torch.equal(order.view(20, 3, 6).sort(-1).values, torch.arange(6).expand(20, 3, -1))
    assert len({tuple(row) for row in order.view(60, 6).tolist()}) > 40


def test_normal_values_are_those_of_the_episode() -> None:
    inputs = torch.randn(300, 4, 2)
    values = normal(inputs, 50, torch.zeros((), dtype=torch.float64))
    assert values.shape == (300, 50)
    assert torch.equal(normal(inputs[3:5], 50, values), values[3:5])
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - 1) < 0.02
    assert values.corrcoef().fill_diagonal_(0).abs().max() < 0.7, "episodes have nothing in common"
    assert normal(inputs, 2, torch.zeros((), dtype=torch.float32)).dtype == torch.float32


def test_the_device_that_is_used_draws_as_torch_seeds_it() -> None:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    for seed in (3, 2**62):
        draws = []
        for seed_it in (torch.manual_seed, lambda seed: seed_generators(device, seed)):
            seed_it(seed)
            draws.append((torch.rand(5), torch.rand(5, device=device)))
        for one, other in zip(*draws, strict=True):
            assert torch.equal(one, other)
