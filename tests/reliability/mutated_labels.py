"""YOLO-txt and VOC labels that are broken on purpose, read as training reads them.

    python -m tests.reliability.mutated_labels count=2000 seed=0

What is promised of every mutant: nothing but a DataError comes out, it names the file that was broken or its image
(of data.yaml, any file of the set, since other labels may lose their class by it), and it comes soon. Where no error
comes, the boxes are those that another reading of the same bytes gives: no mutant changes a number in silence.
"""

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.dom import minidom

import numpy as np
import yaml

from detkit.data.formats.layout import find_layout
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError
from tests.helpers.label_sets import voc_object, voc_xml, write_voc, write_yolo
from tests.reliability import arguments

MAX_SECONDS = 20.0  # of CPU time
WIDTH, HEIGHT = 200, 100  # of all images
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_EXTREMES = (b"nan", b"inf", b"-1", b"1e999", b"1_0", b"0x1", b"", b"99999999999999999999", b"1.5", b"\xd9\xa1", b"0")

Boxes = list[tuple[str, float, float, float, float]]  # class and xywh in pixels, in the order of the file
Mutation = Callable[[np.random.Generator, bytes], bytes]


class Outcome(NamedTuple):
    """What came of a mutant."""

    what: str  # refused, read, raised
    wrong: str = ""  # the promise that broke


def _flip(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(changed)


def _cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def _remove(rng: np.random.Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    return data[:start] + data[start + rng.integers(1, 20) :]


def _insert(rng: np.random.Generator, data: bytes) -> bytes:
    start = rng.integers(len(data) + 1)
    return data[:start] + rng.bytes(int(rng.integers(1, 20))) + data[start:]


def _other_number(rng: np.random.Generator, data: bytes) -> bytes:
    """One number replaced by what is none, or by an extreme one."""
    found = list(re.finditer(rb"[0-9.]+", data))
    where = found[rng.integers(len(found))]
    return data[: where.start()] + _EXTREMES[rng.integers(len(_EXTREMES))] + data[where.end() :]


def _swap_lines(rng: np.random.Generator, data: bytes) -> bytes:
    lines = data.split(b"\n")
    first, second = rng.integers(len(lines), size=2)
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _double(rng: np.random.Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    end = start + rng.integers(1, 60)
    return data[:end] + data[start:end] + data[end:]


def _nest(rng: np.random.Generator, data: bytes) -> bytes:
    """Brackets, tags or entities, many of them."""
    many = int(rng.integers(10, 20_000))
    forms = (b"[" * many, b"<a>" * many, b"&a;" * many, b"- " * many, b'<!DOCTYPE a [<!ENTITY a "b">]>', b"0 " * many)
    start = rng.integers(len(data) + 1)
    return data[:start] + forms[rng.integers(len(forms))] + data[start:]


def _encode_otherwise(rng: np.random.Generator, data: bytes) -> bytes:
    return data.decode().encode(("utf-16", "utf-32", "utf-8-sig", "cp037")[rng.integers(4)])


MUTATIONS: dict[str, Mutation] = {
    "bits": _flip,
    "cut": _cut,
    "part removed": _remove,
    "bytes inserted": _insert,
    "other number": _other_number,
    "lines swapped": _swap_lines,
    "part doubled": _double,
    "nested": _nest,
    "other encoding": _encode_otherwise,
    "two at once": lambda rng, data: _flip(rng, _other_number(rng, data)),
    "empty": lambda _, __: b"",
}


class LabelSet(NamedTuple):
    """A small set, a file of it at a time to break, and how its boxes are read otherwise."""

    root: Path
    files: tuple[str, ...]  # that are broken
    read: Callable[[Path], dict[str, Boxes]]  # stem to boxes


def make_sets(folder: Path) -> list[LabelSet]:
    """Two images each, and every form of a box that the format has."""
    lines = "0 0.5 0.5 0.25 0.5\n1 0.3 0.25 0.1 0.125\n"
    yaml_text = "train: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
    write_yolo(folder / "yolo", {"a.png": lines, "b.png": lines + "1 0.1 0.2 0.3 0.2 0.25 0.75\n"}, yaml=yaml_text)
    objects = [voc_object("cat", (1, 1, 50, 60), "<difficult>0</difficult>"), voc_object("dog", (11.5, 21, 150, 100))]
    xml = voc_xml(*objects).replace("><", ">\n<")
    write_voc(folder / "voc", {"a.png": xml, "b.png": '<?xml version="1.0" encoding="utf-8"?>\n' + xml})
    yolo_files = ("labels/train/a.txt", "labels/train/b.txt", "data.yaml")
    return [
        LabelSet(folder / "yolo", yolo_files, read_yolo_otherwise),
        LabelSet(folder / "voc", ("Annotations/a.xml", "Annotations/b.xml"), read_voc_otherwise),
    ]


def read_yolo_otherwise(root: Path) -> dict[str, Boxes]:
    """By regular expressions, one line at a time; an error is a file that had to be refused."""
    names = yaml.safe_load((root / "data.yaml").read_text(encoding="utf-8-sig"))["names"]
    names: dict[float, Any] = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    found: dict[str, Boxes] = {}
    for path in sorted((root / "labels/train").glob("*.txt")):
        boxes = found[path.stem] = []
        for line in re.split("\n", path.read_bytes().decode("utf-8-sig")):
            words = line.split()
            if not words:
                continue
            if not all(_NUMBER.fullmatch(word) for word in words):
                raise ValueError(f"{path.name}: {line!r}")
            label, *numbers = (float(word) for word in words)
            xs, ys = numbers[::2], numbers[1::2]
            if len(numbers) == 4:
                cx, cy, w, h = numbers
                xs, ys = [cx - w / 2, cx + w / 2], [cy - h / 2, cy + h / 2]
            elif len(numbers) < 6 or len(numbers) % 2:
                raise ValueError(f"{path.name}: {len(numbers)} numbers")
            left, top = min(xs) * WIDTH, min(ys) * HEIGHT
            if len(numbers) == 4 and (numbers[2] < 0 or numbers[3] < 0):  # as it stands: no area, left out of training
                left, top = xs[0] * WIDTH, ys[0] * HEIGHT
                boxes.append((str(names[label]), left, top, numbers[2] * WIDTH, numbers[3] * HEIGHT))
            else:
                boxes.append((str(names[label]), left, top, max(xs) * WIDTH - left, max(ys) * HEIGHT - top))
    return found


def read_voc_otherwise(root: Path) -> dict[str, Boxes]:
    """By the document object model; an error is a file that had to be refused."""
    found: dict[str, Boxes] = {}
    for path in sorted((root / "Annotations").glob("*.xml")):
        boxes = found[path.stem] = []
        top = minidom.parseString(path.read_bytes()).documentElement
        for item in (node for node in top.childNodes if node.nodeName == "object"):  # type: ignore[union-attr]
            [box] = [node for node in item.childNodes if node.nodeName == "bndbox"][:1]
            corners = [_text(box, key) for key in ("xmin", "ymin", "xmax", "ymax")]
            if not all(_NUMBER.fullmatch(corner) for corner in corners):
                raise ValueError(f"{path.name}: {corners}")
            left, upper, right, lower = map(float, corners)
            boxes.append((_text(item, "name"), left, upper, right, lower))
    from_1 = not any(0 <= corner < 1 for boxes in found.values() for box in boxes for corner in box[1:3])
    return {
        stem: [
            (name, x - from_1, y - from_1, right - x + from_1, lower - y + from_1) for name, x, y, right, lower in boxes
        ]
        for stem, boxes in found.items()
    }


def _text(parent: Any, name: str) -> str:
    """The text of the first child of a name, up to its first child."""
    [child] = [node for node in parent.childNodes if node.nodeName == name][:1]
    texts: list[str] = []
    for node in child.childNodes:
        if node.nodeType == node.ELEMENT_NODE:
            break
        texts.append(getattr(node, "data", "") if node.nodeType in (node.TEXT_NODE, node.CDATA_SECTION_NODE) else "")
    return "".join(texts).strip()


def judge(broken: LabelSet, file: str) -> Outcome:
    """Read a set of which one file was broken."""
    start = time.process_time()
    try:
        splits = find_layout(broken.root)
        index = load_index(*splits["train"], broken.root) if "train" in splits else None
    except DataError as error:
        told = str(error)
        names = (
            ["data.yaml", "a.txt", "b.txt"] if file.endswith(".yaml") else [Path(file).name, f"{Path(file).stem}.png"]
        )
        outcome = Outcome("refused", "" if any(name in told for name in names) else f"does not name the file: {told}")
    except BaseException as error:  # noqa: BLE001, that is what is looked for
        outcome = Outcome("raised", f"raises {type(error).__name__}: {error}")
    else:
        outcome = Outcome("read", _difference(index, broken)) if index else Outcome("no train split")
    seconds = time.process_time() - start
    return outcome if seconds < MAX_SECONDS else Outcome(outcome.what, f"took {seconds:.0f} s")


def _difference(index: CocoIndex, broken: LabelSet) -> str:
    truth = index.ground_truth()
    got: dict[str, Boxes] = {index.path(row).stem: [] for row in range(len(index))}
    for row, label, box in zip(truth.image_rows, truth.labels, truth.boxes_xywh.tolist(), strict=True):
        got[index.path(row).stem].append((truth.class_names[label], *box))
    try:
        wanted = broken.read(broken.root)
    except (ValueError, LookupError, TypeError, ArithmeticError, minidom.xml.parsers.expat.ExpatError) as error:  # type: ignore[attr-defined]
        return f"is read, and had to be refused: {error}"
    for stem, boxes in wanted.items():
        names, numbers = [box[0] for box in boxes], [box[1:] for box in boxes]
        if names != [box[0] for box in got[stem]] or not np.allclose(
            numbers, [box[1:] for box in got[stem]], atol=0.005
        ):
            return f"{stem}: {got[stem]} is read, {boxes} is there"
    return ""


def run(
    count: int, seed: int, folder: Path, progress: arguments.Progress
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Break one file at a time; what came out by format and kind of mutation, and every broken promise in words."""
    rng = np.random.default_rng(seed)
    sets = make_sets(folder)
    counts: Counter[tuple[str, str]] = Counter()
    wholes = {one.root.name: judge(one, one.files[0]) for one in sets}
    failures = [f"{name}, whole: {outcome}" for name, outcome in wholes.items() if outcome != Outcome("read")]
    for number in range(count):
        one = sets[number % len(sets)]
        file, kind = one.files[rng.integers(len(one.files))], [*MUTATIONS][rng.integers(len(MUTATIONS))]
        path = one.root / file
        whole = path.read_bytes()
        path.write_bytes(MUTATIONS[kind](rng, whole))
        outcome = judge(one, file)
        counts[f"{one.root.name}: {kind}", outcome.what] += 1
        if outcome.wrong:
            failures.append(f"mutant {number} of {file}, {kind}: {outcome.wrong} ({path.read_bytes()[:100]!r})")
        path.write_bytes(whole)
        progress(number + 1, count)
    return counts, failures


def main(argv: list[str]) -> None:
    """Break as many as asked for, and show a table."""
    options = arguments.read(argv, count=2000, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        counts, failures = run(options["count"], options["seed"], Path(folder), arguments.progress)
    kinds = sorted({kind for kind, _ in counts})
    columns = ("refused", "read", "no train split", "raised")
    rows = [(kind, *(counts[kind, column] for column in columns)) for kind in kinds]
    arguments.show("Labels broken on purpose", rows, ("format: mutation", *columns))
    arguments.finish(failures, options["count"], "refused by name, or read as another reader reads them")


if __name__ == "__main__":
    main(sys.argv[1:])
