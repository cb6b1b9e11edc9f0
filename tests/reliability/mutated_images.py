"""Images that are broken on purpose, decoded in processes that may die of it.

    python -m tests.reliability.mutated_images count=5000

What is promised of every mutant, whatever its kind: no process dies, nothing but a DataError that
names the file comes out, a picture has the size that the header says, is under the limit of pixels,
and the memory stays bounded. Of mutants that only lack data (``LACKING``): refused, or the very
pixels of the whole file; of a JPEG that was cut and given an end marker again, the last block may
differ. The same of all changes of a PNG, which has checksums. Elsewhere no decoder can know a changed
byte of coded pixels; such mutants may give another picture.
"""

import os
import resource
import sys
import tempfile
import time
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from detkit.data.checking.process_pool import Death, available_cores, work_on_all
from detkit.data.images.decode import decode_image
from detkit.data.images.header import read_header
from detkit.errors import DataError
from tests.reliability import arguments
from tests.reliability.image_faults import MUTATIONS, originals

MAX_PIXELS = 4_000_000  # of the mutants, by the user's setting
MAX_GROWTH_MB = 300  # of a process since the first mutant: 25 copies of so many pixels, with what allocators keep
LAST_BLOCK_PX = 18 * 18  # 16 x 16, and what its colours do to their neighbours
LACKING = ("cut", "sealed cut", "renamed")  # kinds that change nothing but what is there


class Mutant(NamedTuple):
    """A broken file."""

    number: int
    kind: str
    original: str  # a name in ``image_faults.originals``
    suffix: str
    data: bytes


class Outcome(NamedTuple):
    """What came of a mutant."""

    what: str  # refused, decoded or raised
    text: str = ""  # the message
    changed: int = 0  # pixels that are not those of the whole file; all of them where the size differs
    seconds: float = 0.0
    grown_mb: float = 0.0
    wrong: str = ""  # a promise that does not need the whole file to be judged


def mutants(count: int, seed: int = 0) -> list[Mutant]:
    """So many, of all kinds and originals in turn, the same for the same seed."""
    files, rng, made = originals(), np.random.default_rng(seed), []
    pairs = [(kind, name) for name in files for kind in MUTATIONS]
    order = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-count // len(pairs)))])[:count]
    for number, at in enumerate(order.tolist()):
        kind, name = pairs[at]
        suffix = rng.choice([".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".txt"])
        made.append(Mutant(number, kind, name, str(suffix), MUTATIONS[kind](rng, files[name])))
    return made


def judge(mutant: Mutant, folder: Path) -> Outcome:
    """Decode one mutant, in a process of its own kind."""
    path = folder / f"{os.getpid()}{mutant.suffix}"
    path.write_bytes(mutant.data)
    before_mb = _peak_mb()
    start = time.perf_counter()
    try:
        image = decode_image(path)
        header = read_header(path)
    except DataError as error:
        wrong = "" if path.name in str(error) else "does not name the file"
        outcome = Outcome("refused", str(error).replace(str(path), "FILE"), wrong=wrong)
    except BaseException as error:  # noqa: BLE001, that is what is looked for
        outcome = Outcome("raised", f"{type(error).__name__}: {error}", wrong="raises another error")
    else:
        wrong = "" if image.shape[:2] == (header.height, header.width) else "not the size of the header"
        wrong = wrong if image.shape[0] * image.shape[1] <= MAX_PIXELS else "more pixels than the limit"
        outcome = Outcome("decoded", changed=_changed(image, _whole(mutant.original, folder)), wrong=wrong)
    return outcome._replace(seconds=time.perf_counter() - start, grown_mb=_peak_mb() - before_mb)


def _changed(image: np.ndarray, whole: np.ndarray) -> int:
    if image.shape != whole.shape:
        return image.shape[0] * image.shape[1]
    return int((image != whole).any(axis=2).sum())


@cache
def _whole(name: str, folder: Path) -> np.ndarray:
    path = folder / f"{os.getpid()} whole"
    path.write_bytes(originals()[name])
    return decode_image(path)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Result(NamedTuple):
    """What came of many mutants."""

    counts: Counter[tuple[str, str]]  # by kind and outcome
    broken: list[str]  # every broken promise in words
    slowest_s: float
    most_grown_mb: float


def run(made: list[Mutant], num_workers: int, show: bool = False) -> Result:
    """Decode the mutants and judge what came of them."""
    kept = os.environ.get("DETKIT_MAX_PIXELS")
    os.environ["DETKIT_MAX_PIXELS"] = str(MAX_PIXELS)
    counts: Counter[tuple[str, str]] = Counter()
    broken, slowest_s, grown_mb = [], 0.0, 0.0
    try:
        with tempfile.TemporaryDirectory() as name:
            results = work_on_all(partial(judge, folder=Path(name)), made, num_workers)
            for number, outcome in track(results, "decoding", len(made), disable=not show, transient=True):
                mutant = made[number]
                what, wrong = _verdict(mutant, outcome)
                counts[mutant.kind, what] += 1
                if isinstance(outcome, Outcome):
                    slowest_s, grown_mb = max(slowest_s, outcome.seconds), max(grown_mb, outcome.grown_mb)
                if wrong:
                    broken.append(f"mutant {number}, {mutant.original}, {mutant.kind}: {wrong}")
    finally:
        os.environ.pop("DETKIT_MAX_PIXELS") if kept is None else os.environ.update(DETKIT_MAX_PIXELS=kept)
    return Result(counts, sorted(broken), slowest_s, grown_mb)


def _verdict(mutant: Mutant, outcome: Outcome | Death) -> tuple[str, str]:
    """What came out, and which promise is broken, if any."""
    if isinstance(outcome, Death):
        return "died", f"the process died ({outcome.how})"
    if outcome.wrong:
        return outcome.what, f"{outcome.wrong}: {outcome.text}"
    if outcome.grown_mb > MAX_GROWTH_MB:
        return outcome.what, f"memory grew by {outcome.grown_mb:.0f} MB"
    if outcome.what == "decoded":
        if not outcome.changed:
            return "same pixels", ""
        block = mutant.kind == "sealed cut" and mutant.original.startswith("JPEG") and outcome.changed <= LAST_BLOCK_PX
        checked = mutant.original.startswith("PNG") and mutant.kind != "other size"  # whose checksum is made right
        wrong = (mutant.kind in LACKING and not block) or checked
        return "other pixels", f"a partial or changed picture: {outcome.changed} pixels differ" if wrong else ""
    if mutant.kind == "renamed":
        return "refused", f"a whole file is refused: {outcome.text}"
    return "refused", ""


def main(given: list[str]) -> None:
    """Run as many as asked for and print a table; exit with 1 if a promise broke."""
    options = arguments.read(given, count=5000, seed=0, workers=available_cores())
    made = mutants(options["count"], options["seed"])
    result = run(made, options["workers"], show=True)
    columns = ("refused", "same pixels", "other pixels", "raised", "died")
    rows = [(kind, *(f"{result.counts[kind, column]:,}" for column in columns)) for kind in MUTATIONS]
    arguments.show("mutated images", rows, ("", *columns))
    sys.stdout.write(f"slowest {result.slowest_s:.1f} s, most memory for one {result.most_grown_mb:.0f} MB\n")
    arguments.finish(result.broken, len(made), "refused by name, or a picture that lacks nothing")


if __name__ == "__main__":
    main(sys.argv[1:])
