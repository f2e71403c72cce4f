"""CNAPs and Simple CNAPs against their formulas written out, in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fit, results
from slopes import assert_slope
from torch import Tensor, nn

from fewshot.backbones import MLP, WRN28_10, Conv4, ResNet12, TorchvisionBackbone
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners import CNAPs, SimpleCNAPs
from fewshot.learners.model_based.cnaps import ConditionalLearner
from fewshot.learners.model_based.film import modulated_norms
from fewshot.learners.model_based.simple_cnaps import class_covariances

TASK = {"kind": "classification", "way": None}
SHOTS = (1, 4, 2)


def examples(shots: tuple[int, ...], seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    return Examples(
        torch.rand(len(labels), 1, 16, 16, dtype=torch.float64, generator=generator), labels
    )


SUPPORT, QUERY = examples(SHOTS, 0), examples((2, 2, 2), 1)
EPISODE = Episode(*(Examples(part.inputs[None], part.targets[None]) for part in (SUPPORT, QUERY)))  # type: ignore[index]


def made(
    learner: type[ConditionalLearner], backbone: nn.Module | None = None, **arguments: Any
) -> ConditionalLearner:
    torch.manual_seed(0)
    network = (backbone or Conv4(1, 16, width=4)).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0  # running averages as of a trained network: those of the images
    network.train()(torch.rand(20, 1, 16, 16, dtype=torch.float64))
    made = learner(network, task=TASK, **arguments).double().eval()
    with torch.no_grad():
        for size in made.generator.regularisers:
            size.copy_(0.5 * torch.randn_like(size))  # a modulation that is plain to see
    return made


def modulated_by_hand(learner: ConditionalLearner, images: Tensor) -> Tensor:
    """Features with (1 + gamma) * norm + beta after each normalisation, by hooks on the network."""
    encoded = learner.encoder(SUPPORT.inputs).mean(0)
    hooks = []
    modules = dict(learner.backbone.named_modules())
    parts = zip(
        learner.generator.norms,
        learner.generator.perceptrons,
        learner.generator.regularisers,
        strict=True,
    )
    for norm, perceptron, size in parts:
        hidden = encoded
        assert isinstance(perceptron, nn.Sequential)
        for layer in perceptron:
            hidden = layer(hidden)
        gamma, beta = (hidden * size)[: norm.channels], (hidden * size)[norm.channels :]
        shape = (1, -1, 1, 1)

        def hook(
            module: Any, inputs: Any, out: Tensor, g: Tensor = gamma, b: Tensor = beta
        ) -> Tensor:
            return (1 + g.view(shape)) * out + b.view(shape)  # noqa: B023  # the same always

        hooks.append(modules[norm.name].register_forward_hook(hook))
    features: Tensor = learner.backbone(images)
    for handle in hooks:
        handle.remove()
    return features


def unmodulated(learner: ConditionalLearner) -> Tensor:
    """The logits of the classifier on the backbone as it was trained."""
    classifier = learner.fit(learner.embed(SUPPORT.inputs), SUPPORT.targets, 3)
    return learner.compare(classifier, learner.embed(QUERY.inputs))


@pytest.mark.parametrize("learner", [CNAPs, SimpleCNAPs])
def test_the_network_is_modulated_channel_by_channel(learner: type[ConditionalLearner]) -> None:
    network = made(learner)
    fitted = network.adapt(SUPPORT)
    logits = network.predict(fitted, QUERY.inputs)
    with torch.no_grad():
        expected = network.compare(
            network.fit(modulated_by_hand(network, SUPPORT.inputs), SUPPORT.targets, 3),  # type: ignore[arg-type]
            modulated_by_hand(network, QUERY.inputs),  # type: ignore[arg-type]
        )
        plain = unmodulated(network)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    assert (logits - plain).abs().max() > 1e-3


def basic_block(block: nn.Module, maps: Tensor, films: list[tuple[Tensor, Tensor]]) -> Tensor:
    """A block of the authors' ResNet: FiLM after both of its norms, none beside them."""
    out = maps
    for convolution, norm, (gamma, beta) in zip(
        (block.conv1, block.conv2), (block.bn1, block.bn2), films, strict=True
    ):
        out = out if convolution is block.conv1 else out.relu()
        out = norm(convolution(out))  # type: ignore[operator]
        out = (1 + gamma)[None, :, None, None] * out + beta[None, :, None, None]
    beside = maps if block.downsample is None else block.downsample(maps)  # type: ignore[operator]
    added: Tensor = out + beside
    return added.relu()


def test_inside_blocks_it_is_the_authors_network() -> None:
    learner = made(CNAPs, TorchvisionBackbone(1, 16, "resnet18"), film_in="blocks")
    net: Any = learner.backbone.network
    encoded = learner.encoder(SUPPORT.inputs).mean(0)
    films = iter(learner.generator(encoded).values())
    seen: list[Tensor] = []  # the images as the network gets them, of three channels
    hook = net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        plain = learner.embed(QUERY.inputs)
        hook.remove()
        maps = net.maxpool(net.bn1(net.conv1(seen[0])).relu())
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in layer:
                maps = basic_block(block, maps, [next(films), next(films)])
        assert next(films, None) is None
        film = learner.adapt(SUPPORT).film
        found = learner.features_of(film, QUERY.inputs)
    torch.testing.assert_close(found, maps.mean((2, 3)), rtol=1e-9, atol=1e-9)
    assert len(learner.generator.norms) == 16
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (lambda: WRN28_10(1, 16, depth=10, width=1), ["norm1", "norm2"] * 3),
        (lambda: ResNet12(1, 16, widths=(2, 2, 2, 2)), ["1", "4", "7"] * 4),
    ],
    ids=["WRN28_10", "ResNet12"],
)
def test_inside_the_blocks_of_our_networks(network: Any, names: list[str]) -> None:
    found = modulated_norms(network(), "blocks")
    assert [norm.name.split(".")[-1] for norm in found] == names


def test_film_in_what_is_not_there_is_refused() -> None:
    with pytest.raises(FewshotError, match="Conv4 has no residual blocks with batch normalisation"):
        CNAPs(Conv4(1, 16, width=4), task=TASK, film_in="blocks")
    with pytest.raises(FewshotError, match="film_in is 'stem'; give all or blocks"):
        CNAPs(Conv4(1, 16, width=4), task=TASK, film_in="stem")


def test_mahalanobis_distances_written_out() -> None:
    network = made(SimpleCNAPs)
    rng = np.random.default_rng(0)
    features, queries = (
        rng.normal(size=(7, network.features)),
        rng.normal(size=(5, network.features)),
    )
    labels = SUPPORT.targets.numpy()
    of_task = np.cov(features.T)
    expected = np.zeros((5, 3))
    for k in range(3):
        own = features[labels == k]
        n = len(own)
        of_class = np.cov(own.T) if n > 1 else np.zeros_like(of_task)
        q = n / (n + 1) * of_class + (1 - n / (n + 1)) * of_task + np.eye(network.features)
        for i, query in enumerate(queries):
            difference = query - own.mean(0)
            expected[i, k] = -0.5 * difference @ np.linalg.inv(q) @ difference
        found = class_covariances(torch.from_numpy(features), SUPPORT.targets, 3)[k]
        np.testing.assert_allclose(found.numpy(), q, rtol=1e-12, atol=1e-12)
    predictor = network.fit(torch.from_numpy(features), SUPPORT.targets, 3)
    found = network.compare(predictor, torch.from_numpy(queries))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_a_single_example_of_each_class() -> None:
    network = made(SimpleCNAPs)
    support = examples((1, 1), 3)
    features = network.embed(support.inputs)
    # one example a class: nothing is known but the spread of the task, of which half is taken
    around = features - features.mean(0)
    expected = 0.5 * around.T @ around + torch.eye(network.features)
    found = class_covariances(features, support.targets, 2)
    torch.testing.assert_close(found, expected.expand(2, -1, -1), rtol=1e-12, atol=1e-12)
    assert torch.isfinite(network.predict(network.adapt(examples((1,) * 5, 4)), QUERY.inputs)).all()


def test_the_generated_classifier_written_out() -> None:
    network = made(CNAPs)
    assert isinstance(network, CNAPs)
    features = network.embed(SUPPORT.inputs)
    weight, bias = network.fit(features, SUPPORT.targets, 3)
    for k in range(3):
        mean = features[SUPPORT.targets == k].mean(0)
        hidden, out = mean, mean
        for layers, of in ((network.weight, "w"), (network.bias, "b")):
            hidden = mean
            for layer in (layers[0], layers[2]):
                # linear layers
                hidden = layer.weight @ hidden + layer.bias  # type: ignore[operator]
                hidden = torch.where(hidden > 0, hidden, hidden.exp() - 1)
            out = layers[4].weight @ hidden + layers[4].bias  # type: ignore[operator]
            if of == "w":
                torch.testing.assert_close(weight[k], out + mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(bias[k], out[0], rtol=1e-12, atol=1e-12)
    queries = network.embed(QUERY.inputs)
    expected = torch.stack([queries @ weight[k] + bias[k] for k in range(3)], 1)
    torch.testing.assert_close(
        network.compare((weight, bias), queries), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("learner", [CNAPs, SimpleCNAPs])
def test_permutations(learner: type[ConditionalLearner]) -> None:
    network = made(learner)
    logits = network.predict(network.adapt(SUPPORT), QUERY.inputs)
    order = torch.randperm(7)
    shuffled = Examples(SUPPORT.inputs[order], SUPPORT.targets[order])  # type: ignore[index]
    torch.testing.assert_close(
        network.predict(network.adapt(shuffled), QUERY.inputs), logits, rtol=1e-9, atol=1e-9
    )
    names = torch.tensor([2, 0, 1])
    renamed = Examples(SUPPORT.inputs, names[SUPPORT.targets])
    permuted = network.predict(network.adapt(renamed), QUERY.inputs)
    torch.testing.assert_close(permuted[:, names], logits, rtol=1e-9, atol=1e-9)
    alone = network.predict(network.adapt(SUPPORT), QUERY.inputs[:1])  # type: ignore[index]
    torch.testing.assert_close(alone, logits[:1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("learner", [CNAPs, SimpleCNAPs])
def test_the_gradient_and_what_it_leaves_alone(learner: type[ConditionalLearner]) -> None:
    network = made(learner, penalty=0.1).train()
    assert network.encoder.training
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}

    def loss() -> Tensor:
        (outcome,) = network.run(EPISODE, training=True)
        return outcome.loss.sum()

    torch.autograd.backward(loss())
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.split(".")[0] != "backbone" for name in trained)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
    assert_slope(
        loss, [p for p in network.parameters() if p.requires_grad], 1e-8
    )  # smaller than the way to the next kink
    assert all(
        torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items()
    )
    # the penalty is for training alone
    (outcome,) = network.eval().run(EPISODE, training=False)
    (penalised,) = network.run(EPISODE, training=True)
    squares = sum(size.square().sum() for size in network.generator.regularisers)
    torch.testing.assert_close(
        penalised.loss - outcome.loss, 0.1 * squares[None], rtol=1e-8, atol=1e-8
    )


def test_it_starts_as_the_network_was_trained() -> None:
    torch.manual_seed(0)
    network = SimpleCNAPs(Conv4(1, 16, width=4), task=TASK).double().eval()
    plain = unmodulated(network)
    torch.testing.assert_close(
        network.predict(network.adapt(SUPPORT), QUERY.inputs), plain, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [
        (lambda: TorchvisionBackbone(1, 16, "resnet18"), 20),
        (lambda: ResNet12(1, 16, widths=(4, 4, 4, 8)), 16),
        (lambda: Conv4(1, 16, width=4), 4),
        (lambda: MLP(256, norm="batch"), None),
    ],
)
def test_any_backbone_with_batch_normalisation(backbone: Any, norms: int | None) -> None:
    network = backbone()
    found = modulated_norms(network)
    assert norms is None or len(found) == norms
    encoder = Conv4(1, 16, width=4, output="mean")
    learner = made(SimpleCNAPs, network, encoder=encoder)
    assert learner.evaluate(EPISODE).outputs.shape == (1, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backbone": Conv4(1, 16, width=8, norm="group")},
            "Conv4 has no batch normalisation to scale and shift",
        ),
        ({"batchnorm": "transductive"}, "set batchnorm: inductive"),
        ({"penalty": -1.0}, r"penalty is -1.0; set penalty >= 0"),
        (
            {"task": {"kind": "regression"}},
            "SimpleCNAPs is made for classification, but the benchmark's task is regression",
        ),
        ({"backbone": MLP(256, norm="batch")}, "MLP is no network on images; give an encoder"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        SimpleCNAPs(**{"backbone": Conv4(1, 16), "task": TASK, **arguments})


@pytest.mark.parametrize("learner", ["CNAPs", "SimpleCNAPs"])
def test_it_takes_the_network_of_another_run(learner: str, tmp_path: Path) -> None:
    data = (
        "--data=GlyphsDataModule",
        "--data.queries=2",
        "--data.ways=[2,4]",
        "--data.shots=[1,3]",
    )
    network = ("--model.backbone=Conv4", "--model.backbone.width=4")
    first = fit(tmp_path, "--model=PrototypicalNetwork", *network, *data)
    weights = first / "checkpoints/best.ckpt"
    run = fit(tmp_path, f"--model={learner}", *network, *data, f"--model.weights={weights}")
    assert results(run)["learner"] == learner
    held = torch.load(weights, weights_only=True)["state_dict"]
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    names = [name for name in held if name.startswith("backbone.")]
    assert names
    assert all(torch.equal(held[name], kept[name]) for name in names)
    loaded = getattr(__import__("fewshot"), learner).load_from_checkpoint(
        run / "checkpoints/last.ckpt"
    )
    assert isinstance(loaded, ConditionalLearner)
