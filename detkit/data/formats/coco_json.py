"""A COCO annotation file to plain columns. Every value of a wrong type is an error."""

import json
import reprlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeGuard, TypeVar, cast

import numpy as np

from detkit.data.findings import Findings, Place
from detkit.files import open_regular

_Value = TypeVar("_Value")
_Check = Callable[[object], TypeGuard[_Value]]
_MISSING = object()
_RULE = "make it an object with images, annotations and categories, as COCO's own are"
_NO_COCO = "not a COCO annotation file"
_AGAIN = "write the file again, or copy it again"
MAX_BYTES = 8 << 30  # Python needs ten times as much memory for it
_TOO_LARGE = 1e9  # px; the comparison refuses NaN and Infinity too


class CocoColumns(NamedTuple):
    """The tables of the file, rows in its order, nothing repaired."""

    image_ids: np.ndarray  # (images,) int64
    sizes_hw: np.ndarray  # (images, 2) int32
    file_names: list[str]
    annotation_ids: np.ndarray  # (boxes,) int64
    box_image_ids: np.ndarray  # (boxes,) int64
    box_category_ids: np.ndarray  # (boxes,) int64
    boxes_xywh: np.ndarray  # (boxes, 4) float64
    areas: np.ndarray  # (boxes,) float64: width * height where the file has none
    crowd: np.ndarray  # (boxes,) bool
    category_ids: np.ndarray  # (C,) int64, ascending
    class_names: tuple[str, ...]  # in the order of category_ids


def read_columns(file: Path, findings: Findings) -> CocoColumns:
    """Read the file; the parsed JSON is not kept.

    Args:
        file: COCO annotation file.
        findings: takes what is wrong with its values.

    Raises:
        DataError: one for all values of a wrong type, or if the file is no COCO annotation file.
    """
    document = _read_json(file, findings)
    images = _Table(document, "images", "image", findings)
    boxes = _Table(document, "annotations", "annotation", findings)
    categories = _Table(document, "categories", "category", findings)
    heights = images.column("height", _is_size, "a whole number from 1", fill=1)
    widths = images.column("width", _is_size, "a whole number from 1", fill=1)
    stated_boxes = boxes.column("bbox", _is_box, "[x, y, width, height] in finite numbers", fill=[0, 0, 0, 0])
    boxes_xywh = np.array(stated_boxes, dtype=np.float64).reshape(-1, 4)
    stated_areas = boxes.column("area", _is_area, "a finite number from 0", fill=None, default=None)
    areas = np.array(stated_areas, dtype=np.float64)  # none becomes NaN
    names = categories.column("name", _is_text, "a text", fill="")
    order = np.argsort(categories.ids, kind="stable")
    columns = CocoColumns(
        image_ids=images.ids,
        sizes_hw=np.stack((np.array(heights, dtype=np.int32), np.array(widths, dtype=np.int32)), axis=1),
        file_names=images.column("file_name", _is_text, "a text", fill=""),
        annotation_ids=boxes.ids,
        box_image_ids=np.array(boxes.column("image_id", _is_integer, "a whole number", fill=0), dtype=np.int64),
        box_category_ids=np.array(boxes.column("category_id", _is_integer, "a whole number", fill=0), dtype=np.int64),
        boxes_xywh=boxes_xywh,
        areas=np.where(np.isnan(areas), boxes_xywh[:, 2] * boxes_xywh[:, 3], areas),
        crowd=np.array(boxes.column("iscrowd", _is_flag, "0 or 1", fill=0, default=0), dtype=bool),
        category_ids=categories.ids[order],
        class_names=tuple(names[row] for row in order),
    )
    _note_missing(boxes, findings)
    findings.raise_errors()
    return columns


def _note_missing(boxes: "_Table", findings: Findings) -> None:
    """Note missing keys that pycocotools needs; otherwise nobody would notice a misspelt key."""
    for key, taken in (("area", "width x height is taken"), ("iscrowd", "no crowd is taken")):
        missing = [row for row, record in enumerate(boxes.records) if record.get(key) is None]
        places = (Place(f"annotation {boxes.ids[row]}", annotation_id=int(boxes.ids[row])) for row in missing)
        findings.notice(
            f"annotation-{key}-missing", f"annotations without {key}, for which {taken}", len(missing), places
        )


class _Table:
    """One list of the document, read column by column; wrong values become errors.

    Args:
        document: the whole file.
        key: of the list.
        record: name of one of its records.
        findings: takes the errors.
    """

    def __init__(self, document: dict[str, object], key: str, record: str, findings: Findings) -> None:
        records = document[key]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            findings.fail("not-coco", _NO_COCO, f"{key!r} must be a list of objects", _RULE)
        self.records: list[dict[str, object]] = records
        self.key = key
        self.record = record
        self.findings = findings
        self.ids = np.zeros(0, dtype=np.int64)
        self.ids = np.array(self.column("id", _is_integer, "a whole number", fill=0), dtype=np.int64)

    def column(
        self,
        key: str,
        is_right: _Check[_Value],
        rule: str,
        fill: _Value,
        default: object = _MISSING,
    ) -> list[_Value]:
        """Values of one key. A wrong value becomes an error and ``fill``; the errors end the run later."""
        values = [record.get(key, default) for record in self.records]
        wrong = [row for row, value in enumerate(values) if not is_right(value)]
        places = (self._place(row, values[row]) for row in wrong)
        what = f"{self.key} whose {key} is not {rule}"
        self.findings.error(
            f"{self.record}-{key.replace('_', '-')}-wrong", what, len(wrong), places, "correct or remove them"
        )
        for row in wrong:
            values[row] = fill
        return cast("list[_Value]", values)  # every wrong value was replaced

    def _place(self, row: int, value: object) -> Place:
        if not len(self.ids):
            return Place(f"{self.key}[{row}] has {_show(value)}")
        number = int(self.ids[row])
        image_id, annotation_id = (number if self.record == record else None for record in ("image", "annotation"))
        return Place(f"{self.record} {number} has {_show(value)}", image_id=image_id, annotation_id=annotation_id)


def _read_json(file: Path, findings: Findings) -> dict[str, object]:
    kind = "json-invalid"
    constants: Counter[str] = Counter()

    def read_constant(name: str) -> float:
        constants[name] += 1
        return float(name)

    try:
        with open_regular(file, MAX_BYTES) as opened:
            document = json.loads(opened.read().decode("utf-8-sig"), parse_constant=read_constant)
    except OSError as error:
        findings.fail("annotations-unreadable", "annotation files that cannot be read", str(error.strerror), _AGAIN)
    except UnicodeDecodeError as error:
        findings.fail(kind, "not a JSON file", f"byte {error.start} is no UTF-8", _AGAIN)
    except json.JSONDecodeError as error:
        findings.fail(kind, "not valid JSON", f"line {error.lineno}, column {error.colno}: {error.msg}", _AGAIN)
    except ValueError as error:  # of Python's limit for whole numbers
        findings.fail(kind, "not valid JSON", str(error), _AGAIN)
    except RecursionError:
        findings.fail("not-coco", _NO_COCO, "its JSON is nested too deeply", _RULE)
    what = "numbers NaN, Infinity or -Infinity, which are no JSON and which other programs refuse"
    findings.notice("json-constant", what, constants.total(), map(Place, constants.elements()))
    if not isinstance(document, dict):
        findings.fail("not-coco", _NO_COCO, f"it is a {type(document).__name__}", _RULE)
    if missing := [key for key in ("images", "annotations", "categories") if key not in document]:
        findings.fail("not-coco", _NO_COCO, f"it lacks {', '.join(missing)}", _RULE)
    return document


def _show(value: object) -> str:
    return "none" if value is _MISSING else reprlib.repr(value)


def _is_integer(value: object) -> TypeGuard[float]:
    return (type(value) is int and -(2**63) <= value < 2**63) or (
        type(value) is float and value.is_integer() and abs(value) < 2**53
    )


def _is_size(value: object) -> TypeGuard[float]:
    return _is_integer(value) and 1 <= value < 2**31


def _is_text(value: object) -> TypeGuard[str]:
    return type(value) is str and value != "" and value == value.encode(errors="ignore").decode()


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and type(value) is not bool and -_TOO_LARGE < value < _TOO_LARGE


def _is_box(value: object) -> TypeGuard[list[float]]:
    return type(value) is list and len(value) == 4 and all(_is_number(number) for number in value)


def _is_area(value: object) -> TypeGuard[float | None]:
    return value is None or (isinstance(value, int | float) and type(value) is not bool and 0 <= value < _TOO_LARGE**2)


def _is_flag(value: object) -> TypeGuard[int]:
    return type(value) in (int, bool) and value in (0, 1)
