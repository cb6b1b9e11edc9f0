"""Kill a program at every point inside a save, and look at what is left.

    python -m tests.reliability.failpoints [count=POINTS]

The promise: the latest checkpoint and the detector are always whole, and are those before the save or
those after it; a start after the kill cleans up and saves again. Temporary files lie beside their
targets, so it does not matter where TMPDIR leads.
"""

import functools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from detkit.errors import CheckpointError
from detkit.training.run.folder import RunFolder
from tests.reliability import arguments, forked
from tests.reliability.disk import AtNumber, watched
from tests.reliability.saves import NEW, begin, save, start_again, what_is_left

OTHER_FILE_SYSTEM = Path("/dev/shm")


class Place(NamedTuple):
    """Where a run and the temporary folder lie."""

    name: str
    runs: Path
    temporary: Path


class Point(NamedTuple):
    """What a kill left."""

    name: str  # of the moment
    place: str
    checkpoint: int  # its step; 0: none that is whole
    detector: int
    fault: str  # what promise broke


def names_of_points(folder: Path) -> list[str]:
    """All points of a save, in their order."""
    run, counting = begin(folder), AtNumber(-1, lambda _: None)
    with watched(counting):
        save(run, NEW)
    return counting.names


def places(folder: Path) -> list[Place]:
    """The run's folder and the temporary one on one file system, and on two."""
    found = [Place("same", folder / "same", folder / "same temporary")]
    if OTHER_FILE_SYSTEM.is_dir() and OTHER_FILE_SYSTEM.stat().st_dev != folder.stat().st_dev:
        other = Path(tempfile.mkdtemp(dir=OTHER_FILE_SYSTEM))
        found.append(Place("TMPDIR elsewhere", folder / "here", other / "temporary"))
        found.append(Place("run elsewhere", other / "run", folder / "there temporary"))
    return found


def kill_at_every_point(folder: Path, most: int, progress: arguments.Progress = lambda *_: None) -> list[Point]:
    """Try all points, or as many evenly spread ones, at each place."""
    names = names_of_points(folder / "counted")
    numbers = sorted({round(i * (len(names) - 1) / max(1, most - 1)) for i in range(most)} & set(range(len(names))))
    tried, found = [], places(folder)
    try:
        for place in found:
            place.temporary.mkdir(parents=True)
            template = begin(place.runs / "template")
            for number in numbers:
                run = RunFolder(place.runs / str(number))
                shutil.copytree(template.path, run.path)
                tried.append(_kill_at(run, number, names[number], place))
                progress(len(tried), len(found) * len(numbers))
    finally:
        for place in found:
            shutil.rmtree(place.runs.parent if place.name == "run elsewhere" else place.runs, ignore_errors=True)
            shutil.rmtree(place.temporary.parent if place.name == "TMPDIR elsewhere" else place.temporary, True)
    return tried


def _kill_at(run: RunFolder, number: int, name: str, place: Place) -> Point:
    with forked.environment(TMPDIR=str(place.temporary)):
        ended = forked.run(functools.partial(_save_and_die, run, number), run.path / "said.txt")
    if ended.code != 128 + signal.SIGKILL:
        return Point(name, place.name, 0, 0, f"was not killed: exit code {ended.code}: {ended.said}")
    left = (0, 0)
    try:
        left = what_is_left(run)
        start_again(run)
        assert not list(place.temporary.iterdir()), "something lies in the temporary folder"
    except (AssertionError, CheckpointError) as error:
        return Point(name, place.name, *left, str(error))
    return Point(name, place.name, *left, "")


def _save_and_die(run: RunFolder, number: int) -> None:
    tempfile.tempdir = None  # look at TMPDIR again
    die: Callable[[str], None] = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    with watched(AtNumber(number, die)):
        save(run, NEW)


def main(argv: list[str]) -> None:
    given = arguments.read(argv, count=1000)
    with tempfile.TemporaryDirectory() as folder:
        tried = kill_at_every_point(Path(folder), given["count"], arguments.progress)
    by_name: dict[str, list[Point]] = {}
    for point in tried:
        by_name.setdefault(point.name, []).append(point)
    rows = [
        (name, *("/".join(sorted({str(getattr(p, part)) for p in points})) for part in ("checkpoint", "detector")))
        for name, points in by_name.items()
    ]
    arguments.show("killed at", rows, ["point", "latest checkpoint (2 before, 3 new)", "detector"])
    broken = [f"{point.place}: {point.name}: {point.fault}" for point in tried if point.fault]
    arguments.finish(broken, len(tried), f"always a whole checkpoint, at {len(by_name)} named points")


if __name__ == "__main__":
    main(sys.argv[1:])
