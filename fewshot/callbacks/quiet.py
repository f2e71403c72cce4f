"""What Lightning says that nobody who runs something can mend: it is left unsaid."""

import logging
import re
import warnings

NOT_THE_USERS = (
    r"LightningCLI's args parameter is intended",  # `run(args)` is how tests and notebooks call it
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # lightning 2.6 on torch >= 2.9
    # how lightning calls jsonargparse
    r"\s*(By default only one Jsonargparse|\S+ (parameter )?was deprecated in v4\.)",
    # short epochs are common here
    r"The number of training batches .* is smaller than the logging interval",
    r"The dirpath has changed from",  # a checkpoint may be tested or resumed from any folder
    r"Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its own
    # the best is that of the first, which is ours or what the user has put in its place
    r"`\.\w+\(ckpt_path=\"best\"\)` is called with Trainer configured with multiple",
    r"Be aware that when using `ckpt_path`, callbacks",  # weights are evaluated without them
    r"Experiment logs directory .* exists and is not empty",  # what would be deleted is moved aside
)
"""Warnings about things that the user cannot mend."""


SAID_ELSEWHERE = re.compile(
    r".*Tip: "  # lightning recommends a product of its makers at every start
    # the summary says what a run is on, results.json the seed and the checkpoint
    r"|Seed set to |(GPU|TPU|HPU) available: |LOCAL_RANK: |Trainer already configured with model"
    r"|`Trainer\.fit` stopped: `max_(epochs|steps)=\d+` reached"  # as it was told
    r"|Restoring states from the checkpoint",  # a later line says what was read
    re.DOTALL,
)
"""How notes begin that are in vain. Which checkpoint was read stays said."""
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")


def silence_what_users_cannot_mend() -> None:
    """Ignore, for the life of this process, the warnings and notes above."""
    for message in NOT_THE_USERS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not SAID_ELSEWHERE.match(record.getMessage())
