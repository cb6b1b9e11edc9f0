"""A run that is resumed is held against the run that it was: recipe, data, machine."""

from pathlib import Path
from typing import Any

import pytest

from detkit.checkpoint import CheckpointManifest, latest_checkpoint, manifests_in, read_checkpoint
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.recipe.plan import ALLOW_CHANGES
from detkit.training import Parts, train
from detkit.training.run.resume_check import NEUTRAL_KEYS, check_resume, machine_differences, resume_command, run_facts
from tests.helpers.toy import ToyData, toy_parts


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch."""
    return train(toy_parts(tmp_path_factory.mktemp("runs"), epochs=1)).folder


def changed(done: Path, config: dict[str, Any] | None = None, **settings: Any) -> tuple[CheckpointManifest, Parts]:
    """The manifest of the run's checkpoint, and parts of a run that differs from it."""
    manifest = latest_checkpoint(done / "checkpoints")
    assert manifest is not None
    return manifest, toy_parts(done.parent.parent, config=config or {}, **{"epochs": 1, "resume": True, **settings})


def lines_of(done: Path, config: dict[str, Any] | None = None, **settings: Any) -> list[str]:
    manifest, parts = changed(done, config, **settings)
    return check_resume(manifest, parts.settings, parts.metadata())


def test_the_same_run_is_taken_without_a_word(done: Path) -> None:
    assert lines_of(done) == []


def test_changes_of_the_recipe_are_listed_and_refused(done: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        lines_of(done, {"seed": 7, "data": {"root": None, "image_hw": [64, 64]}, "model": {"_target_": "other"}})
    go_on = f"resume without changes: detkit train resume={done}"
    assert str(refused.value).splitlines() == [
        f"resume: this run differs from that of {done}/checkpoints/step-00000006.ckpt:",
        "  key             then      now       set by",
        "  seed            0         7         stored recipe",
        "  data.image_hw   [32, 32]  [64, 64]  stored recipe",
        "  model._target_  toy       other     stored recipe",
        f"{go_on}, or accept the changes: resume.allow_changes=true",
    ]


def test_an_older_checkpoint_is_named_again(done: Path) -> None:
    path = f"{done}/checkpoints/step-00000006.ckpt"
    with pytest.raises(RecipeError, match=rf"detkit train resume={path}, or"):
        lines_of(done, {"seed": 7, "resume": path})


def test_the_first_ten_and_how_many_more(done: Path) -> None:
    with pytest.raises(RecipeError, match=r"\n  data.key9 +- +1 +stored recipe\n  \.\.\. and 2 more\n"):
        lines_of(done, {"data": {"root": None, "image_hw": [32, 32], **{f"key{i}": 1 for i in range(12)}}})


def test_changes_can_be_allowed(done: Path) -> None:
    lines = lines_of(done, {"seed": 7, ALLOW_CHANGES: True}, data=OtherData())
    assert lines == [
        "resumed with changes; the result differs from that of the old run and from that of this recipe:",
        "  key   then  now  set by",
        "  seed  0     7    stored recipe",
        "  the data has other images, boxes or classes: fingerprint toy then, other now",
    ]


class OtherData(ToyData):
    """What an edited annotation file gives."""

    fingerprint = "other"


def test_changed_data_are_refused(done: Path) -> None:
    with pytest.raises(DataError, match=r"fingerprint toy then, other now\nrestore the old data, or accept"):
        lines_of(done, data=OtherData())


def test_recipe_and_data_are_told_together(done: Path) -> None:
    with pytest.raises(RecipeError, match=r"seed +0 +7 (.|\n)*fingerprint toy then, other now\nresume without changes"):
        lines_of(done, {"seed": 7}, data=OtherData())


@pytest.mark.parametrize("key", NEUTRAL_KEYS)
def test_what_changes_no_result_may_change(done: Path, key: str) -> None:
    config = changed(done)[1].settings.recipe
    top, _, inner = key.partition(".")
    value = "elsewhere" if key == "runs_dir" else None
    free = {key: value} if key == ALLOW_CHANGES or not inner else {top: {**config.get(top, {}), inner: "else"}}
    assert lines_of(done, free) == []


@pytest.mark.parametrize("key", ["freeze", "checkpoint.monitor", "data.num_workers_", "trainer.max_epochs"])
def test_all_else_may_not(done: Path, key: str) -> None:
    config = changed(done)[1].settings.recipe
    top, _, inner = key.partition(".")
    with pytest.raises(RecipeError, match=rf"\n  {key} +(-|null) +5"):
        lines_of(done, {top: {**config.get(top, {}), inner: 5} if inner else 5})


def test_weights_to_begin_from_need_not_be_named_again(tmp_path: Path) -> None:
    def load(*_: Any) -> str:
        return "all"

    folder = train(toy_parts(tmp_path, epochs=1, weights="a.pth"), load).folder
    assert lines_of(folder) == [] and lines_of(folder, {"weights": "a.pth"}) == []
    with pytest.raises(RecipeError, match=r"weights +a.pth +b.pth"):
        lines_of(folder, {"weights": "b.pth"})


def test_a_checkpoint_of_others_has_no_recipe(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, parts = changed(done, {"seed": 7})
    monkeypatch.setattr(
        "detkit.training.run.resume_check.read_checkpoint", lambda path: {**read_checkpoint(path), "detkit": 5}
    )
    with pytest.raises(CheckpointError, match=r"step-00000006.ckpt: contains no recipe"):
        check_resume(manifest, parts.settings, parts.metadata())


def test_another_machine_is_said_in_a_line(done: Path) -> None:
    then = run_facts(toy_parts(done.parent.parent).metadata(), world_size=1)
    assert machine_differences(then, then) == []
    now = {**then, "threads": 64, "world_size": 4, "versions": {**then["versions"], "torch": "9.0"}}
    (line,) = machine_differences({**then, "threads": 2}, now)
    assert line.startswith("resumed, but the result may differ from an uninterrupted run: torch 2.")
    assert line.endswith(" then, 9.0 now; threads 2 then, 64 now; world size 1 then, 4 now")


def test_refused_before_anything_is_written(done: Path) -> None:
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    with pytest.raises(RecipeError, match=r"seed +0 +7"):
        train(changed(done, {"seed": 7})[1])
    assert {path: path.read_bytes() for path in done.rglob("*") if path.is_file()} == before


def test_an_allowed_change_is_that_of_the_next_resume(tmp_path: Path) -> None:
    """recipe.yaml and the checkpoints say what ran last, so that it can go on without being allowed again."""
    folder = train(toy_parts(tmp_path, epochs=1)).folder
    _, allowed = changed(folder, {"seed": 7, ALLOW_CHANGES: True}, epochs=2)
    train(allowed)
    assert [manifest.step for manifest in manifests_in(folder / "checkpoints")] == [6, 12]
    assert (folder / "recipe.yaml").read_text() == allowed.settings.recipe_yaml
    assert "seed: 7" in allowed.settings.recipe_yaml and "allow_changes: false" in allowed.settings.recipe_yaml
    assert lines_of(folder, {"seed": 7}) == []


def test_the_command_is_quoted() -> None:
    assert resume_command(Path("my runs/a")) == "detkit train 'resume=my runs/a'"
    assert resume_command(Path("a"), ["b", "c"]) == "detkit train resume=a trusted=b,c"
