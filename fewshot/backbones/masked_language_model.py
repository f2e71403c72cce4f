"""Masked language models of the transformers library: encoders that can say what a mask hides.

Shapes: n texts, L token places (padding included), M masks.
"""

from torch import Tensor, nn

from fewshot.backbones.hugging_face import HuggingFaceEncoder
from fewshot.episodes.types import Inputs


class MaskedLanguageModel(HuggingFaceEncoder):
    """MaskedLanguageModel: a pre-trained language model that also says what a mask hides.

    Paper: arXiv:1810.04805.

    As an encoder it is `HuggingFaceEncoder`.
    """

    auto = "AutoModelForMaskedLM"

    def vocabulary_logits(self, inputs: Inputs, places: Tensor) -> Tensor:
        """Logits (n, M, pieces) at `places` (n, M) of ``tokens`` (n, L) with ``lengths`` (n,)."""
        tokens, _, mask = self._read(inputs)
        index = places.unsqueeze(-1)

        # the last layer, by far the largest, sees the places asked for alone
        def pick(_: nn.Module, states: tuple[Tensor, ...]) -> Tensor:
            return states[0].gather(1, index.expand(-1, -1, states[0].shape[-1]))

        with self.network.get_output_embeddings().register_forward_pre_hook(pick):
            logits: Tensor = self.network(input_ids=tokens, attention_mask=mask).logits
        return logits
