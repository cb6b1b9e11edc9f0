"""Damaged files: some here, thousands by the program."""

from pathlib import Path

from tests.reliability.damaged import damage_all


def test_all_damage_is_found_and_named(tmp_path: Path) -> None:
    results = damage_all(tmp_path, flips=60, cuts=20)
    assert [(result.kind, fault) for result in results for fault in result.unnoticed] == []
    assert {result.kind for result in results} == {"checkpoint", "mark", "detector"}
    assert [result.tried for result in results] == [60, 20] * 3
