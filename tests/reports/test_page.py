"""Templates: text is escaped, figures are not, and a name without a value is an error."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from detkit.errors import StorageError
from detkit.reports.figures import histogram
from detkit.reports.page import render, write_page

ONE_BOX = {"width": 1, "height": 1, "left": 0, "right": 1, "top": 0, "floor": 1, "outlines": [], "borders": []}


def test_text_is_escaped() -> None:
    assert "&lt;b&gt;&#34;</text>" in render("histogram.svg", **ONE_BOX, ticks=[], title='<b>"')


def test_figure_is_put_in_as_it_is() -> None:
    figure = histogram("a & b", {}, (1, 2), ())
    assert '<text class="title"' in figure and "a &amp; b" in figure
    assert Markup("<p>{}</p>").format(figure) == f"<p>{figure}</p>"


def test_name_without_a_value() -> None:
    with pytest.raises(UndefinedError, match="'ticks' is undefined"):
        render("histogram.svg", **ONE_BOX, title="t")


def test_failed_write_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/a\.svg: the report cannot be written: No such file"):
        write_page(tmp_path / "gone" / "a.svg", "histogram.svg", **ONE_BOX, ticks=[], title="t")
