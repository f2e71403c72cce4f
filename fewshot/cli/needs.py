"""What a learner needs of a command line that leaves it out, or was written for another.

So another learner is one changed word: what a config says for the learner that is replaced gives
way where the new one cannot run with it, and one line says so. What the user says holds.
"""

import json
from collections.abc import Mapping, Sequence

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from fewshot.cli import configs
from fewshot.cli.links import required
from fewshot.cli.named import named_classes, said, words
from fewshot.datamodules import EpisodicDataModule
from fewshot.errors import FewshotError
from fewshot.learners import MetaLearner
from fewshot.tasks import Classification, Task

BACKBONE = "model.init_args.backbone"
TRAIN_WAY, WAY = "data.init_args.train_way", "data.init_args.way"


def with_backbone(args: Sequence[str]) -> list[str]:
    """A command line with the usual network, where the learner needs one and none is named.

    Args:
        args: the command line, from the subcommand on.

    Raises:
        FewshotError: no benchmark is named, whose usual network it would be.
    """
    found = list(args)
    named = named_classes(args)
    learner, benchmark = named.get("model"), named.get("data")
    if learner is None or not required(learner).get("backbone", False):
        return found
    settings = said(args)
    setting, data = settings.at("model.backbone"), settings.at("data")
    if setting.word is not None:
        return found
    usual = getattr(learner, "usual_backbone", None)
    if not usual and benchmark is not None and issubclass(benchmark, EpisodicDataModule):
        usual = benchmark.network_for(words(data))
    if not usual and data.word is None:
        raise FewshotError(
            "--data is missing, and with it the network that is usual there; give a config"
            " (--config FILE) or a benchmark (see `fewshot list`)"
        )
    if benchmark is None or not usual:
        return found
    own = setting.arguments
    name, given = usual["class_path"].rpartition(".")[2], usual.get("init_args", {})
    # behind what names the learner, before what is said of its network
    naming = (*configs.OPTIONS, "--model", "--model.class_path")
    places = [i for i, arg in enumerate(found) if arg.partition("=")[0] in naming]
    place = max(i + 1 if "=" in found[i] else i + 2 for i in places)
    found.insert(place, f"--model.backbone={json.dumps(usual)}")
    told = ", ".join(f"{key} {value}" for key, value in given.items() if key not in own)
    with_them = f" ({told})" if told else ""
    rank_zero_info(f"no backbone is named: {name}{with_them}; --model.backbone takes another")
    return found


def apply_needs(config: Namespace, named: Mapping[str, type], args: Sequence[str]) -> None:
    """Train a learner of one way on the way that it is tested with.

    Not where an option sets `train_way`, or the config that does is the learner's own: it is
    refused then.

    Args:
        config: the parsed config, which is changed.
        named: the classes that the command line names.
        args: the command line, from the subcommand on.
    """
    learner, was, way = named["model"], config.get(TRAIN_WAY), config.get(WAY)
    one_way = issubclass(learner, MetaLearner) and learner.fixed_way
    # others are refused for their task
    one_way &= issubclass(Classification, getattr(learner, "takes", None) or Task)
    # a file of test episodes has a way of its own
    listed = isinstance(config.get("data.init_args.test_episodes"), str)
    if not one_way or was in (None, way) or not isinstance(way, int) or listed:
        return
    by_option = "train_way" in said(args, in_configs=False).at("data").arguments
    if by_option or named_classes(args, by_options=False).get("model") is learner:
        return
    config[TRAIN_WAY] = way
    rank_zero_info(f"{learner.__name__} knows one way: train_way {was} of the config -> {way}")


def say_tested_at_once(cls: type, learner: MetaLearner, tests: bool) -> None:
    """Say that nothing of a learner is trained, so that `fit` goes to the test.

    Args:
        cls: the learner's class; the object's may wait for its task.
        learner: which has nothing to train.
        tests: whether there is to be a test.

    Raises:
        FewshotError: there is not.
    """
    name = cls.__name__
    if learner.trains_on != "nothing":
        name += f" on {type(learner.backbone).__name__}"
    if not tests:
        raise FewshotError(
            f"{name} has nothing to train, and test_after_fit is false: nothing is left to do; set"
            " it to true"
        )
    rank_zero_info(f"{name} has nothing to train: it is tested at once")
