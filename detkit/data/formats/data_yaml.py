"""data.yaml, which says of a YOLO data set what its classes are called and where its splits lie."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from detkit.data.formats.label_files import read_limited
from detkit.data.images.image_files import list_folder
from detkit.errors import DataError

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
SPLITS = ("train", "val", "test")
_MAX_BYTES = 1_000_000
_MAX_DEPTH = 16
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DataYaml(NamedTuple):
    """What is of use of the file."""

    file: Path
    class_names: dict[int, str]
    splits: dict[str, tuple[str, ...]]  # what each split names: folders, or files that list images
    base: str  # "path": what they are relative to, relative to the file's folder
    keypoint_columns: int  # numbers that follow a box: keypoints, which detkit does not read

    def members(self, split: str) -> list[Path]:
        """The folders and list files of a split that are there, all inside of the file's folder.

        ``path`` is often that of another machine, and Roboflow writes ``../train/images`` for what lies beside
        the file; so each name is tried under ``path``, under the file's folder, and there without its ``../``.
        """
        found = (self._find(name) for name in self.splits.get(split, ()))
        return [member for member in found if member is not None]

    def missing(self, split: str) -> list[str]:
        """What the split names and is not there, or lies elsewhere."""
        return [name for name in self.splits.get(split, ()) if self._find(name) is None]

    def _find(self, name: str) -> Path | None:
        root = self.file.parent
        for place in (root / self.base / name, root / name, root / re.sub(r"^(\.\./)+", "", name)):
            normal = Path(os.path.normpath(place))
            if normal.is_relative_to(os.path.normpath(root)) and is_there(normal):
                return root / normal.relative_to(os.path.normpath(root))
        return None


def find_yaml(folder: Path) -> Path | None:
    """The data.yaml of a data set: by its usual names, else the only other YAML file there that names classes."""
    named = [folder / name for name in NAMES if (folder / name).is_file()]
    others = [name for name in list_folder(folder) if name.endswith((".yaml", ".yml")) and (folder / name).is_file()]
    naming = [] if named else [folder / name for name in others if _names_classes(folder / name)]
    return named[0] if named else naming[0] if len(naming) == 1 else None


def is_there(path: Path) -> bool:
    """Whether a path leads to something; one that is too long does not."""
    try:
        return path.exists()
    except OSError:
        return False


def read_yaml(file: Path) -> DataYaml:
    """Read and check the file. Keys that detkit has no use for, such as ``download``, are not looked at.

    Raises:
        DataError: if it cannot be read, may not be read, or a key has a wrong value; one for all keys.
    """
    content = _read(file)
    faults: list[str] = []
    class_names = dict(_names(content, faults))
    base = _text(content, "path", faults)
    splits = {split: members for split in SPLITS if (members := tuple(_members(content, split, faults)))}
    shape = content.get("kpt_shape", [0, 0])
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 <= n < 1000 for n in shape)):
        faults.append(f"kpt_shape: must be [keypoints, numbers of each]; got {shape!r:.80}")
        shape = [0, 0]
    if faults:
        raise DataError("\n  ".join([f"{file} cannot be used:", *faults]))
    return DataYaml(file, class_names, splits, base, shape[0] * shape[1])


def _names_classes(file: Path) -> bool:
    return re.search(rb"^names\s*:", read_limited(file, _MAX_BYTES), re.MULTILINE) is not None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = read_limited(file, _MAX_BYTES).decode("utf-8-sig")
        for line, message in _unsafe(text):
            raise DataError(f"{file}:{line}: {message}")
        values = yaml.load(text, Loader=_LOADER)  # noqa: S506 - safe, and written in C where there is one
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: must be UTF-8 text; {error.reason} at byte {error.start}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "names" not in values:
        raise DataError(f"{file}: must hold names: (the classes), and train: and val: (their images)")
    return values


def _unsafe(text: str) -> Iterator[tuple[int, str]]:
    """What makes much of a small file, or one value hide another: aliases, deep nesting, keys given twice."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            yield line, f"anchors and aliases are not allowed (got {event.anchor!r}); write the value out"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            yield line, f"at most {_MAX_DEPTH} levels of nesting"
    root = yaml.compose(text, Loader=_LOADER)
    yield from _twice(root)
    for _, value in root.value if isinstance(root, yaml.MappingNode) else ():
        yield from _twice(value)


def _twice(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    seen: dict[str, int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key.value, str) and key.value in seen:
            yield key.start_mark.line + 1, f"{key.value} is given twice, first in line {seen[key.value]}; keep one"
        seen[str(key.value)] = key.start_mark.line + 1


def _names(content: dict[str, Any], faults: list[str]) -> Iterator[tuple[int, str]]:
    names = content["names"]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        faults.append(f"names: must list the classes, or number them; got {content['names']!r:.80}")
        return
    for number, name in names.items():
        if type(number) is not int or not 0 <= number < 2**31:
            faults.append(f"names: a class is numbered from 0; got {number!r:.80}")
        elif (
            type(name) not in (str, int, float) or str(name) != str(name).encode(errors="ignore").decode() or name == ""
        ):
            faults.append(f"names: class {number} is {name!r:.80}, no text; write the name in quotes")
        else:
            yield number, str(name)
    count = content.get("nc", len(names))
    if count != len(names):
        faults.append(f"nc: says {count!r:.80} classes, and names has {len(names)}; correct one of them")


def _is_name(name: Any) -> bool:
    return type(name) in (str, int, float) and name != "" and str(name).encode(errors="ignore").decode() == str(name)


def _members(content: dict[str, Any], split: str, faults: list[str]) -> Iterator[str]:
    stated = content.get(split) or []
    for name in stated if isinstance(stated, list) else [stated]:
        if isinstance(name, str) and name and "\0" not in name:
            yield name.replace("\\", "/")
        else:
            faults.append(
                f"{split}: must name a folder of images, a file that lists them, or several; got {name!r:.80}"
            )


def _text(content: dict[str, Any], key: str, faults: list[str]) -> str:
    value = content.get(key) or ""
    if isinstance(value, str) and "\0" not in value:
        return value
    faults.append(f"{key}: must be a folder; got {value!r:.80}")
    return ""
