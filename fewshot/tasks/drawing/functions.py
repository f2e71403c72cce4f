"""Pictures of a function of one variable: seen points, true and predicted values."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from fewshot.episodes.types import Episode
from fewshot.tasks.base import Normal

TRUE, PREDICTED, POINT = "#d0d7de", "#0969da", "#1f2328"


def draw_function(
    episode: Episode, predictions: Mapping[str, Tensor], spread: Mapping[str, Normal] | None = None
) -> Figure:
    """The support points of a function, its true values at the queries and the predicted ones.

    Args:
        episode: inputs (K, 1) and (Q, 1), targets of the same shapes.
        predictions: values (Q, 1) by what they are, the last one the strongest.
        spread: means and standard deviations (Q, 1) by whose they are, drawn as bands of 2
            deviations: `predicted` is filled, others are outlined.
    """
    (x_support, y_support, _), x_query, y_query = (
        episode.support,
        episode.query.inputs,
        episode.query.targets,
    )
    assert isinstance(x_support, Tensor)
    assert isinstance(x_query, Tensor)
    order = x_query.flatten().argsort()
    figure = Figure(figsize=(7, 4))
    axis = figure.add_axes((0.1, 0.12, 0.63, 0.85))
    x = x_query.flatten()[order].tolist()
    axis.plot(
        x,
        y_query.flatten()[order].tolist(),
        color=TRUE,
        linewidth=5,
        solid_capstyle="round",
        label="true",
    )
    for name, (mean, deviation) in (spread or {}).items():
        low, high = ((mean + side * deviation).flatten()[order].tolist() for side in (-2, 2))
        if name == "predicted":
            axis.fill_between(
                x, low, high, color=PREDICTED, alpha=0.15, linewidth=0, label="± 2 deviations"
            )
        else:
            axis.plot(x, low, ":", color=POINT, linewidth=1, label=f"{name} ± 2")
            axis.plot(x, high, ":", color=POINT, linewidth=1)
    for i, (name, values) in enumerate(predictions.items(), start=1):
        strength = i / len(predictions)
        axis.plot(
            x,
            values.flatten()[order].tolist(),
            color=PREDICTED,
            alpha=strength,
            linewidth=1 + strength,
            linestyle="-" if i == len(predictions) else "--",
            label=name,
        )
    axis.plot(
        x_support.flatten().tolist(),
        y_support.flatten().tolist(),
        "^",
        color=POINT,
        markersize=7,
        label="support",
    )
    axis.set(xlabel="x", ylabel="y")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper right", frameon=False, fontsize=9)
    return figure
