"""`fewshot fit`, `validate`, `test`, `predict`: LightningCLI over the classes of this package.

Importing a class is registering it: its short name is known to the command line.
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint, newest_checkpoint
from fewshot.callbacks.curves import AdaptationCurve
from fewshot.callbacks.interruption import Interruption
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.callbacks.predictions import PredictionWriter
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.callbacks.results import ResultsWriter
from fewshot.callbacks.sources import SourceCurves
from fewshot.callbacks.throughput import Throughput
from fewshot.cli.catalogue import import_all
from fewshot.cli.links import Link, links
from fewshot.cli.messages import one_line, silence_what_users_cannot_mend
from fewshot.cli.named import named_classes
from fewshot.datamodules import ClassificationDataModule, EpisodicDataModule
from fewshot.engine.compiling.torch_internals import warn_if_untested
from fewshot.errors import FewshotError
from fewshot.hyperparameters import without_weights
from fewshot.learners import MetaLearner
from fewshot.learners.checkpoint_checks import check_learner
from fewshot.learners.checkpoints import read_checkpoint

LIGHTNINGS_OWN = ("hpc", "registry")
"""What `--ckpt_path` may say instead of a file, besides `best` and `last`."""
EPISODES = "Test on the episodes of this file, not on drawn ones: short for `data.test_episodes`."


class FewshotCLI(LightningCLI):
    """LightningCLI with the benchmark's facts linked to the learner and its backbone."""

    def __init__(self, args: Sequence[str]) -> None:
        """Run the command line `args`."""
        self._first = next(iter(args), None)
        self.named = named_classes(args)
        self.links = links(self.named)
        super().__init__(
            MetaLearner,
            EpisodicDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
            # the episode stream shards itself
            trainer_defaults={"use_distributed_sampler": False},
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "prog": "fewshot"},
            # the learner's own arguments `optimizer` and `lr_scheduler` do that
            auto_configure_optimizers=False,
            # a learner holds its arguments as plain values itself
            load_from_checkpoint_support=False,
            args=list(args),
        )

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
            self._parser(subcommand).add_argument(
                "--episodes",
                type=str | None,
                default=None,
                help=argparse.SUPPRESS if subcommand == "validate" else EPISODES,
            )
            # a checkpoint holds plain values alone
            self._parser(subcommand).set_defaults(weights_only=True)
        if "test" in self.subcommands():
            self._parser("test").set_defaults(verbose=False)  # `ResultsWriter` prints the table

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the benchmark's facts; ask when to write the last checkpoint."""
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        for link in self.links:
            parser.link_arguments(f"data.{link.fact}", link.target, apply_on="instantiate")

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
            link: given[link.target] for link in self.links if given.get(link.target) is not None
        }
        benchmark = self.named["data"]
        self._take_episodes(config, benchmark)
        for link in self.links:
            if link.required and config.get(link.target) is None:
                self._check_has(benchmark, link)
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

    def _take_episodes(self, config: Namespace, benchmark: type) -> None:
        """Hand the file of test episodes to the benchmark; the run's config then has it there."""
        file, config["episodes"] = config.get("episodes"), None
        if file is None:
            return
        if not issubclass(benchmark, ClassificationDataModule):
            raise FewshotError(
                f"episodes is {file}, but {benchmark.__name__} draws its test episodes and takes no"
                " file; leave it out, or choose a benchmark of classes of images or texts"
            )
        config["data.init_args.test_episodes"] = file

    def _check_has(self, benchmark: type, link: Link) -> None:
        """Refuse a benchmark that lacks a fact that something needs."""
        assert issubclass(benchmark, EpisodicDataModule)
        # one that another benchmark declares may just lie on a user's own
        if link.fact not in benchmark.every_fact() and not _states(benchmark, link.fact):
            remedy = "another learner, or a benchmark that has it"
            raise FewshotError(
                f"{self.named[link.owner].__name__} needs {link.fact}, which"
                f" {benchmark.__name__} does not have; choose"
                f" {remedy if link.owner == 'model' else 'a backbone that fits'}"
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
        for link, value in self.by_hand.items():
            linked = getattr(self.datamodule, link.fact, value)
            if value != linked:
                key = link.target.replace("init_args.", "")
                raise FewshotError(
                    f"{key} is {value} but {type(self.datamodule).__name__} has {link.fact}"
                    f" {linked}; leave {key} out, it follows the benchmark"
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
    """Whether a class has an attribute, or says that its objects have it."""
    return hasattr(benchmark, fact) or any(
        fact in vars(base).get("__annotations__", {}) for base in benchmark.__mro__
    )


def run(args: Sequence[str]) -> FewshotCLI:
    """Run the command line `args`, which begins with a subcommand of Lightning's.

    Returns:
        The learner, the benchmark and the trainer that have run (`model`, `datamodule`, `trainer`).
    """
    silence_what_users_cannot_mend()
    warn_if_untested()
    import_all()  # their short names are known then
    try:
        return FewshotCLI(args)
    except MisconfigurationException as error:
        raise FewshotError(one_line(error)) from error
