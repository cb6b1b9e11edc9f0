"""Every kind of hostile file through the functions that read it, some through the scripts; the program does all."""

from pathlib import Path

from tests.reliability.hostile import try_all


def test_nothing_runs_and_one_line_says_why(tmp_path: Path) -> None:
    results = try_all(tmp_path / "kind", scripts_every=12)
    assert [fault for result in results for fault in result.broken] == []
    assert len(results) >= 200
