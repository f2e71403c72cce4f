"""The convolutional encoder of relation extraction (Zeng et al. 2014), with FewRel's settings.

Shapes: n sentences, L word places (padding included), E size of a word with its two positions, F
filters.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Vocabulary
from fewshot.backbones.text import TextBackbone, mask_padding, max_over_time, read_inputs
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError


class RelationCNN(TextBackbone):
    """RelationCNN: words with their distances to two entities, a convolution, a maximum.

    Paper: arXiv:1810.10147.

    The encoder of Zeng et al. 2014 ("Relation Classification via Convolutional Deep Neural
    Network", COLING) as FewRel uses it. It reads where the two entities stand; padding never
    changes the features.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size of a word's vector.
        position_dim: size of the vector of a distance to an entity.
        filters: filters, and number of features.
        width: of the filters, in words; odd.
        max_length: distances are told apart up to this one.
        **kwargs: arguments of `TextBackbone`.

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        vocab_size: Vocabulary,
        embedding_dim: Count = 50,
        position_dim: Count = 5,
        filters: Count = 230,
        width: Count = 3,
        max_length: Count = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(vocab_size, embedding_dim, **kwargs)
        if width % 2 == 0:
            raise FewshotError(
                f"width is {width}; set an odd width, so that a word stands in the middle of its"
                " window"
            )
        self.to_head, self.to_tail = (
            nn.Embedding(2 * max_length + 1, position_dim) for _ in range(2)
        )
        self.convolution = nn.Conv1d(
            embedding_dim + 2 * position_dim, filters, width, padding=width // 2
        )
        self.max_length, self.out_features = max_length, filters

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, F) of `inputs`.

        Inputs: ``tokens`` (n, L), ``lengths`` (n,), ``head`` and ``tail`` (n, 2), int64.
        """
        tokens, lengths = read_inputs(inputs)
        head, tail = entities(inputs)
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        parts = [
            self.embedding(tokens),
            *(
                position(
                    (places - span[..., :1]).clamp(-self.max_length, self.max_length)
                    + self.max_length
                )
                for position, span in ((self.to_head, head), (self.to_tail, tail))
            ),
        ]
        words = mask_padding(torch.cat(parts, -1), lengths).transpose(-1, -2)  # n, E, L
        features: Tensor = self.dropout(max_over_time(self.convolution(words), lengths))
        return features


def entities(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The places of each sentence's entities: ``head`` and ``tail`` (n, 2), first and one after.

    Raises:
        FewshotError: the benchmark's texts have none.
    """
    if isinstance(inputs, dict) and {"head", "tail"} <= inputs.keys():
        return inputs["head"], inputs["tail"]
    raise FewshotError(
        "the backbone reads where a sentence's entities stand ('head', 'tail'), which this"
        " benchmark does not say; use FewRel, or another backbone"
    )
