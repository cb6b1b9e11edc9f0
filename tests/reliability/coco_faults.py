"""Faults that annotation files have, each as a function: some of the document, some of its text."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np

Document = Any
TABLES = {"images": "image", "annotations": "annotation", "categories": "category"}
JUNK: tuple[Any, ...] = (
    *(None, True, False, "", "7", "NaN", [], {}, [1], {"id": 1}, -1, 0, 1, 1.0, 1.5, -0.0, 1e-320, 1e308, 2**31, 2**53),
    *(2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**70, 10**400, float("nan"), float("inf"), -float("inf"), "\ud800", "\0"),
)
BOXES: tuple[Any, ...] = (
    *([-5, -5, 20, 20], [5, 5, 0, 10], [5, 5, 10, -3], [5, 5, -3, -3], [500, 500, 5, 5], [0.1, 0.2, 0.3, 0.4]),
    *([0, 0, 1e8, 1e8], [1e8, 1e8, 1e8, 1e8], [1e308, 1, 1, 1], [0, 0, 1e-9, 1e-9], [5, 5, 5], [1, 2, 3, 4, 5]),
    *(
        [[1, 2], [3, 4]],
        ["1", "2", "3", "4"],
        [1, 2, None, 4],
        [True, False, 3, 4],
        {"x": 1},
        "1 2 3 4",
        [10, 10, 60, 45],
    ),
)
NAMES: tuple[Any, ...] = (
    *(
        "../0.jpg",
        "/etc/passwd",
        "0.jpg/",
        "./0.jpg",
        "//0.jpg",
        "x/../0.jpg",
        "C:\\0.jpg",
        "..\\0.jpg",
        "0.JPG",
        " 0.jpg",
    ),
    *(
        "a" * 300,
        "a" * 5000,
        "a/" * 2000 + "0.jpg",
        ".",
        "..",
        "sub",
        "pipe",
        "leads_out.jpg",
        "a.json",
        "no_image.jpg",
    ),
    *("0.jpg\0.png", "0.jpg\n", "0\u0301.jpg", "\u202e0.jpg", "[bold]0[/bold].jpg", "%00", "file:///etc/passwd"),
)


def _record(rng: np.random.Generator, document: Document) -> tuple[str, dict[str, Any]]:
    """A random record of a random table, and the table's key."""
    key = str(rng.choice([key for key in TABLES if _records(document, key)]))
    records = _records(document, key)
    return key, records[int(rng.integers(len(records)))]


def _records(document: Document, key: str) -> list[dict[str, Any]]:
    found = document.get(key) if isinstance(document, dict) else None
    return [record for record in found if isinstance(record, dict) and record] if isinstance(found, list) else []


def _one_of(rng: np.random.Generator, values: tuple[Any, ...]) -> Any:
    return copy.deepcopy(values[int(rng.integers(len(values)))])


def junk_value(rng: np.random.Generator, document: Document) -> None:
    _, record = _record(rng, document)
    record[str(rng.choice(sorted(record)))] = _one_of(rng, JUNK)


def missing_key(rng: np.random.Generator, document: Document) -> None:
    _, record = _record(rng, document)
    del record[str(rng.choice(sorted(record)))]


def misspelt_key(rng: np.random.Generator, document: Document) -> None:
    _, record = _record(rng, document)
    key = str(rng.choice(sorted(record)))
    record[key.upper()] = record.pop(key)


def junk_record(rng: np.random.Generator, document: Document) -> None:
    document[_record(rng, document)[0]].append(_one_of(rng, JUNK))


def repeated_record(rng: np.random.Generator, document: Document) -> None:
    key, record = _record(rng, document)
    document[key].append(copy.deepcopy(record))


def repeated_box(rng: np.random.Generator, document: Document) -> None:
    """The same again under an id of its own, which is allowed."""
    record = copy.deepcopy(_records(document, "annotations")[0])
    record["id"] = int(rng.integers(10_000, 20_000))
    document["annotations"].append(record)


def lost_record(rng: np.random.Generator, document: Document) -> None:
    key, record = _record(rng, document)
    document[key].remove(record)


def table_of_another_kind(rng: np.random.Generator, document: Document) -> None:
    key = str(rng.choice(sorted(TABLES)))
    document[key] = _one_of(rng, (*JUNK, {"1": {"id": 1}}, [[]], [None]))


def table_lost(rng: np.random.Generator, document: Document) -> None:
    document.pop(str(rng.choice(sorted(TABLES))), None)


def table_empty(rng: np.random.Generator, document: Document) -> None:
    document[str(rng.choice(sorted(TABLES)))] = []


def tables_swapped(rng: np.random.Generator, document: Document) -> None:
    one, other = rng.permutation(sorted(TABLES))[:2]
    document[one], document[other] = document[other], document[one]


def other_id(rng: np.random.Generator, document: Document) -> None:
    _, record = _record(rng, document)
    record["id"] = int(rng.choice([0, -1, 1, 2, 10, 999, 2**40, 2**62]))


def ids_as_floats(rng: np.random.Generator, document: Document) -> None:
    for record in _records(document, str(rng.choice(sorted(TABLES)))):
        record["id"] = float(record["id"])


def other_reference(rng: np.random.Generator, document: Document) -> None:
    record = _records(document, "annotations")[0]
    record[str(rng.choice(["image_id", "category_id"]))] = int(rng.choice([0, 1, 2, 3, 10, 11, 999]))


def other_box(rng: np.random.Generator, document: Document) -> None:
    records = _records(document, "annotations")
    records[int(rng.integers(len(records)))]["bbox"] = _one_of(rng, BOXES)


def boxes_as_corners(_: np.random.Generator, document: Document) -> None:
    for record in _records(document, "annotations"):
        x, y, width, height = record["bbox"]
        record["bbox"] = [x, y, x + width, y + height]


def boxes_normalised(_: np.random.Generator, document: Document) -> None:
    for record in _records(document, "annotations"):
        record["bbox"] = [value / 64 for value in record["bbox"]]


def other_name(rng: np.random.Generator, document: Document) -> None:
    records = _records(document, "images")
    records[int(rng.integers(len(records)))]["file_name"] = _one_of(rng, NAMES)


def other_size(rng: np.random.Generator, document: Document) -> None:
    records = _records(document, "images")
    record = records[int(rng.integers(len(records)))]
    record[str(rng.choice(["width", "height"]))] = int(rng.choice([0, 1, 47, 49, 63, 65, 2**31 - 1]))


def turned_sizes(_: np.random.Generator, document: Document) -> None:
    for record in _records(document, "images"):
        record["width"], record["height"] = record["height"], record["width"]


def other_flags(rng: np.random.Generator, document: Document) -> None:
    for record in _records(document, "annotations"):
        record["iscrowd"] = _one_of(rng, (0, 1, True, 0, 0, 0))
        record["area"] = _one_of(rng, (0, 1, 50.5, 1e9, record["area"], record["area"]))


def same_class_names(_: np.random.Generator, document: Document) -> None:
    for record in _records(document, "categories"):
        record["name"] = "thing"


def other_order(rng: np.random.Generator, document: Document) -> None:
    for key in TABLES:
        document[key] = [document[key][row] for row in rng.permutation(len(document[key]))]


def unknown_keys(rng: np.random.Generator, document: Document) -> None:
    _, record = _record(rng, document)
    record["extra"] = document["info"] = _one_of(rng, (*JUNK, {"a": [{"b": [float("nan")]}]}))


def deep_value(rng: np.random.Generator, document: Document) -> None:
    _, record = _record(rng, document)
    value: Any = 1
    for _ in range(int(rng.choice([5, 100, 300]))):
        value = [value]
    record[str(rng.choice(sorted(record)))] = value


def cut(rng: np.random.Generator, text: bytes) -> bytes:
    return text[: int(rng.integers(len(text)))]


def bit_flipped(rng: np.random.Generator, text: bytes) -> bytes:
    place = int(rng.integers(len(text)))
    return text[:place] + bytes([text[place] ^ (1 << int(rng.integers(8)))]) + text[place + 1 :]


def byte_lost(rng: np.random.Generator, text: bytes) -> bytes:
    place = int(rng.integers(len(text)))
    return text[:place] + text[place + 1 :]


def bytes_put_in(rng: np.random.Generator, text: bytes) -> bytes:
    place = int(rng.integers(len(text)))
    pieces = (
        b"\0",
        b"\xff",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"}",
        b"]",
        b",",
        b'"',
        b"[" * 10_000,
        b"// a",
        b"-",
    )
    return text[:place] + _one_of(rng, pieces) + text[place:]


def digit_changed(rng: np.random.Generator, text: bytes) -> bytes:
    places = [place for place, byte in enumerate(text) if chr(byte).isdigit()] or [0]
    place = int(rng.choice(places))
    return (
        text[:place] + _one_of(rng, (b"0", b"9", b"-", b".", b"e", b"NaN", b"99999999999999999999")) + text[place + 1 :]
    )


def another_encoding(rng: np.random.Generator, text: bytes) -> bytes:
    decoded = text.decode(errors="replace")
    return decoded.encode(
        str(rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp500"])), "replace"
    )


def repeated_key(rng: np.random.Generator, text: bytes) -> bytes:
    return text.replace(b'"id":', _one_of(rng, (b'"id": 3, "id":', b'"bbox": [1, 2, 3, 4], "id":')), 1)


def around(rng: np.random.Generator, text: bytes) -> bytes:
    before, after = _one_of(
        rng,
        ((b"[", b"]"), (b"", b"x"), (b"", text), (b"\n\t ", b"\n"), (b"[" * 100_000, b""), (b'{"a":' * 100_000, b"")),
    )
    return before + text + after


def replaced(rng: np.random.Generator, _: bytes) -> bytes:
    return _one_of(
        rng, (b"", b" ", b"null", b"[]", b"{}", b"3", b'"a"', b"\0" * 100, b"\xff\xd8\xff\xe0", rng.bytes(200))
    )


OF_DOCUMENT: tuple[Callable[[np.random.Generator, Document], None], ...] = (
    *(junk_value, missing_key, misspelt_key, junk_record, repeated_record, repeated_box, lost_record),
    *(table_of_another_kind, table_lost, table_empty, tables_swapped, other_id, ids_as_floats, other_reference),
    *(other_box, boxes_as_corners, boxes_normalised, other_name, other_size, turned_sizes, other_flags),
    *(same_class_names, other_order, unknown_keys, deep_value),
)
OF_TEXT: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    *(cut, bit_flipped, byte_lost, bytes_put_in, digit_changed, another_encoding, repeated_key, around, replaced),
)


def mutate(rng: np.random.Generator, document: Document) -> tuple[list[str], bytes]:
    """The text of a document with one or two faults, and their names; one that finds no place is none."""
    document = copy.deepcopy(document)
    drawn = rng.permutation(len(OF_DOCUMENT) + len(OF_TEXT))[: rng.integers(1, 3)]
    names = []
    for number in sorted(drawn):
        if number < len(OF_DOCUMENT):
            try:
                OF_DOCUMENT[number](rng, document)
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
                continue  # the fault before took away what this one changes
            names.append(OF_DOCUMENT[number].__name__)
    text = json.dumps(document).encode()
    for number in sorted(drawn):
        if number >= len(OF_DOCUMENT):
            text = OF_TEXT[number - len(OF_DOCUMENT)](rng, text) if text else text
            names.append(OF_TEXT[number - len(OF_DOCUMENT)].__name__)
    return names, text
