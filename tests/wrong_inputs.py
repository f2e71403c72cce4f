"""Five hundred wrong inputs, the same ones every time: what a user may mistype, and where.

Each names what its message must show: the value that is wrong, or the word.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

SINUSOID = ("--model=MAML", "--model.backbone=MLP", "--data=SinusoidDataModule")
GLYPHS = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--data=GlyphsDataModule")
SHORT = (
    *("--data.train_episodes=4", "--data.meta_batch_size=2", "--data.val_episodes=2"),
    *("--data.test_episodes=2", "--data.queries=2", "--trainer.max_steps=2"),
    *("--trainer.logger=false", "--trainer.enable_checkpointing=false"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.accelerator=cpu", "--trainer.num_sanity_val_steps=0", "--test_after_fit=false"),
)


class Case(NamedTuple):
    """A command line that must be refused."""

    args: tuple[str, ...]
    shows: str
    """What the message must show, of the value; empty where there is none."""


WRONG: Mapping[str, Mapping[str, Sequence[str]]] = {
    "trainer": {
        "max_epochs": ("-2", "many", "1.5", "nan", "[1]"),
        "max_steps": ("-2", "all", "2.5", "{}"),
        "min_epochs": ("-3", "few"),
        "min_steps": ("-3", "few", "0.1"),
        "max_time": ("soon", "1:2", "[]", "-5"),
        "precision": ("8", "float", "bf32", "[16]", "null-true"),
        "devices": ("0", "-3", "many", "1.5", "[]"),
        "num_nodes": ("0", "-1", "two", "1.5"),
        "accelerator": ("gpuu", "tpuv9", "3", "[cpu]"),
        "strategy": ("dpp", "parallel", "3", "deepspeed_stage_9"),
        "limit_train_batches": ("-1", "1.5", "half", "nan"),
        "limit_val_batches": ("-2", "2.5", "none"),
        "limit_test_batches": ("-2", "2.5", "none"),
        "limit_predict_batches": ("-2", "2.5", "none"),
        "overfit_batches": ("-1", "1.5", "some"),
        "val_check_interval": ("-1", "1.5", "0", "often"),
        "check_val_every_n_epoch": ("0", "-1", "x", "0.5"),
        "num_sanity_val_steps": ("-2", "some", "1.5"),
        "log_every_n_steps": ("-1", "often", "1.5"),
        "accumulate_grad_batches": ("0", "-1", "2", "x"),
        "gradient_clip_val": ("0.5", "-1", "x", "nan"),
        "gradient_clip_algorithm": ("norms", "3"),
        "fast_dev_run": ("-1", "maybe", "1.5"),
        "profiler": ("simpel", "3"),
        "logger": ("WandbLoger", "maybe", "TensorboardLogger", "3", "torch.nn.Linear"),
        "callbacks": ("EarlyStoping", "3", "torch.nn.Linear"),
        "deterministic": ("sure", "3"),
        "benchmark": ("sure", "3"),
        "inference_mode": ("sure", "2"),
        "detect_anomaly": ("sure", "2"),
        "barebones": ("sure", "2"),
        "enable_checkpointing": ("sure", "2"),
        "enable_progress_bar": ("sure", "2"),
        "enable_model_summary": ("sure", "2"),
        "sync_batchnorm": ("sure", "2"),
        "reload_dataloaders_every_n_epochs": ("-1", "x", "1.5"),
        "plugins": ("precision", "3"),
        "default_root_dir": ("/dev/null/x",),
    },
    "data": {
        "shot": ("0", "-1", "one", "1.5", "null", "[]", "nan"),
        "queries": ("0", "-1", "many", "0.5", "null"),
        "meta_batch_size": ("0", "-4", "3", "big", "null", "1e3"),
        "train_episodes": ("0", "-1", "5", "x", "null"),
        "val_episodes": ("-1", "x", "0.5", "null"),
        "test_episodes": ("-1", "x", "0.5", "null"),
        "num_workers": ("-1", "x", "0.5", "null"),
        "seed": ("-1", "x", "0.5", "null"),
    },
    "model": {
        "inner_lr": ("-0.1", "fast", "nan", "inf", "null", "[0.1]"),
        "inner_steps": ("-1", "0.5", "many", "null", "nan"),
        "gradient_clip": ("0", "-1", "x", "nan"),
        "nonfinite": ("Stop", "ignore", "3", "null"),
        "batchnorm": ("Inductive", "none", "3", "null"),
        "optimizer": ("Adamm", "torch.nn.Linear", "3", "null"),
        "lr_scheduler": ("StepLRR", "torch.nn.Linear", "3"),
        "backbone": ("MPL", "torch.optim.Adam", "3", "null", "no.such.Module"),
        "weights": ("no_such.ckpt", "/dev/null", "3"),
        "backbone.hidden": ("[-5]", "[0]", "40", "[a]", "null", "[1.5]"),
        "backbone.norm": ("foo", "Batch", "3"),
        "optimizer=Adam --model.optimizer.lr": ("-1", "nan", "fast", "null", "inf"),
        "optimizer=Adam --model.optimizer.betas": ("[2,0]", "x", "[0.9]", "3"),
        "optimizer=Adam --model.optimizer.weight_decay": ("-1", "x", "nan"),
        "optimizer=Adam --model.optimizer.eps": ("-1", "x", "nan"),
        "optimizer=SGD --model.optimizer.momentum": ("-1", "x", "nan"),
        "optimizer=SGD --model.optimizer.nesterov": ("true", "x"),
        "lr_scheduler=StepLR --model.lr_scheduler.step_size": ("0", "-1", "x", "1.5", "null"),
        "lr_scheduler=StepLR --model.lr_scheduler.step_size=1 --model.lr_scheduler.gamma": (
            *("-1", "nan", "x"),
        ),
        "lr_scheduler=CosineAnnealingLR --model.lr_scheduler.T_max": ("0", "x", "null"),
        "lr_scheduler=MultiStepLR --model.lr_scheduler.milestones": ("3", "x", "[a]"),
        "lr_scheduler=OneCycleLR --model.lr_scheduler.total_steps=1 --model.lr_scheduler.max_lr": (
            *("0.1", "x"),
        ),
        "lr_scheduler=ExponentialLR --model.lr_scheduler.gamma": ("-0.5", "nan", "x", "null"),
    },
    "trainer.callbacks": {
        "=EarlyStopping --trainer.callbacks.monitor": ("val/mes", "accuracy"),
        "=EarlyStopping --trainer.callbacks.monitor=val/mse --trainer.callbacks.patience": (
            *("1.5", "x"),
        ),
        "=EarlyStopping --trainer.callbacks.monitor=val/mse --trainer.callbacks.mode": (
            *("least", "3"),
        ),
        "=ModelCheckpoint --trainer.enable_checkpointing=true --trainer.callbacks.save_top_k": (
            *("-2", "x", "2"),
        ),
        "=LearningRateMonitor --trainer.callbacks.logging_interval": ("often", "3"),
        "=GradientAccumulationScheduler --trainer.callbacks.scheduling": ("x",),
        "=StochasticWeightAveraging --trainer.callbacks.swa_lrs": ("x",),
        "=Timer --trainer.callbacks.duration": ("soon", "-1"),
    },
    "trainer.logger": {
        "=CSVLogger --trainer.logger.save_dir": ("null", "[1]", "/dev/null/x"),
        "=TensorBoardLogger --trainer.logger.save_dir": ("/dev/null/x",),
    },
    "": {
        "seed_everything": ("-1", "x", "1.5", "99999999999"),
        "ckpt_path": ("no_such.ckpt", "/dev/null", "/", "best"),
        "weights_only": ("false", "x"),
        "test_after_fit": ("perhaps", "3"),
        "checkpoint.every_n_steps": ("0", "-1", "x"),
        "checkpoint.every_minutes": ("0", "-1", "x"),
        "config": ("no_such.yaml", "sinusoid/mamll", "/dev/null", "/"),
    },
}
"""Values that an option does not take."""


SHOWN = {
    **dict.fromkeys(("null", "1e3", "[-5]", "[a]", "[1.5]", "{}", "true"), None),
    "[2,0]": "2.0",
}
"""Values that messages show otherwise: then the argument must be named at least."""


def values() -> Iterator[Case]:
    """Each option with each of its wrong values."""
    for top, options in WRONG.items():
        for option, wrong in options.items():
            for value in wrong:
                dot = "." if top and not option.startswith("=") else ""
                *given, last = f"--{top}{dot}{option}={value}".split(" --")
                named = [arg if arg.startswith("--") else f"--{arg}" for arg in (*given, last)]
                shows = SHOWN.get(value, value)
                # what only the message of another's names: the argument
                shows = last.partition("=")[0].rpartition(".")[2] if shows is None else shows
                yield Case(("fit", *SINUSOID, *SHORT, *named), shows)


def names(number: int) -> Iterator[Case]:
    """Options, commands and classes with a letter left out, doubled or changed."""
    draw = random.Random(0)
    told = [arg for arg in (*SINUSOID, *GLYPHS, *SHORT) if "." in arg]
    for _ in range(number):
        base = list(draw.choice((SINUSOID, GLYPHS)) + SHORT)
        arg = draw.choice(told)
        option, _, value = arg.partition("=")
        word = option.rpartition(".")[2]
        at = draw.randrange(1, len(word))
        wrong = draw.choice((word[:at] + word[at + 1 :], word[:at] + "q" + word[at:]))
        if wrong == word:
            continue
        yield Case(("fit", *base, f"{option.removesuffix(word)}{wrong}={value}"), wrong)


def commands() -> Iterator[Case]:
    """What the other commands are asked wrongly."""
    ckpt = "no_such.ckpt"
    for args, shows in (
        (("fti",), "fti"),
        (("train",), "train"),
        (("--fit",), "'fit'"),
        (("fit",), "model"),
        (("fit", "MAML"), "MAML"),
        (("fit", "--model=MAML"), "backbone"),
        (("fit", "--data=SinusoidDataModule"), "model"),
        (("test", *SINUSOID, "--ckpt_path=best"), "best"),
        (("validate", *SINUSOID, "--ckpt_path=x.ckpt"), "x.ckpt"),
        (("predict",), "--ckpt_path"),
        (("predict", f"--ckpt_path={ckpt}"), "--support"),
        (("predict", f"--ckpt_path={ckpt}", "--support=no", "--query=no"), ckpt),
        (("predict", "--suport=x"), "--suport"),
        (("predict", f"--ckpt_path={ckpt}", "--support=a", "--query=b", "--reject=2"), "2"),
        (("predict", f"--ckpt_path={ckpt}", "--support=a", "--query=b", "--reject=x"), "x"),
        (("predict", f"--ckpt_path={ckpt}", "--support=a", "--query=b", "--device=gpuu"), ckpt),
        (("predict", "--support=a", "--model=MAML"), "--support"),
        (("export",), "--ckpt_path"),
        (("export", f"--ckpt_path={ckpt}"), ckpt),
        (("export", f"--ckpt_path={ckpt}", "--format=onx"), "onx"),
        (("export", f"--ckpt_path={ckpt}", "--learner=MAML"), "MAML"),
        (("export", f"--ckpt_path={ckpt}", "--learner=no.such"), "no.such"),
        (("export", "--ckpt_path"), "--ckpt_path"),
        (("list", "learner"), "learner"),
        (("list", "learners", "x"), "x"),
        (("compare",), "no run"),
        (("compare", "a"), "a"),
        (("compare", "a", "--format=xml"), "xml"),
        (("compare", "a", "--by=seed"), "seed"),
        (("compare", "a", "--plot=a.gif"), "a.gif"),
        (("compare", "a", "--metrics=f1"), "--metrics"),
        (("rank",), "rank"),
        (("rank", "a"), "rank"),
        (("rank", "a", "b"), "a"),
        (("summary",), "two"),
        (("summary", "a", "b"), "a"),
        (("summary", "--runs=a"), "--runs"),
        (("prepare",), "data"),
        (("prepare", "--data=Omniglot"), "Omniglot"),
        (("prepare", "--data=SinusoidDataModule", "--data.shot=0"), "0"),
    ):
        yield Case(args, shows)
