"""`fewshot fit`, `validate`, `test`, `predict`: LightningCLI over the classes of this package.

Importing a class is registering it: its short name is known to the command line.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from fewshot.callbacks.board import BoardLogger
from fewshot.callbacks.checkpoint import LastCheckpoint
from fewshot.callbacks.of_every_run import not_named_already, of_every_run
from fewshot.callbacks.places import RUNS
from fewshot.callbacks.quiet import silence_what_users_cannot_mend
from fewshot.callbacks.run_folder import RunFolder
from fewshot.cli.catalogue import import_all
from fewshot.cli.going_on import beginning, hold, is_first_rank
from fewshot.cli.links import check_has, links
from fewshot.cli.messages import one_line
from fewshot.cli.named import named_classes, written
from fewshot.cli.needs import apply_needs, say_tested_at_once, with_backbone
from fewshot.cli.places import place_of
from fewshot.cli.precision import RunTrainer, decide_precision
from fewshot.cli.run_options import add_run_options, apply_run_options
from fewshot.cli.saved_config import SavedConfig
from fewshot.cli.short_names import expanded, read_in_configs
from fewshot.cli.trainer_arguments import check_plan, check_trainer, launched
from fewshot.datamodules import EpisodicDataModule
from fewshot.engine.compiling.torch_internals import warn_if_untested
from fewshot.errors import FewshotError
from fewshot.files.leftovers import remove_leftovers_of_runs
from fewshot.hyperparameters import without_weights
from fewshot.learners import MetaLearner
from fewshot.learners.checkpoint_checks import check_learner
from fewshot.learners.checkpoints import read_checkpoint
from fewshot.tasks import make_task

LIGHTNINGS_OWN = ("hpc", "registry")
"""What `--ckpt_path` may say instead of a file, besides `best` and `last`."""
BEGINS_WITH = "FEWSHOT_BEGINS_WITH"
"""The variable that tells the ranks that Lightning starts which checkpoint the first has found."""


class FewshotCLI(LightningCLI):
    """LightningCLI with the benchmark's facts linked to the learner and its backbone."""

    def __init__(self, args: Sequence[str], held: ExitStack) -> None:
        """Run the command line `args`; what the run holds on to is `held`, until that is closed."""
        self.held, self.folder = held, RunFolder()
        self._args, self._first = args, next(iter(args), None)
        self.named = named_classes(args)
        self.links = links(self.named)
        super().__init__(
            MetaLearner,
            EpisodicDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=RunTrainer,
            save_config_callback=SavedConfig,
            save_config_kwargs={"save_to_log_dir": False},
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
            add_run_options(self._parser(subcommand), subcommand)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the benchmark's facts; ask when to write the last checkpoint."""
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        for link in self.links:
            parser.link_arguments(f"data.{link.fact}", link.target, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; once more without defaults where the user writes what a link fills in."""
        self.config = self._parsed(parser, args)
        by_hand = written(self._args, [link.target for link in self.links])
        self.given: Any = self._parsed(parser, args, defaults=False) if by_hand else {}

    def _parsed(self, parser: LightningArgumentParser, args: Any, **how: Any) -> Namespace:
        """What the command line says, read by the parser of its subcommand.

        The parser of all of them would read and check again what that one has read: a third more.
        It alone prints a config.
        """
        printed = any(arg.startswith("--print") for arg in args)
        if printed or self._first not in self._subcommand_parsers:
            return parser.parse_args(args, **how)
        own = self._parser(self._first).parse_args(args[1:], **how)
        said = {"subcommand": self._first, self._first: own}
        return Namespace(**said)  # type: ignore[no-untyped-call]

    def before_instantiate_classes(self) -> None:
        """Check what can be checked before anything is built; keep what links would replace."""
        config = self.config[str(self.subcommand)]
        given = self.given.get(str(self.subcommand), {})
        check_trainer(config["trainer"])
        self.by_hand = {
            link: given[link.target] for link in self.links if given.get(link.target) is not None
        }
        benchmark = self.named["data"]
        decide_precision(config["trainer"], self.named["model"])
        apply_run_options(config, benchmark)
        apply_needs(config, self.named, self._args)
        for link in self.links:
            if link.required and config.get(link.target) is None:
                check_has(benchmark, link, self.named[link.owner])
        if not config.get("weights_only", True):
            raise FewshotError(
                "weights_only is false, but a checkpoint holds plain values alone; leave it out"
            )
        remove_leftovers_of_runs(config["trainer"]["default_root_dir"] or os.getcwd())
        first = is_first_rank()
        asked = config.get("ckpt_path")
        self.checkpoint, self.run = beginning(
            asked if first else os.environ.get(BEGINS_WITH, asked),
            "last.ckpt" if self.subcommand == "fit" else "best.ckpt",
            config,
            lambda: place_of(config, self.named),
        )
        if first and self.checkpoint is not None:
            os.environ[BEGINS_WITH] = self.checkpoint
            self.held.callback(os.environ.pop, BEGINS_WITH, None)
        if first and self.run is not None and self._goes_on():
            hold(self.run, self.held)
        if file := self._checkpoint_file():
            check_learner(read_checkpoint(file), config["model.class_path"].rpartition(".")[2])

    def instantiate_classes(self) -> None:
        """Build the classes.

        Without pre-trained weights, where those of a checkpoint file take their place.
        """
        with nullcontext() if self.checkpoint in (None, *LIGHTNINGS_OWN) else without_weights():
            super().instantiate_classes()

    def after_instantiate_classes(self) -> None:
        """Refuse what contradicts the benchmark or the checkpoint; take the run's folder."""
        for link, value in self.by_hand.items():
            linked = getattr(self.datamodule, link.fact, value)
            if value != linked:
                key = link.target.replace("init_args.", "")
                raise FewshotError(
                    f"{key} is {value} but {type(self.datamodule).__name__} has {link.fact}"
                    f" {linked}; leave {key} out, it follows the benchmark"
                )
        if self._tests_at_once():
            cls = self.named["model"]
            assert issubclass(cls, MetaLearner)
            cls.check_kind(make_task(self.datamodule.task))
            say_tested_at_once(cls, self.model, self.config["fit"]["test_after_fit"])
        elif self.subcommand == "fit":
            check_plan(self.model, self.datamodule, self.config["fit"]["trainer"])
        if self.subcommand == "fit" and (file := self._checkpoint_file()):
            self.model.check_goes_on(read_checkpoint(file), self.datamodule, self.trainer)
        self._take_folder()

    def _take_folder(self) -> None:
        """Have a folder that is this run's alone, or that of the run that goes on."""
        self.folder.checkpoint = self.checkpoint
        config = self.config[str(self.subcommand)]
        dry = config["trainer"]["fast_dev_run"] and self.subcommand in ("fit", "validate")
        dry &= not self._tests_at_once()
        if dry or not self.trainer.is_global_zero:
            return
        place = place_of(config, self.named, self.trainer.loggers)
        run = self.run if self._goes_on() else None
        if run is None and place is not None:
            run = place.claim()
            hold(run, self.held)
        elif run is not None and place is not None and not place.holds(run):
            raise FewshotError(
                f"the run {run} does not lie in {place.root}, where this command's runs do; set"
                " trainer.default_root_dir or the logger as they were"
            )
        if run is not None:
            self.folder.settle(self.trainer, run)

    def _checkpoint_file(self) -> str | None:
        """The checkpoint that is asked for, where it is a file that can be looked into now."""
        named = self.checkpoint
        return None if named is None or named in LIGHTNINGS_OWN or "://" in named else named

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callbacks of every run, except those that the Trainer's own flags turn off."""
        config = self.config[self.subcommand]["trainer"]
        tests = self.config[self.subcommand]["test_after_fit"]
        self.own_callbacks = [self.folder, *of_every_run(config, tests)]
        if config["logger"] in (None, True):
            root = config["default_root_dir"] or os.getcwd()
            kwargs["logger"] = BoardLogger(root, name=RUNS)
        return super().instantiate_trainer(**kwargs, **launched(config, os.environ))

    def _goes_on(self) -> bool:
        """Whether an earlier run goes on in its folder, not a new one from a checkpoint."""
        return bool(self.subcommand == "fit" and self.config["fit"]["ckpt_path"] != "best")

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        ours = [*callbacks, *self.own_callbacks]
        if config["enable_checkpointing"] is False:
            ours = [callback for callback in ours if not isinstance(callback, LastCheckpoint)]
        named = config["callbacks"] or []
        named = named if isinstance(named, list) else [named]
        return super()._instantiate_trainer(config, not_named_already(ours, named))

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "ckpt_path": self.checkpoint}

    def _parse_ckpt_path(self) -> None:
        """Lightning's would mix a checkpoint's arguments into the config.

        Here they are checked against it.
        """

    def _tests_at_once(self) -> bool:
        """Whether `fit` has nothing to do but the test."""
        return self.subcommand == "fit" and self.model.has_nothing_to_train

    def _run_subcommand(self, subcommand: str) -> None:
        if not self._tests_at_once():
            super()._run_subcommand(subcommand)
            return
        file = self._checkpoint_file()
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=file, verbose=False, weights_only=True
        )

    def after_fit(self) -> None:
        """Test the best checkpoint on the test episodes."""
        config = self.config["fit"]
        if config["test_after_fit"] and not config["trainer"]["fast_dev_run"]:
            # the user's own, where one is named
            callbacks = [
                callback
                for callback in self.trainer.checkpoint_callbacks
                if isinstance(callback, ModelCheckpoint) and callback.monitor is not None
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


def run(args: Sequence[str], cls: type[FewshotCLI] = FewshotCLI) -> FewshotCLI:
    """Run the command line `args`, which begins with a subcommand of Lightning's, by `cls`.

    Returns:
        The learner, the benchmark and the trainer that have run (`model`, `datamodule`, `trainer`).
    """
    silence_what_users_cannot_mend()
    warn_if_untested()
    import_all()  # their short names are known then
    read_in_configs()
    try:
        with ExitStack() as held:
            return cls(with_backbone(expanded(args)), held)
    except MisconfigurationException as error:
        raise FewshotError(one_line(error)) from error
