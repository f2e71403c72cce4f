"""The results of a test or a validation as a table to look at."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from fewshot.tasks.estimates import format_estimate


def results_table(result: dict[str, Any]) -> Table:
    """The main metrics of a test, or a validation, with their 95 % intervals, in their units."""
    way = f"{result['way']}-way " if result["way"] else ""
    shot = f"{result['shot']}-shot" if result["shot"] else "any shot"
    split = f" ({result['split']})" if result["split"] else ""
    attack = f", {result['attack']}" if "attack" in result else ""
    drawn_so = ", transductive head" if result.get("transductive") else ""
    if "balanced_queries" in result:
        known = {True: "balanced", False: "unbalanced"}
        drawn_so += f", {known.get(result['balanced_queries'], 'perhaps unbalanced')} queries"
    mark = ", UNTRAINED weights" if result.get("untrained") else ""
    drawn = f"seed {result['seed']}"
    if result["seed"] is None and "test_episodes" in result:
        drawn = f"those of {result['test_episodes']}"
    stage = result.get("stage", "test")
    mark += f", PARTIAL: the {stage} was stopped" if result.get("partial") else ""
    table = Table(
        title=f"{result['learner']} on {result['benchmark'] or 'own data'}{split}, {way}{shot}",
        caption=(
            f"{result['episodes']} {stage} episodes, {drawn}, {result['batchnorm']}"
            f" batch norm{drawn_so}{attack}{mark}"
        ),
    )
    units = result["units"]
    table.add_column("metric")
    table.add_column("mean ± 95 % CI", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(name, _written(value, units.get(name, "")))
    if of := result.get("calibration"):
        table.add_section()
        at = "" if of["temperature"] is None else f" at temperature {of['temperature']:.3g}"
        table.add_row(f"calibration error (ECE){at}", f"{100 * of['ece']:.2f} %")
        table.add_row(f"Brier score, NLL{at}", f"{of['brier']:.3f}, {of['nll']:.3f}")
    for source, metrics in result.get("sources", {}).items():
        table.add_section()
        for name, value in metrics.items():
            table.add_row(f"{name} on {source}", _written(value, units.get(name, "")))
    return table


def _written(value: Mapping[str, Any], unit: str) -> str:
    return format_estimate(value["mean"], value["ci95"], unit)
