"""The words of a predict command and the rows of its CSV file."""

import csv
import io
from pathlib import Path

LOW = "score_threshold=0.01"


def words(checkpoint: Path, source: Path, out: Path, *more: str) -> list[str]:
    return ["scripts/predict.py", f"checkpoint={checkpoint}", f"source={source}", f"out={out}", "device=cpu", *more]


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))
