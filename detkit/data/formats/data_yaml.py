"""data.yaml, the file of a YOLO data set that holds its class names and the paths of its splits."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeGuard

import yaml

from detkit.data.formats.label_files import read_limited
from detkit.data.images.image_files import list_folder
from detkit.errors import DataError
from detkit.yaml_text import LOADER, scan_yaml

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
SPLITS = ("train", "val", "test")
_MAX_BYTES = 1_000_000
_MAX_DEPTH = 16
_FAULTS_SHOWN = 10


class DataYaml(NamedTuple):
    """The values of the file that detkit uses."""

    file: Path
    class_names: dict[int, str]
    splits: dict[str, tuple[str, ...]]  # what each split names: folders, or files that list images
    base: str  # value of "path": the folder of the splits, relative to the file's folder
    keypoint_columns: int  # numbers of keypoints behind each box, which detkit does not read

    def members(self, split: str) -> list[Path]:
        """The folders and list files of a split that exist, all inside the file's folder.

        ``path`` is often a path of another machine, and Roboflow writes ``../train/images`` for a folder beside the
        file. So each name is tried under ``path``, under the file's folder, and there without its ``../``.
        """
        found = (self._find(name) for name in self.splits.get(split, ()))
        return [member for member in found if member is not None]

    def missing(self, split: str) -> list[str]:
        """Names of the split that do not exist or lie outside the file's folder."""
        return [name for name in self.splits.get(split, ()) if self._find(name) is None]

    def _find(self, name: str) -> Path | None:
        root = self.file.parent
        for place in (root / self.base / name, root / name, root / re.sub(r"^(\.\./)+", "", name)):
            normal = Path(os.path.normpath(place))
            if normal.is_relative_to(os.path.normpath(root)) and is_there(normal):
                return root / normal.relative_to(os.path.normpath(root))
        return None


def find_yaml(folder: Path) -> Path | None:
    """The data.yaml of a data set: a file of a usual name, else the only other YAML file there that names classes."""
    named = [folder / name for name in NAMES if (folder / name).is_file()]
    others = [name for name in list_folder(folder) if name.endswith((".yaml", ".yml")) and (folder / name).is_file()]
    naming = [] if named else [folder / name for name in others if _names_classes(folder / name)]
    return named[0] if named else naming[0] if len(naming) == 1 else None


def is_there(path: Path) -> bool:
    """Whether a path exists; one that is too long does not."""
    try:
        return path.exists()
    except OSError:
        return False


def read_yaml(file: Path) -> DataYaml:
    """Read and check the file. Keys that detkit has no use for, such as ``download``, are ignored.

    Raises:
        DataError: if it cannot be read, is unsafe YAML, or a key has a wrong value; one for all keys.
    """
    content = _read(file)
    faults: list[str] = []
    class_names = dict(_names(content, faults))
    base = content.get("path") or ""
    if not _is_path(base or "."):
        faults.append(f"path: must be a folder; got {base!r:.80}")
    splits = {split: members for split in SPLITS if (members := tuple(_members(content, split, faults)))}
    shape = content.get("kpt_shape", [0, 0])
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 <= n < 1000 for n in shape)):
        faults.append(f"kpt_shape: must be [keypoints, numbers of each]; got {shape!r:.80}")
        shape = [0, 0]
    if faults:
        more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        raise DataError("\n  ".join([f"{file} cannot be used:", *faults[:_FAULTS_SHOWN], *more]))
    return DataYaml(file, class_names, splits, str(base), shape[0] * shape[1])


def _names_classes(file: Path) -> bool:
    return re.search(rb"^names\s*:", read_limited(file, _MAX_BYTES), re.MULTILINE) is not None


def _read(file: Path) -> dict[object, object]:
    try:
        text = read_limited(file, _MAX_BYTES).decode("utf-8-sig")
        for line, message in scan_yaml(text, _MAX_DEPTH, text_keys=False).faults:
            raise DataError(f"{file}:{line}: {message}")
        values = yaml.load(text, Loader=LOADER)  # noqa: S506 - a safe loader
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: must be UTF-8 text; {error.reason} at byte {error.start}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: is no YAML: {' '.join(str(error).split())}") from error
    if "names" not in values:
        raise DataError(f"{file}: must hold names: (the classes), and train: and val: (their images)")
    return values


def _names(content: Mapping[object, object], faults: list[str]) -> Iterator[tuple[int, str]]:
    names = content["names"]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        faults.append(f"names: must list the classes, or number them; got {content['names']!r:.80}")
        return
    for number, name in names.items():
        if type(number) is not int or not 0 <= number < 2**31:
            faults.append(f"names: a class is numbered from 0; got {number!r:.80}")
        elif not _is_name(name):
            faults.append(f"names: class {number} is {name!r:.80}, no text; write the name in quotes")
        else:
            yield number, str(name)
    count = content.get("nc", len(names))
    if count != len(names):
        faults.append(f"nc: says {count!r:.80} classes, and names has {len(names)}; correct one of them")


def _is_name(value: object) -> bool:
    return type(value) in (str, int, float) and str(value).encode(errors="ignore").decode() == str(value) != ""


def _is_path(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and "\0" not in value


def _members(content: Mapping[object, object], split: str, faults: list[str]) -> Iterator[str]:
    stated = content.get(split) or []
    for name in stated if isinstance(stated, list) else [stated]:
        if _is_path(name):
            yield name.replace("\\", "/")
        else:
            faults.append(
                f"{split}: must name a folder of images, a file that lists them, or several; got {name!r:.80}"
            )
