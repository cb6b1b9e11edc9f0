"""What a person sees of recipes."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from detkit import recipe
from detkit.recipe.show import make_table, meanings_of
from tests.recipe import toys
from tests.recipe.conftest import TOY, Load


def lines_of(table: Any) -> list[str]:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table)
    return [line.rstrip() for line in console.export_text().splitlines()]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_list_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detkit.recipe.loading.PACKAGED", tmp_path)
    (tmp_path / "b.yaml").write_text("# The second.\n# More of it.\n" + TOY)
    (tmp_path / "a.yaml").write_text(TOY)
    assert [cells(line) for line in lines_of(recipe.list_recipes())][1:] == [
        ["a", "A toy detector.", "Nothing is trained."],
        ["b", "The second."],
    ]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "b.yaml").write_text("# Mine.\n" + TOY)
    listed = " ".join(" ".join(lines_of(recipe.list_recipes())[1:]).split())  # the folders' names may wrap
    assert listed.replace(" ", "") == (
        f"in {tmp_path}/recipes: b Mine. in {tmp_path}: a A toy detector. Nothing is trained.".replace(" ", "")
    )


def test_list_keys(load: Load) -> None:
    rows = {
        cells(line)[0]: cells(line)[1:] for line in lines_of(recipe.list_keys(load("data.root=/x", "seed=8"))) if line
    }
    assert rows["seed"] == ["8", "seed of weights, order and"]  # and so on, in the next line
    assert rows["data"] == ["tests.recipe.toys.Data", "Toy data of three classes"]
    assert rows["data.root"] == ["/x", "folder of the data set"]
    assert rows["data.batch_size"] == ["(4)"]  # accepted, though not in the file
    assert rows["model.backbone.width_multiple"] == ["(1.0)", "factor on the channels, rounded down"]
    assert rows["model.head.num_classes"] == ["null", "C"]
    assert "model.head.in_specs" not in rows  # comes from the backbone
    assert rows["loss.weights"] == ['{"cls": 0.5, "box": 2}']
    assert rows["trainer.callbacks.0.decay"] == ["0.99"]
    assert rows["optimizer.lr"] == ["0.001", "learning rate"]  # torch's docstring


def test_every_key_can_be_typed_as_listed(load: Load) -> None:
    """Key and value of each row, given as an argument, make the same run."""
    plan = load("data.root=/x")
    table = recipe.list_keys(plan)
    keys, values = ([str(cell) for cell in column.cells] for column in table.columns[:2])
    typed = [f"{key}={value}" for key, value in zip(keys, values, strict=True) if not value.startswith("(")]
    assert len(typed) > 20
    assert load(*typed).config == plan.config


def test_list_changes(load: Load) -> None:
    text = "\n".join(lines_of(recipe.list_changes(load("seed=8", "loss.powers=[1,2]"))))
    assert text.startswith("recipe toy, with these changes\n")
    assert "data.root is not set: the built-in demo set is used, with the values under demo: in the recipe" in text
    rows = [cells(line) for line in text.splitlines()]
    assert ["seed", "3", "8", "command line"] in rows and ["loss.powers", "-", "[1, 2]", "command line"] in rows
    assert "not set" not in "\n".join(lines_of(recipe.list_changes(load("data.root=/x"))))


def test_values_are_no_markup(load: Load) -> None:
    text = "\n".join(lines_of(recipe.list_changes(load("data.root=x[/b]", "name=[bold]", "name='[red]a'"))))
    assert "x[/b]" in text and "[red]a" in text
    assert "x[/b]" in "\n".join(lines_of(recipe.list_keys(load("data.root=x[/b]"))))


def test_no_changes(load: Load) -> None:
    plan = load(replace=("root: null", "root: /x"))
    assert lines_of(recipe.list_changes(plan)) == ["recipe toy, without changes"]


def test_rows_fit_100_columns(load: Load) -> None:
    plan = load("trainer=lightning.Trainer")
    lines = lines_of(recipe.list_keys(plan))
    assert max(map(len, lines)) <= 100
    rows = {cells(line)[0]: cells(line)[1:] for line in lines if line}
    assert rows["trainer.max_epochs"][:2] == ["(null)", "Stop training once"]


def test_meanings_come_from_the_parents_too() -> None:
    class Child(toys.Backbone):
        """A child.

        Args:
            layers: of its own.  Second sentence.

                A second paragraph.
        """

    assert meanings_of(Child) == {
        "layers": "of its own",
        "depth": "how deep; more is slower",
        "width_multiple": "factor on the channels, rounded down",
    }


def test_nothing_is_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table("key", "value")
    table.add_row("k" * 300, "v " * 300)
    table.add_row("short", "value")
    recipe.console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{'k' * 300}  {'v ' * 300}".rstrip()
    assert lines[2] == f"{'short':<300}  value"


def test_values_are_the_recipes_own_beside_those_for_the_demo_set(load: Load) -> None:
    table = recipe.list_keys(load("seed=8"))
    assert [str(column.header) for column in table.columns] == ["key", "value", "on the demo set", "meaning"]
    rows = {key: values for key, *values in zip(*([str(cell) for cell in c.cells] for c in table.columns), strict=True)}
    assert rows["trainer.max_epochs"][:2] == ["300", "2"]
    assert rows["data.image_hw"][:2] == ["[640, 640]", "[32, 32]"]
    assert rows["seed"][:2] == ["8", ""]
    assert len(recipe.list_keys(load("data.root=/x")).columns) == 3
