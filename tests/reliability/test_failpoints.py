"""The points at which the program of failpoints.py kills a save."""

from pathlib import Path

from tests.reliability.failpoints import names_of_points


def test_points_are_where_a_save_touches_the_disk(tmp_path: Path) -> None:
    names = names_of_points(tmp_path)
    assert len(names) >= 50 and {
        "before open detector.safetensors.tmp",
        "amid write detector.safetensors.tmp",
        "after replace detector.safetensors.tmp",
        "before open step-00000003.ckpt.tmp",
        "amid write step-00000003.ckpt.tmp",
        "before fsync step-00000003.ckpt.tmp",
        "after fsync step-00000003.ckpt.tmp",
        "before replace step-00000003.ckpt.tmp",
        "after replace step-00000003.ckpt.tmp",
        "before fsync folder",
        "amid write step-00000003.json.tmp",
        "before replace step-00000003.json.tmp",
        "after replace step-00000003.json.tmp",
        "after unlink step-00000001.json",
        "before unlink step-00000001.ckpt",
    } <= set(names)
    assert max(names.index(f"after fsync step-00000003.{kind}.tmp") for kind in ("ckpt", "json")) < names.index(
        "before replace step-00000003.ckpt.tmp"
    ), "both files are on disk before either takes its place"
