"""TF-IDF: the features of a text without anything learned.

The baseline that a text encoder must beat.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Count, Natural
from fewshot.backbones.base import Backbone
from fewshot.backbones.text import read_inputs
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

SPECIAL = 2  # ids that are no term: padding and the unknown


def inverse_document_frequencies(document_frequencies: Sequence[int], documents: int) -> Tensor:
    """The smoothed idf ln((1 + n) / (1 + df)) + 1 of each id, (V,) float64.

    0 for padding and for the unknown.

    Terms that are unknown have nothing in common, so as one term that texts share they would
    mislead.

    Args:
        document_frequencies: df, in how many texts each of the V ids occurs.
        documents: n, how many texts there are.

    Raises:
        FewshotError: there are no ids, or a frequency is not in 0..n.
    """
    df = torch.tensor(document_frequencies, dtype=torch.float64)
    if len(df) < SPECIAL:
        raise FewshotError(
            f"document_frequencies has {len(df)} ids; give one for each of vocab_size, 2 at least"
        )
    if not 0 <= df.min() <= df.max() <= documents:
        raise FewshotError(
            f"document_frequencies are {int(df.min())} to {int(df.max())} of {documents} documents;"
            " they must be between 0 and documents"
        )
    idf = torch.log((1 + documents) / (1 + df)) + 1
    idf[:SPECIAL] = 0
    return idf


class TfIdf(Backbone):
    """TF-IDF: each term's frequency in a text, times its inverse document frequency, unit norm.

    Nothing is learned: a `PrototypicalNetwork` with ``distance: cosine`` on it is the TF-IDF
    nearest centroid, and needs no training (``fewshot test``). Unknown terms do not count. Paper:
    Salton & Buckley 1988.

    Args:
        vocab_size: how many ids there are, padding (0) and unknown (1) included.
        document_frequencies: in how many training texts each id occurs.
        documents: how many training texts there are.

    Raises:
        FewshotError: the document frequencies do not fit.
    """

    def __init__(
        self, vocab_size: Count, document_frequencies: list[int], documents: Natural
    ) -> None:
        super().__init__()
        check_frequencies(vocab_size, document_frequencies)
        self.out_features = vocab_size
        self.idf: Tensor
        self.register_buffer(
            "idf", inverse_document_frequencies(document_frequencies, documents).float()
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, vocab_size) of `inputs`: ``tokens`` (n, L), int64, 0 past the text's end."""
        tokens, _ = read_inputs(inputs)
        counts = self.idf.new_zeros(*tokens.shape[:-1], self.out_features)
        return F.normalize(counts.scatter_add(-1, tokens, self.idf[tokens]), dim=-1)


def check_frequencies(vocab_size: int, document_frequencies: Sequence[int]) -> None:
    """Check that each id has a document frequency.

    Raises:
        FewshotError: it has not.
    """
    if len(document_frequencies) != vocab_size:
        raise FewshotError(
            f"document_frequencies has {len(document_frequencies)} ids, vocab_size is {vocab_size};"
            " take both from the benchmark"
        )
