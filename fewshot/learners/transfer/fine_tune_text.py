"""Fine-tuning of a language model with a classification head (Devlin et al., arXiv:1810.04805)."""

from torch import Tensor

from fewshot.episodes.types import Examples, Inputs
from fewshot.learners.transfer.language import LanguageLearner, TextClassifier, picked, views


class FineTuneText(LanguageLearner):
    """FineTuneText: a language model with a linear head, trained whole on the labelled texts.

    Paper: arXiv:1810.04805.

    The baseline that PET is compared with: it reads the texts without a pattern, and no unlabelled
    ones.
    """

    def learn(self, support: Examples) -> TextClassifier:
        """The trained classifier."""
        known = support.targets >= 0
        return self.classifier(
            picked(views(support.inputs), known), support.targets[known], self.steps
        )

    def predict(self, adapted: TextClassifier, inputs: Inputs) -> Tensor:
        """Logits (n, C) of inputs (n, V, ...)."""
        return self.in_parts(adapted, adapted, inputs)
