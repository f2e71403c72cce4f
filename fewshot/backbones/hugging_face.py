"""Pre-trained language models of the transformers library as text encoders.

Shapes: n texts, L token places (padding included), D features.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.pretrained import PretrainedBackbone
from fewshot.backbones.text import before_end, mean_over_time, read_inputs
from fewshot.datasets.reading.hub import kept_alone
from fewshot.datasets.reading.packaged import model_location
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.hyperparameters import weights_follow


class HuggingFaceEncoder(PretrainedBackbone):
    """HuggingFaceEncoder: a pre-trained language model, BERT for one, by name or folder.

    Paper: arXiv:1810.04805.

    Needs ``pip install 'fewshot-lightning[text]'``. It reads the ids of its own tokenizer, so set
    the benchmark's `tokenizer` to the model; the backbone follows. Learners that adapt its weights
    run their episodes one by one. A checkpoint holds the model's config and its trained weights:
    loading it needs neither a network nor the folder.

    Args:
        vocab_size: how many ids the benchmark's tokenizer has.
        tokenizer: the benchmark's tokenizer; null is refused, because words' ids mean nothing to
            the model.
        model: the name at https://huggingface.co/models or a folder; null takes that of
            `tokenizer`.
        pooling: `mean` over the text's pieces (arXiv:1908.10084), `cls`: the first piece, or
            `pooler`: that piece through the layer by which BERT's pre-training tells whether one
            sentence follows another.
        config: builds an untrained network from these values of the model's config instead of
            loading it; what a checkpoint holds.
        frozen: let nothing train (see `PretrainedBackbone`).

    Raises:
        FewshotError: the model cannot be loaded, has no pooler, or is not the tokenizer's.
    """

    auto: ClassVar[str] = "AutoModel"
    """The class of transformers that loads the network."""
    begins_at = ("model",)
    loop_only = True
    """Its weights cannot be vmapped over, because transformers looks into the attention mask."""

    def __init__(
        self,
        vocab_size: Count,
        tokenizer: str | None,
        model: str | None = None,
        pooling: Literal["mean", "cls", "pooler"] = "mean",
        config: dict[str, Any] | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if tokenizer is None:
            raise FewshotError(
                f"{type(self).__name__} reads the ids of its own tokenizer; set data.tokenizer to"
                f" {model or 'the model'}"
            )
        self.pretrained = config is None
        self.network, values = load_network(model or tokenizer, config, self.auto)
        self.init_args["config"] = values
        known: int = self.network.config.vocab_size
        if vocab_size > known:
            raise FewshotError(
                f"the tokenizer {tokenizer} has {vocab_size} ids, the model {model or tokenizer}"
                f" knows {known}; give both the same name"
            )
        pooler = getattr(self.network.base_model, "pooler", None)
        if pooling == "pooler" and pooler is None:
            raise FewshotError(f"the model {model or tokenizer} has no pooler; set pooling to cls")
        if pooling != "pooler" and pooler is not None:
            # unused here; a distributed run would wait for its gradients
            self.network.base_model.pooler = None
        self.pooling = pooling
        self.out_features = int(self.network.config.hidden_size)
        if frozen:
            self.freeze()

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, D) of `inputs`: ``tokens`` (n, L) and ``lengths`` (n,), int64."""
        tokens, lengths, mask = self._read(inputs)
        return self._pooled(self.network.base_model(input_ids=tokens, attention_mask=mask), lengths)

    def _pooled(self, output: Any, lengths: Tensor) -> Tensor:
        """Features (n, D) of what the network gives for texts of `lengths` (n,)."""
        if self.pooling == "pooler":
            pooled: Tensor = output.pooler_output
            return pooled
        states: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return states[..., 0, :]
        return mean_over_time(states, lengths)

    def _read(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Ids (n, L), lengths (n,) and the attention mask (n, L)."""
        tokens, lengths = read_inputs(inputs)
        most = getattr(self.network.config, "max_position_embeddings", tokens.shape[-1])
        if tokens.shape[-1] > most:
            raise FewshotError(
                f"a text has {tokens.shape[-1]} pieces, the model takes {most}; set data.max_length"
            )
        return tokens, lengths, before_end(lengths.clamp(min=1), tokens.shape[-1]).long()


def load_network(
    name: str, config: dict[str, Any] | None, auto: str = "AutoModel"
) -> tuple[Any, dict[str, Any]]:
    """The network in float32 and in training mode, and its config as plain values.

    Args:
        name: the model's name or folder.
        config: None loads the model; else it is built from these values, untrained.
        auto: the class of transformers that makes it.

    Raises:
        FewshotError: it cannot be loaded, or it does not encode texts.
    """
    network = load_transformer(name, config, auto)
    settings = network.config
    if settings.is_encoder_decoder or not hasattr(settings, "hidden_size"):
        raise FewshotError(
            f"the model {name!r} is no text encoder; choose one such as bert-base-uncased"
        )
    return network, settings.to_dict()


def load_transformer(
    name: str,
    config: dict[str, Any] | None,
    auto: str = "AutoModel",
    extra: str = "text",
    holds: str = "its config.json, tokenizer.json and model.safetensors",
) -> Any:
    """The network in float32 and in training mode; without its weights where a checkpoint's follow.

    Args:
        name: the model's name or folder.
        config: None loads the model; else it is built from these values, untrained.
        auto: the class of transformers that makes it.
        extra: what installs transformers.
        holds: what a folder must hold.

    Raises:
        FewshotError: it cannot be loaded.
    """
    transformers = require("transformers", extra)
    place = model_location(name) if config is None else ""
    alone = config is None and kept_alone(place)
    try:
        if config is None:
            settings = transformers.AutoConfig.from_pretrained(place, local_files_only=alone)
        else:
            settings = transformers.AutoConfig.for_model(**config)
        if config is None and not weights_follow():
            with _quiet(transformers.utils.logging, os.path.isdir(place)):
                network: nn.Module = getattr(transformers, auto).from_pretrained(
                    place, local_files_only=alone
                )
        else:
            network = getattr(transformers, auto).from_config(settings, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FewshotError(
            f"the model {name!r} cannot be loaded ({str(error).splitlines()[0]}); give a folder"
            f" that holds {holds}, or a name of https://huggingface.co/models"
        ) from error
    return network.float().train()


@contextmanager
def _quiet(logging: Any, quiet: bool) -> Iterator[None]:
    """Inside, transformers draws no bar for what lies on the disk: it takes a moment."""
    if not quiet or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
