"""What Lightning says that nobody who runs something can mend: it is left unsaid."""

import logging
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


def silence_what_users_cannot_mend() -> None:
    """Ignore, for the life of this process, the warnings above, and an advertisement."""
    for message in NOT_THE_USERS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    # lightning recommends a product of its makers at every start
    return "Tip: " not in record.getMessage()
