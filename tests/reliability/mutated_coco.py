"""Annotation files that are broken on purpose: refused by name, or as right as pycocotools finds them.

    python -m tests.reliability.mutated_coco count=10000

Every mutant has one or two faults. It is promised that nothing but a DataError comes out, that this names
the file, and that a mutant which is accepted gives pycocotools' own twelve numbers on the very same file,
with its own boxes, shaken, as detections. Where pycocotools cannot read what COCO's files always have
(``area``, ``iscrowd``), or miscounts annotation 0, it is given the file with that made good, as the data
check says.
"""

import codecs
import copy
import json
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from detkit.data.index.coco_index import load_index
from detkit.errors import DataError
from detkit.metrics import CocoMetric
from tests.helpers.coco_files import detections_of, pycocotools_says, targets_of
from tests.reliability import arguments
from tests.reliability.coco_faults import mutate

SIZE_WH = (64, 48)
MAX_SECONDS = 5.0  # of CPU time, for one mutant


class Outcome(NamedTuple):
    """What became of one mutant."""

    what: str  # refused, equal, no boxes, or what was broken
    text: str = ""

    @property
    def is_broken(self) -> bool:
        return self.what not in ("refused", "equal", "no boxes")


def base_document() -> dict[str, Any]:
    """Four images and eleven boxes of three classes; ids with gaps, a crowd, areas of masks, a name with accents."""
    rng = np.random.default_rng(0)
    images = [
        {"id": number, "file_name": f"{row}.jpg", "width": SIZE_WH[0], "height": SIZE_WH[1]}
        for row, number in enumerate((10, 11, 3, 40))
    ]
    annotations = []
    for row in range(11):
        width, height = rng.integers(6, 30), rng.integers(6, 30)
        x, y = rng.integers(0, SIZE_WH[0] - width), rng.integers(0, SIZE_WH[1] - height)
        annotations.append(
            {
                "id": 5 + 2 * row,
                "image_id": (10, 11, 3)[row % 3],
                "category_id": (1, 2, 90)[row % 4 % 3],
                "bbox": [int(x), int(y), float(width), float(height)],
                "area": float(width * height) * 0.75,
                "iscrowd": int(row == 7),
            }
        )
    categories = [{"id": number, "name": name} for number, name in ((2, "gato"), (1, "niño"), (90, "cup"))]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_images(folder: Path) -> None:
    """The images of the document, and what its names must not lead to."""
    images = folder / "images"
    (images / "sub").mkdir(parents=True)
    for row in range(4):
        cv2.imwrite(str(images / f"{row}.jpg"), np.full((SIZE_WH[1], SIZE_WH[0], 3), 40 * row, np.uint8))
    (images / "no_image.jpg").write_text("no image")
    (folder / "outside.jpg").write_bytes((images / "0.jpg").read_bytes())
    (images / "leads_out.jpg").symlink_to(folder / "outside.jpg")
    os.mkfifo(images / "pipe")


def try_mutant(folder: Path, text: bytes, rng: np.random.Generator) -> Outcome:
    """Read one mutant as a training would, and compare what it measures with pycocotools."""
    file = folder / "annotations.json"
    file.write_bytes(text)
    start = time.process_time()
    try:
        index = load_index(file, folder / "images")
    except DataError as error:
        named = str(file) in str(error)
        return Outcome("refused", str(error)) if named else Outcome("file not named", str(error))
    except Exception as error:  # noqa: BLE001, this is what is looked for
        return Outcome("traceback", repr(error))
    if time.process_time() - start > MAX_SECONDS:
        return Outcome("slow", f"{time.process_time() - start:.1f} s")
    metric = CocoMetric(index.ground_truth())
    document = json.loads(text.decode("utf-8-sig"))
    images = [{key: int(image[key]) for key in ("id", "width", "height")} for image in document["images"]]
    found = detections_of(_shaken(document, rng), [image["id"] for image in images])
    metric.update(found, targets_of({"images": images}))
    ours = {name: value.item() for name, value in metric.compute().items()}
    results = metric.detections_json()
    if not results:
        return Outcome("no boxes") if set(ours.values()) <= {-1.0, 0.0} else Outcome("AP of nothing", str(ours))
    judged, made_good = file, _made_good(copy.deepcopy(document))
    if made_good != document or text.startswith(codecs.BOM_UTF8):
        judged = folder / "judged.json"
        judged.write_text(json.dumps(made_good))
    theirs, _ = pycocotools_says(judged, results)
    differing = {name: (ours[name], theirs[name]) for name in theirs if abs(ours[name] - theirs[name]) > 1e-12}
    return Outcome("another AP", str(differing)) if differing else Outcome("equal")


def _shaken(document: dict[str, Any], rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Detections of each image, by the file's own boxes: (K, 6) float32 xyxy, score, class index."""
    category_ids = sorted(category["id"] for category in document["categories"])
    found: dict[int, list[list[float]]] = {}
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        if width > 0 and height > 0:
            label = category_ids.index(annotation["category_id"])
            shift = float(rng.choice([0, 0, 0.1])) * width
            row = [x + shift, y, x + shift + width, y + height, round(float(rng.random()), 2), label]
            found.setdefault(int(annotation["image_id"]), []).append(row)
    return {image_id: np.array(rows, dtype=np.float32) for image_id, rows in found.items()}


def _made_good(document: dict[str, Any]) -> dict[str, Any]:
    """What pycocotools needs and detkit does without: areas, crowd flags, no annotation 0."""
    has_zero = any(annotation["id"] == 0 for annotation in document["annotations"])
    for number, annotation in enumerate(document["annotations"], start=1):
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        annotation.setdefault("iscrowd", 0)
        annotation["id"] = number if has_zero else annotation["id"]
    return document


def run(folder: Path, numbers: Any, seed: int) -> dict[int, tuple[list[str], Outcome]]:
    """What became of each mutant, and its faults; a mutant is a function of the seed and its number."""
    write_images(folder)
    document, outcomes = base_document(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of numpy: an overflow that nobody looked at
        for number in numbers:
            rng = np.random.default_rng([seed, number])
            names, text = mutate(rng, document)
            outcomes[number] = (names, try_mutant(folder, text, rng))
    return outcomes


def main(argv: list[str]) -> None:
    """Run as many mutants as asked for, and say what became of them."""
    given = arguments.read(argv, count=10_000, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        numbers = track(range(given["count"]), "mutants", console=Console(stderr=True))
        outcomes = run(Path(folder), numbers, given["seed"])
    tried: Counter[str] = Counter()
    became: Counter[tuple[str, str]] = Counter()
    for names, outcome in outcomes.values():
        for name in {*names, "all"}:
            tried[name] += 1
            became[name, "broken" if outcome.is_broken else outcome.what] += 1
    whats = ("refused", "equal", "no boxes", "broken")
    faults = sorted(tried, key=lambda name: (name == "all", name))
    rows = [(name, tried[name], *(became[name, what] for what in whats)) for name in faults]
    arguments.show("mutated COCO files", rows, ("fault", "mutants", "refused", "equal AP", "no boxes", "broken"))
    broken = [
        f"mutant {number} of seed {given['seed']} ({', '.join(names)}): {outcome.what}: {outcome.text}"
        for number, (names, outcome) in outcomes.items()
        if outcome.is_broken
    ]
    arguments.finish(broken, len(outcomes), "refused by name, or pycocotools' AP")


if __name__ == "__main__":
    main(sys.argv[1:])
