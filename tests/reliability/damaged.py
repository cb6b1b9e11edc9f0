"""Flip bits of checkpoints, manifests and detector files, and cut them: every one must be found, with the file named.

    python -m tests.reliability.damaged [flips=2000] [cuts=500]

Half of the flips fall anywhere; the other half is spread evenly over the first and last kilobytes,
where the formats have their structure. A damaged checkpoint must also give way to the one before it.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from detkit.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    read_checkpoint,
    read_detector,
    write_checkpoint,
    write_detector,
)
from detkit.errors import CheckpointError
from tests.helpers.toy import ToyDetector
from tests.reliability import arguments

EDGE_BYTES = 2048


class Damaged(NamedTuple):
    """A file of one kind, and what was found of the damage done to it."""

    kind: str
    damage: str
    tried: int
    messages: dict[str, int]  # and how often
    unnoticed: list[str]


def damage_all(folder: Path, flips: int, cuts: int, progress: arguments.Progress = lambda *_: None) -> list[Damaged]:
    """Damage each kind of file in both ways."""
    rng = np.random.default_rng(0)
    files = _files(folder)
    jobs = [(kind, damage) for kind in files for damage in ("bit flip", "cut")]
    results = []
    for number, (kind, damage) in enumerate(jobs):
        path, read = files[kind]
        content = path.read_bytes()
        damaged = _flips(content, flips, rng) if damage == "bit flip" else _cuts(content, cuts, rng)
        results.append(_try(kind, damage, path, read, damaged))
        path.write_bytes(content)
        read()  # whole again
        progress(number + 1, len(jobs))
    return results


def _files(folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """A checkpoint with one before it, and a detector, of a small network; and how each is read."""
    model = ToyDetector()
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    state: dict[str, Any] = {"state_dict": dict(model.state_dict()), "optimizer_states": [optimizer.state_dict()]}
    facts = {"recipe_sha256": "0" * 64, "versions": {"torch": str(torch.__version__)}, "threads": 1, "world_size": 1}
    for step in (1, 2):
        path = checkpoint_path(folder, step)
        write_checkpoint(path, {**state, "step": step}, step=step, epoch=0, score=0.125, facts=facts)
    detector = folder / "detector.safetensors"
    write_detector(detector, dict(model.state_dict()), {"recipe": {"seed": 0, "note": "Gänse"}, "class_names": ["a"]})

    def read_second() -> None:
        latest = latest_checkpoint(folder)
        assert latest is not None and latest.step == 2 - (not _is_readable(path)), "damage hid the one before"
        read_checkpoint(path)

    return {
        "checkpoint": (path, read_second),
        "manifest": (path.with_suffix(".json"), read_second),
        "detector": (detector, lambda: read_detector(detector)),
    }


def _is_readable(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _try(
    kind: str, damage: str, path: Path, read: Callable[[], object], damaged: Iterator[tuple[str, bytes]]
) -> Damaged:
    messages: dict[str, int] = {}
    unnoticed, tried = [], 0
    for what, content in damaged:
        path.write_bytes(content)
        tried += 1
        try:
            read()
        except CheckpointError as error:
            said = str(error)
            if path.stem not in said:
                unnoticed.append(f"{what}: the file is not named: {said}")
            reason = re.sub(r"\d+", "N", said.split(": ", 1)[1].partition(":")[0])
            messages[reason] = messages.get(reason, 0) + 1
        else:
            unnoticed.append(f"{what}: read as if it were whole")
    return Damaged(kind, damage, tried, messages, unnoticed)


def _flips(content: bytes, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    bits = len(content) * 8
    edge = min(EDGE_BYTES * 8, bits // 2)
    at_edges = np.linspace(-edge, edge - 1, count // 2).astype(int) % bits
    anywhere = rng.choice(bits, min(bits, count - len(at_edges)), replace=False)
    for bit in np.concatenate((at_edges, anywhere)).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(flipped)


def _cuts(content: bytes, count: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """At the end, as a full disk would; and pieces out of the middle."""
    ends = np.linspace(0, len(content) - 1, count // 2).astype(int)
    for end in ends.tolist():
        yield f"cut at {end}", content[:end]
    for start, stop in np.sort(rng.integers(0, len(content), (count - len(ends), 2)), axis=1).tolist():
        yield f"without {start}..{stop}", content[:start] + content[stop + 1 :]


def main(argv: list[str]) -> None:
    given = arguments.read(argv, flips=2000, cuts=500)
    with tempfile.TemporaryDirectory() as folder:
        results = damage_all(Path(folder), given["flips"], given["cuts"], arguments.progress)
    rows = [
        (r.kind, r.damage, r.tried, len(r.unnoticed), "; ".join(f"{n} x {text}" for text, n in r.messages.items()))
        for r in results
    ]
    arguments.show("damaged files", rows, ["file", "damage", "tried", "unnoticed", "said"])
    broken = [f"{result.kind}: {fault}" for result in results for fault in result.unnoticed]
    arguments.finish(broken, sum(result.tried for result in results), "all damage found and named")


if __name__ == "__main__":
    main(sys.argv[1:])
