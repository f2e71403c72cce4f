"""Predictions as a notebook and pandas have them."""

import pytest
import torch

from fewshot.deployment.items import Predictions

FOUND = Predictions(("cat", "<dog>"), torch.tensor([[0.75, 0.25], [0.125, 0.875]]))


def test_a_notebook_has_a_table_with_names_as_text() -> None:
    html = FOUND._repr_html_()
    assert "<tr><td>0</td><td>cat</td><td>75.0 %</td></tr>" in html
    assert "<tr><td>1</td><td>&lt;dog&gt;</td><td>87.5 %</td></tr>" in html
    assert "caption" not in html, "all queries are there"


def test_of_many_queries_a_notebook_has_the_first() -> None:
    html = Predictions(("a", "b"), torch.tensor([[0.5, 0.5]]).repeat(25, 1))._repr_html_()
    assert html.count("<td>a</td>") == 20
    assert "20 of 25 queries" in html


def test_a_terminal_has_the_first_queries_a_line_each() -> None:
    assert str(FOUND) == (
        "Predictions of 2 queries, 2 classes\n   0   75.0 %  cat\n   1   87.5 %  <dog>"
    )
    many = repr(Predictions(("a", "b"), torch.tensor([[0.5, 0.5]]).repeat(25, 1)))
    assert "tensor" not in many
    assert many.endswith("\n  19   50.0 %  a\n      and 5 more")


def test_pandas_has_the_columns_of_predictions_csv() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = FOUND.to_pandas()
    assert table.index.name == "query"
    assert table.to_dict("list") == {
        "class": ["cat", "<dog>"],
        "probability": [0.75, 0.875],
        "p(cat)": [0.75, 0.125],
        "p(<dog>)": [0.25, 0.875],
    }
