from fewshot.datamodules import GaussianProcessDataModule
from fewshot.datasets.gaussian_process import GaussianProcessTasks


def test_it_hands_out_functions_of_its_kernel() -> None:
    data = GaussianProcessDataModule(
        length_scale=0.5,
        variance=2.0,
        noise=0.2,
        shot=3,
        queries=7,
        train_queries=4,
        train_shots=(2, 3),
    )
    assert data.task == {"kind": "regression", "targets": 1}
    assert data.tasks("test") == GaussianProcessTasks(3, 7, 0.5, 2.0, 0.2)
    shots = [
        batch.stacked.support.targets.shape[1]
        for batch, _ in zip(data.train_dataloader(), range(20), strict=False)
    ]
    assert set(shots) == {2, 3}
    kernel = {"length_scale": 0.5, "variance": 2.0, "noise": 0.2}
    assert data.protocol() == {
        "benchmark": "Gaussian process",
        "shot": 3,
        "queries": 7,
        "seed": 0,
        **kernel,
    }
