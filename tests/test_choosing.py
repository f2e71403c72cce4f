"""Another learner is one changed line: every learner on one config, a Prototypical Network's."""

from pathlib import Path

import pytest
from commands import FEW, QUIET, fit, results
from fakes import fake_omniglot

from fewshot.cli.catalogue import learners
from fewshot.cli.main import main

CONFIG = Path(__file__).resolve().parents[1] / "configs/omniglot/protonet_5way1shot.yaml"
SMALL = ("--data.meta_batch_size=2", "--data.queries=2", "--trainer.max_steps=2")

FIXED_WAY = "has one head for all episodes, but train_way is 60 and way is 5; set train_way to 5"
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        (
            *("ADML", "ANIL", "BOIL", "FOMAML", "IMAML", "MAML", "MANN", "MetaSGD", "MRMAML"),
            *("Reptile", "SNAIL", "TAML"),
        ),
        (FIXED_WAY, ("--data.train_way=5",)),
    ),
    # each says one thing at a time
    "CAVIA": (FIXED_WAY, ("--data.train_way=5", "--model.film_after=blocks.2.2")),
    "MAMLPlusPlus": (FIXED_WAY, ("--data.train_way=5", "--model.cosine_schedule=false")),
    **dict.fromkeys(
        ("ANP", "CNP", "GaussianProcess", "MMAML"), ("the benchmark's task is classification", ())
    ),
    "PANet": ("is made for segmentation, but the benchmark's task is classification", ()),
    "BERTPair": ("it needs a benchmark of texts with data.tokenizer set to the model", ()),
    **dict.fromkeys(("PET", "FineTuneText"), ("classifies by a language model", ())),
    **dict.fromkeys(
        ("GMatching", "MetaR", "TransE"), ("the benchmark's task is classification", ())
    ),
    "TailFrequency": ("TailFrequency needs tail_counts", ()),
    "SimpleShot": ("has nothing to train", ()),
}
"""What else a learner needs, and the options that give it.

None where this benchmark or training is not for it.
"""


@pytest.fixture(scope="module", autouse=True)
def data(own_data_root: Path) -> None:
    fake_omniglot(own_data_root)


@pytest.mark.parametrize("name", [entry.name for entry in learners()])
def test_every_learner_takes_the_config_or_says_what_it_needs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (
        SMALL
        if name in ("GaussianProcess", "TailFrequency")
        else (*SMALL, "--model.backbone.width=4")
    )
    options: tuple[str, ...] = ()
    if name in NEEDS:
        message, options = NEEDS[name]
        chosen = [f"--config={CONFIG}", f"--model={name}", *small, *FEW, *QUIET]
        assert main(["fit", *chosen, f"--trainer.default_root_dir={tmp_path}"]) == 2
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("fewshot: error: ")]
        assert len(lines) == 1
        assert message in lines[0]
        if not options:
            return
    run = fit(tmp_path, f"--config={CONFIG}", f"--model={name}", *small, *options)
    assert results(run)["learner"] == name
