"""Pre-trained language models of the transformers library that read two texts as one sequence.

Shapes: n pairs, L token places (padding included), D features.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fewshot.arguments import Count
from fewshot.backbones.hugging_face import HuggingFaceEncoder
from fewshot.backbones.text import before_end, read_inputs
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

Ends = tuple[list[int], list[int], list[int]]
"""The ids before, between and after two texts."""


class PairEncoder(HuggingFaceEncoder):
    """PairEncoder: a pre-trained language model that reads two texts as one sequence.

    Paper: arXiv:1810.04805.

    The backbone of `BERTPair`. Of single texts it is `HuggingFaceEncoder`.

    Args:
        vocab_size: as there, as are `tokenizer`, `model` and `config`.
        tokenizer: the benchmark's.
        model: the name or the folder.
        pooling: as there; `pooler` suits BERT, whose pre-training has it judge pairs.
        config: what a checkpoint holds.
        single_ends: how many ids the tokenizer sets before and after one text; null asks it. A
            checkpoint holds them.
        pair_ends: the ids that it sets before, between and after two.
    """

    def __init__(
        self,
        vocab_size: Count,
        tokenizer: str | None,
        model: str | None = None,
        pooling: Literal["mean", "cls", "pooler"] = "pooler",
        config: dict[str, Any] | None = None,
        single_ends: list[int] | None = None,
        pair_ends: list[list[int]] | None = None,
    ) -> None:
        super().__init__(vocab_size, tokenizer, model, pooling, config)
        assert tokenizer is not None  # the superclass has seen to it
        if single_ends is None or pair_ends is None:
            known = PretrainedTokenizer(tokenizer)
            single_ends, pair_ends = [len(end) for end in known.ends], list(known.pair_ends)
        self.init_args |= {"single_ends": single_ends, "pair_ends": pair_ends}
        self.single_ends, self.pair_ends = single_ends, pair_ends

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, D) of pairs.

        Inputs: ``tokens`` and ``other_tokens`` (n, L), ``lengths`` and ``other_lengths`` (n,).
        """
        if not isinstance(inputs, dict) or not {"other_tokens", "other_lengths"} <= inputs.keys():
            raise FewshotError(
                "PairEncoder reads pairs of texts, as BERTPair makes them; choose"
                " HuggingFaceEncoder"
            )
        second_texts = {"tokens": inputs["other_tokens"], "lengths": inputs["other_lengths"]}
        tokens, lengths, second = joined(inputs, second_texts, self.single_ends, self.pair_ends)
        most = getattr(self.network.config, "max_position_embeddings", tokens.shape[-1])
        if tokens.shape[-1] > most:
            raise FewshotError(
                f"two texts have {tokens.shape[-1]} pieces, the model takes {most}; set"
                f" data.max_length to {most // 2}"
            )
        mask = before_end(lengths, tokens.shape[-1])
        # which text a piece is of, where the model has learned to be told
        types = (
            {"token_type_ids": second}
            if getattr(self.network.config, "type_vocab_size", 0) > 1
            else {}
        )
        output = self.network.base_model(input_ids=tokens, attention_mask=mask.long(), **types)
        return self._pooled(output, lengths)


def joined(
    first_texts: Inputs,
    second_texts: Inputs,
    single_ends: Sequence[int],
    pair_ends: Sequence[Sequence[int]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of texts as one sequence each, as the tokenizer would make it.

    Args:
        first_texts: their ``tokens`` (n, L), with the ids around them, and ``lengths`` (n,).
        second_texts: theirs.
        single_ends: how many ids stand before and after a text alone.
        pair_ends: the ids before, between and after two texts.

    Returns:
        The ids (n, longest), anything behind a pair's end; lengths (n,); 1 at the second texts'
        places, (n, longest).
    """
    tokens, lengths = read_inputs(first_texts)
    other_tokens, other_lengths = read_inputs(second_texts)
    skipped, width = single_ends[0], tokens.shape[1]
    ends = tokens.new_tensor([i for part in pair_ends for i in part])
    table = torch.cat([ends.expand(len(tokens), -1), tokens, other_tokens], 1)
    first, middle, last = (len(part) for part in pair_ends)
    bare, other_bare = ((size - sum(single_ends)).clamp(min=0) for size in (lengths, other_lengths))
    parts = first, bare, middle, other_bare, last
    sizes = torch.stack([torch.zeros_like(lengths) + size for size in parts], 1)  # (n, 5)
    # the five parts: where each lies in the table, and where it ends in the sequence
    origins = tokens.new_tensor(
        [0, len(ends) + skipped, first, len(ends) + width + skipped, first + middle]
    )
    stops = sizes.cumsum(1)
    places = torch.arange(int(stops[:, -1].max()), device=tokens.device)
    part = (places[:, None] >= stops[:, None, :-1]).sum(-1)  # (n, longest), 0 to 4
    index = places + (origins - stops + sizes).gather(1, part)
    return table.gather(1, index.clamp(max=table.shape[1] - 1)), stops[:, -1], (part >= 3).long()
