"""What accuracy is to be expected of a predictor, told from its support, and calibrated probabilities."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import fewshot
from fewshot.cli.main import main
from fewshot.deployment.expected import Expected, hold_out
from fewshot.deployment.predictor import TrainedLearner
from fewshot.deployment.pretrained import pretrained
from fewshot.episodes.types import Examples, Inputs
from fewshot.learners.checkpoints import read_checkpoint
from fewshot.tasks.calibration import temperature_of

Photos = tuple[Path, Path]


def vectors(counts: list[int], seed: int = 0, spread: float = 1.0) -> Examples:
    """Examples of some classes in eight dimensions."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(counts), 8, generator=rng)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), 8, generator=rng)
    return Examples(centres[labels] + spread * noise, labels)


def features() -> fewshot.Pixels:
    network = fewshot.Pixels(8)
    network.pretrained = True
    return network


@pytest.mark.parametrize(
    ("counts", "folds"), [([5, 5], 5), ([7, 12, 9], 5), ([3, 8], 3), ([2, 2], 2)]
)
def test_every_example_is_judged_once_by_learners_that_have_not_seen_it(
    counts: list[int], folds: int
) -> None:
    support = vectors(counts)
    seen: list[set[int]] = []

    def rows(inputs: Inputs) -> set[int]:
        assert isinstance(inputs, Tensor)
        equal = (inputs[:, None] == support.inputs[None]).all(-1)  # type: ignore[index]
        return set(equal.nonzero()[:, 1].tolist())

    def adapt(examples: Examples) -> set[int]:
        assert set(examples.targets.tolist()) == set(range(len(counts)))  # every class, each time
        seen.append(rows(examples.inputs))
        return seen[-1]

    def predict(adapted: set[int], inputs: Inputs) -> Tensor:
        assert not adapted & rows(inputs)
        assert adapted | rows(inputs) == set(range(sum(counts)))
        return torch.tensor([[float(i), 0.0] for i in sorted(rows(inputs))])

    held = hold_out(adapt, predict, support)
    assert len(seen) == held.folds == folds
    assert held.outputs[:, 0].tolist() == list(range(sum(counts)))  # in the support's order
    fewest, most = held.shots
    assert fewest == min(counts) - -(-min(counts) // folds)
    assert most <= max(counts) - max(counts) // folds


def test_the_expectation_is_that_of_cross_validation_written_out() -> None:
    support = vectors([5, 5, 5], spread=1.5)
    predictor = pretrained(features()).adapt(support)
    held = predictor.held_out
    assert held is not None
    right = 0
    assert isinstance(support.inputs, Tensor)
    cosine = torch.nn.functional.cosine_similarity
    generator = torch.Generator().manual_seed(0)
    fold = torch.cat([torch.randperm(5, generator=generator) for _ in range(3)])
    for i in range(15):
        means = [
            support.inputs[(support.targets == c) & (fold != fold[i])].mean(0) for c in range(3)
        ]
        scores = torch.stack([cosine(support.inputs[i], mean, dim=0) for mean in means])
        right += int(scores.argmax() == support.targets[i])
        torch.testing.assert_close(held.outputs[i], 10 * scores)
    assert 8 < right < 15
    assert predictor.expected == Expected(right, 15, 5, (4, 4))
    assert predictor.expected.accuracy == right / 15
    few, many = predictor.expected.interval(10), predictor.expected.interval()
    assert few is not None
    assert many is not None
    assert few[0] <= many[0] < right / 15 < many[1] <= few[1]
    assert predictor.expected.told(10).startswith(
        f"expected accuracy of 10 queries: {100 * right / 15:.1f} % (95 % interval"
    )
    assert "15 examples held out in 5 folds, by learners that saw 4 of each class" in str(
        predictor.expected
    )


def test_probabilities_are_calibrated_on_what_was_held_out() -> None:
    support, query = vectors([8] * 4, spread=1.2), vectors([200] * 4, spread=1.2)
    predictor = pretrained(features()).adapt(support)
    held = predictor.held_out
    assert held is not None
    assert predictor.temperature == temperature_of(held.outputs, held.targets)
    assert isinstance(query.inputs, Tensor)
    logits = predictor.outputs(query.inputs)
    given = predictor(query.inputs).probabilities
    torch.testing.assert_close(given, (logits / predictor.temperature).softmax(-1))
    loss = torch.nn.functional.nll_loss
    assert loss(given.log(), query.targets) < loss(logits.log_softmax(-1), query.targets)
    assert "calibrated on the support's 32 held-out examples" in predictor.calibration


def test_one_shot_says_why_it_cannot() -> None:
    predictor = pretrained(features()).adapt({"a": torch.randn(3, 8), "b": torch.randn(1, 8)})
    assert predictor.expected.accuracy is None
    assert predictor.expected.interval() is None
    assert str(predictor.expected) == (
        "expected accuracy: not known, because the class 'b' has one example, which cannot be"
        " learned from and held out at once; give two or more of each class"
    )
    assert predictor.temperature == 1
    assert predictor.calibration == "probabilities: as the learner gives them, not calibrated"


@pytest.mark.parametrize("learner", ["PrototypicalNetwork", "RFS", "SimpleShot", "MatchingNetwork"])
def test_going_by_features_gives_what_the_learner_gives(learner: str) -> None:
    support, query = vectors([4, 4, 4]), vectors([5, 5, 5])
    arguments = {"transform": "l2"} if learner == "SimpleShot" else {}
    trained = pretrained(features(), learner, learner_args=arguments)
    assert isinstance(query.inputs, Tensor)
    with torch.no_grad():
        expected = trained.module.predict(trained.module.adapt(support), query.inputs)
    torch.testing.assert_close(trained.adapt(support).outputs(query.inputs), expected)


def test_a_learner_that_adapts_its_network_is_held_out_too() -> None:
    task = {"kind": "classification", "way": 3}
    network = fewshot.MLP(in_features=8, hidden=[16])
    learner = TrainedLearner(fewshot.MAML(network, task=task, inner_lr=0.1, inner_steps=3))
    support = vectors([4, 4, 4], spread=0.1)
    predictor = learner.adapt(support)
    assert predictor.support is not None
    torch.testing.assert_close(predictor.support.inputs, support.inputs)  # no features
    held = predictor.held_out
    assert held is not None
    # example 0 by hand: what is adapted to all but its fold
    generator = torch.Generator().manual_seed(0)
    fold = torch.cat([torch.randperm(4, generator=generator) for _ in range(3)])
    seen, assert_close = fold != fold[0], torch.testing.assert_close
    assert isinstance(support.inputs, Tensor)
    adapted = learner.module.adapt(Examples(support.inputs[seen], support.targets[seen]))
    with torch.no_grad():
        expected = learner.module.predict(adapted, support.inputs[:1])
    assert_close(held.outputs[:1], expected.detach())
    assert predictor.expected.held_out == 12
    assert predictor.expected.right == held.right


def test_a_checkpoint_tells_what_its_validation_was(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(photos[1])
    way, shot = content["fewshot"]["validated"]["way"], content["fewshot"]["validated"]["shot"]
    assert (way, shot) == (5, 5)  # what the folder allows
    content["fewshot"]["validated"]["shot"] = 1
    torch.save(content, tmp_path / "one_shot.ckpt")
    learner = fewshot.load(tmp_path / "one_shot.ckpt")
    module = learner.module
    assert module.last_validation is not None
    assert module.softmax_temperature is not None
    classes = sorted((photos[0] / "test").iterdir())[:5]
    for folder in classes:
        (tmp_path / "support" / folder.name).mkdir(parents=True)
        (tmp_path / "support" / folder.name / "0.png").symlink_to(folder / "0.png")
    args = [f"--support={tmp_path / 'support'}", f"--query={classes[0]}"]
    args += [f"--ckpt_path={tmp_path / 'one_shot.ckpt'}", f"--output={tmp_path / 'named.csv'}"]
    assert main(["predict", *args]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    share = f"{100 * module.last_validation['accuracy']:.1f} % on average"
    assert "expected accuracy: not known, because the class" in printed
    assert f"validation episodes of the checkpoint, 5-way 1-shot too, had {share}" in printed
    assert "calibrated on the checkpoint's validation episodes (temperature" in printed
    # of another way it says nothing
    other = learner.adapt({folder.name: [folder / "0.png"] for folder in classes[:3]})
    assert other.expected.elsewhere == ""
    items = learner.reader.query(classes[0])
    predictor = learner.adapt(tmp_path / "support")
    logits = predictor.outputs(learner.inputs(items))
    torch.testing.assert_close(
        predictor(items).probabilities, (logits / module.softmax_temperature).softmax(-1)
    )
    assert main(["predict", *args, "--expect=false"]) == 0
    assert "expected accuracy" not in capsys.readouterr().out
