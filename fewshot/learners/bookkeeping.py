"""What lies on a learner that no episode's maths reads: compiled code does not follow it."""

import lightning as L
from torch import nn

OF_LIGHTNING = tuple(vars(L.LightningModule()).keys() - vars(nn.Module()).keys())
"""Its attributes of every module: the trainer, what is being logged."""

OF_TRAINING = (
    *OF_LIGHTNING,
    *("_hparams", "_hparams_initial", "_hparams_name", "init_args"),  # arguments, as they were
    *("optimizer", "lr_scheduler", "guard", "seed", "weights_file", "as_made", "loaded_step"),
    *("tables", "columns", "estimates", "answers", "_named", "preprocessing"),
    *("softmax_temperature", "last_validation", "calibration"),
    *("made_with_seed", "begins_at", "_began", "_settings", "learning_rate"),
    *("runner", "outer", "_held"),
)
"""What `fewshot.learners.base.MetaLearner` keeps of a run, and how episodes are run."""
