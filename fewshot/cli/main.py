"""The command line: LightningCLI over the classes of this package.

Importing a class is registering it.
"""

import argparse
import logging
import os
import pydoc
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

import fewshot  # registers every benchmark, learner and backbone by importing them
from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint, newest_checkpoint
from fewshot.callbacks.curves import AdaptationCurve
from fewshot.callbacks.interruption import Interruption
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.callbacks.predictions import PredictionWriter
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.callbacks.results import ResultsWriter
from fewshot.callbacks.sources import SourceCurves
from fewshot.callbacks.throughput import Throughput
from fewshot.cli.export import export
from fewshot.cli.list import list_classes
from fewshot.cli.messages import check_configs, one_line
from fewshot.cli.predict import on_benchmark, predict
from fewshot.cli.prepare import prepare
from fewshot.cli.rank import rank
from fewshot.cli.summary import summary
from fewshot.datamodules import EpisodicDataModule
from fewshot.engine.allocation import keep_freed_memory
from fewshot.errors import FewshotError
from fewshot.hyperparameters import without_weights
from fewshot.learners import MetaLearner
from fewshot.learners.checkpoint_checks import check_learner
from fewshot.learners.checkpoints import read_checkpoint

LINKS = {
    "task": "model.init_args.task",
    "train_classes": "model.init_args.train_classes",
    "in_channels": "model.init_args.backbone.init_args.in_channels",
    "image_size": "model.init_args.backbone.init_args.image_size",
    "in_features": "model.init_args.backbone.init_args.in_features",
    "vocab_size": "model.init_args.backbone.init_args.vocab_size",
    "tokenizer": "model.init_args.backbone.init_args.tokenizer",
    "document_frequencies": "model.init_args.backbone.init_args.document_frequencies",
    "vectors": "model.init_args.backbone.init_args.vectors",
    "vocabulary": "model.init_args.backbone.init_args.vocabulary",
    "documents": "model.init_args.backbone.init_args.documents",
    "shot": "model.init_args.shot",
    "length_scale": "model.init_args.length_scale",
    "variance": "model.init_args.variance",
    "noise": "model.init_args.noise",
    "entities": "model.init_args.backbone.init_args.entities",
    "dimensions": "model.init_args.backbone.init_args.dimensions",
    "entity_vectors": "model.init_args.backbone.init_args.entity_vectors",
    "tail_counts": "model.init_args.tail_counts",
    "relations": "model.init_args.backbone.init_args.relations",
    "neighbours": "model.init_args.backbone.init_args.neighbours",
    "edges": "model.init_args.backbone.init_args.edges",
}
"""Facts of the benchmark and the arguments they fill, where the benchmark and class have them."""
COSTLY = ("train_classes", "dimensions", "entity_vectors", "tail_counts", "neighbours", "edges")
"""Those asked for only where a class needs them: to know them, data must be read or learned."""


OPTIONAL = ("vectors", "vocabulary")
"""Facts that what asks for them can do without."""

NOT_THE_USERS = (
    r"LightningCLI's args parameter is intended",  # `run(args)` is how tests and notebooks call it
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # lightning 2.6 on torch >= 2.9
    # how lightning calls jsonargparse
    r"\s*(By default only one Jsonargparse|\S+ (parameter )?was deprecated in v4\.)",
    # short epochs are common here
    r"The number of training batches .* is smaller than the logging interval",
    r"The dirpath has changed from",  # a checkpoint may be tested or resumed from any folder
    r"Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its own
)
"""Warnings about things that the user cannot mend."""

LIGHTNINGS_OWN = ("hpc", "registry")
"""What `--ckpt_path` may say instead of a file, besides `best` and `last`."""


class FewshotCLI(LightningCLI):
    """LightningCLI with the benchmark's facts linked to the learner and its backbone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = kwargs.get("args")
        self._first = next(iter(sys.argv[1:] if given is None else given), None)
        super().__init__(*args, **kwargs)

    # static in LightningCLI
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is asked for, if any is: to make the parser of each takes half a second."""
        every = LightningCLI.subcommands()
        return {self._first: every[self._first]} if self._first in every else every

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Add what only some subcommands have."""
        super().setup_parser(*args, **kwargs)
        for subcommand in self.subcommands():
            # the others take it without a word, so that the config.yaml of a fit is a config for
            # them too
            shown = (
                "Test the best checkpoint when training is done."
                if subcommand == "fit"
                else argparse.SUPPRESS
            )
            self._parser(subcommand).add_argument(
                "--test_after_fit", type=bool, default=True, help=shown
            )
            # a checkpoint holds plain values alone
            self._parser(subcommand).set_defaults(weights_only=True)
        if "test" in self.subcommands():
            self._parser("test").set_defaults(verbose=False)  # `ResultsWriter` prints the table

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the benchmark's facts; ask when to write the last checkpoint."""
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        for fact, target in LINKS.items():
            if fact in COSTLY:
                if_asked = partial(self._if_asked, fact)
                if_asked.__name__ = fact  # type: ignore[attr-defined]  # how `--help` names it
                parser.link_arguments("data", target, if_asked, apply_on="instantiate")
            else:
                parser.link_arguments(f"data.{fact}", target, apply_on="instantiate")

    def _if_asked(self, fact: str, data: EpisodicDataModule) -> Any:
        """The costly `fact`, for classes that ask for it; None for others."""
        asked = LINKS[fact] in self.config[str(self.subcommand)]
        return getattr(data, fact, None) if asked else None

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; and once more without defaults, which tells what the user wrote by hand."""
        super().parse_arguments(parser, args)
        self.given: Namespace = parser.parse_args(args, defaults=False)

    def before_instantiate_classes(self) -> None:
        """Check what can be checked before anything is built.

        Keep what the user wrote where a link fills it in.
        """
        config, given = self.config[str(self.subcommand)], self.given[str(self.subcommand)]
        self.by_hand = {
            fact: given[key] for fact, key in LINKS.items() if given.get(key) is not None
        }
        benchmark = pydoc.locate(config["data.class_path"])
        assert isinstance(benchmark, type)
        for fact, key in LINKS.items():
            if (
                key in config
                and config[key] is None
                and fact not in OPTIONAL
                and not _states(benchmark, fact)
            ):
                owner = key.partition(".init_args." + fact)[0]
                needy = config[owner + ".class_path"].rpartition(".")[2]
                remedy = (
                    "another learner, or a benchmark with classes"
                    if owner == "model"
                    else "a backbone that fits"
                )
                raise FewshotError(
                    f"{needy} needs {fact}, which {benchmark.__name__} does not have; choose"
                    f" {remedy}"
                )
        if not config.get("weights_only", True):
            raise FewshotError(
                "weights_only is false, but a checkpoint holds plain values alone; leave it out"
            )
        self.checkpoint = self._named_checkpoint()
        if (
            self.checkpoint
            and self.checkpoint not in LIGHTNINGS_OWN
            and "://" not in self.checkpoint
        ):
            check_learner(
                read_checkpoint(self.checkpoint), config["model.class_path"].rpartition(".")[2]
            )

    def _named_checkpoint(self) -> str | None:
        """The file `--ckpt_path` means: of `best`, `last`, the newest below the Trainer's root."""
        config = self.config[str(self.subcommand)]
        asked = config.get("ckpt_path")
        if asked not in ("best", "last"):
            return None if asked is None else str(asked)
        root = config["trainer"]["default_root_dir"] or os.getcwd()
        found = newest_checkpoint(root, asked)
        if found is None and self.subcommand == "fit" and asked == "last":
            # so that the same command begins a run and goes on with it
            rank_zero_info(f"there is no last.ckpt below {root} yet: training begins")
            return None
        if found is None:
            raise FewshotError(
                f"ckpt_path is {asked!r}, but no run below {root} has a {asked}.ckpt; give its path"
            )
        return str(found)

    def instantiate_classes(self) -> None:
        """Build the classes.

        Without pre-trained weights, where those of a checkpoint file take their place.
        """
        with nullcontext() if self.checkpoint in (None, *LIGHTNINGS_OWN) else without_weights():
            super().instantiate_classes()

    def after_instantiate_classes(self) -> None:
        """Refuse a value by hand that contradicts the benchmark."""
        for fact, value in self.by_hand.items():
            if hasattr(self.datamodule, fact) and value != (
                linked := getattr(self.datamodule, fact)
            ):
                key = LINKS[fact].replace("init_args.", "")
                raise FewshotError(
                    f"{key} is {value} but {type(self.datamodule).__name__} has {fact} {linked};"
                    f" leave {key} out, it follows the benchmark"
                )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks of every run, except those that the Trainer's own flags turn off."""
        config = self.config[self.subcommand]["trainer"]
        callbacks: list[Callback] = [
            *(
                EpisodePicture(),
                AdaptationCurve(),
                PredictionWriter(),
                ResultsWriter(),
                SourceCurves(),
                Throughput(),
            ),
            Interruption(),
        ]
        if config["enable_checkpointing"] is not False:
            callbacks.append(BestCheckpoint())
        if config["enable_progress_bar"] is not False:
            callbacks.append(EpisodeProgressBar())
        self.trainer_defaults["callbacks"] = callbacks
        if self.checkpoint and self._goes_on() and config["logger"] in (None, True):
            run = Path(self.checkpoint).parents[1]
            if run.parent.name == "lightning_logs":
                kwargs["logger"] = TensorBoardLogger(run.parent.parent, version=run.name)
        return super().instantiate_trainer(**kwargs)

    def _goes_on(self) -> bool:
        """Whether an earlier run goes on in its folder, not a new one from a checkpoint."""
        return bool(self.subcommand == "fit" and self.config["fit"].get("ckpt_path") == "last")

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        if config["enable_checkpointing"] is False:
            callbacks = [
                callback for callback in callbacks if not isinstance(callback, LastCheckpoint)
            ]
        return super()._instantiate_trainer(config, callbacks)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "ckpt_path": self.checkpoint}

    def _parse_ckpt_path(self) -> None:
        """Lightning's would mix a checkpoint's arguments into the config.

        Here they are checked against it.
        """

    def after_fit(self) -> None:
        """Test the best checkpoint on the test episodes."""
        config = self.config["fit"]
        if config["test_after_fit"] and not config["trainer"]["fast_dev_run"]:
            callbacks = [
                c for c in self.trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)
            ]
            best = callbacks[0].best_model_path if callbacks else ""
            # without checkpoints the weights at hand are all there is
            self.trainer.test(
                self.model,
                datamodule=self.datamodule,
                ckpt_path=best or None,
                verbose=False,
                weights_only=True,
            )


def _states(benchmark: type, fact: str) -> bool:
    """Whether a benchmark's class declares or has the attribute `fact`."""
    return any(
        fact in vars(c) or fact in vars(c).get("__annotations__", {}) for c in benchmark.__mro__
    )


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    # lightning recommends a product of its makers at every start
    return "Tip: " not in record.getMessage()


def own_command(args: list[str]) -> bool:
    """Run what is no subcommand of Lightning's; false where `args` name no such command."""
    if args[:1] == ["list"]:
        list_classes(args[1:])
    elif args[:1] == ["prepare"]:
        check_configs(args)
        prepare(args[1:])
    elif args[:1] == ["rank"]:
        rank(args[1:])
    elif args[:1] == ["summary"]:
        summary(args[1:])
    elif args[:1] == ["predict"] and not on_benchmark(args[1:]):
        predict(args[1:])
    elif args[:1] == ["export"]:
        export(args[1:])
    else:
        return False
    return True


def run(args: list[str] | None = None) -> FewshotCLI | None:
    """Run the command line `args` (None: the process's own); errors are raised.

    Returns:
        The learner, the benchmark and the trainer that have run (`model`, `datamodule`, `trainer`);
        None for a command that needs none of them.
    """
    given = sys.argv[1:] if args is None else args
    if own_command(given):
        return None
    for message in NOT_THE_USERS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    check_configs(given)
    return FewshotCLI(
        MetaLearner,
        EpisodicDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"use_distributed_sampler": False},  # the episode stream shards itself
        seed_everything_default=0,
        parser_kwargs={
            "exit_on_error": False,
            "prog": "fewshot",
            "version": fewshot.__version__,
            "description": (
                f"fewshot {fewshot.__version__}. `fewshot list` prints every benchmark, learner and"
                " backbone, `fewshot prepare` makes the data of one ready; `fewshot summary RUN"
                " RUN ...` gives mean and deviation over runs, `fewshot rank RUN RUN ...` compares"
                " them over sources; `fewshot predict --help` and `fewshot export --help` say how"
                " to use a trained learner on your own files."
            ),
        },
        # the learner's own arguments `optimizer` and `lr_scheduler` do that
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,  # a learner holds its arguments as plain values itself
        args=args,
    )


def main(args: list[str] | None = None) -> int:
    """The program `fewshot`: run, and turn a user's error into one line and exit status 2."""
    keep_freed_memory()
    try:
        run(args)
    except (
        FewshotError,
        ArgumentError,
        MisconfigurationException,
        OSError,
        ValueError,
        TypeError,
    ) as error:
        if os.environ.get("FEWSHOT_DEBUG"):
            raise
        print(f"fewshot: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0
