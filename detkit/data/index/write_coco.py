"""A data set in YOLO's or VOC's format written in COCO's format. The new folder appears only when it is complete."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from detkit.data.formats.layout import find_layout
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.errors import DataError, StorageError

_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)  # these files cannot be hard-linked


class Converted(NamedTuple):
    """What was written, by the name of each split."""

    target: Path
    indices: dict[str, CocoIndex]

    def __str__(self) -> str:
        told = [f"{name}: {index.report}" for name, index in self.indices.items()]
        return "\n".join([*told, f"written to {self.target}: {', '.join(self.indices)}"])


def convert(source: str | Path, target: str | Path, images: str = "link", *, follow_links: bool = False) -> Converted:
    """Read and check all splits, and write them with their images in the plain layout of COCO.

    Boxes are written as the source has them, without repair. The data set is written into a temporary folder, which
    is renamed at the end.

    Args:
        source: a data set in YOLO's or VOC's format.
        target: folder that does not exist yet, or is empty.
        images: "link" makes hard links, which take no space and need both folders on one file system; "copy" copies
            the files; "none" writes annotations only.
        follow_links: whether symbolic links may lead out of the source.

    Raises:
        DataError: if the source cannot be used, with all errors of all splits, or the target is not empty.
        StorageError: if the target cannot be written.
    """
    folder, place = Path(source).expanduser(), Path(target).expanduser()
    _check_target(folder, place)
    indices = _read(folder, follow_links=follow_links)
    draft = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        draft.chmod(0o755)  # temporary folders are closed to others
        for name, index in indices.items():
            _write_images(index, draft / name, images)
            _write_json(to_document(index), draft / "annotations" / f"instances_{name}.json")
        draft.rename(place)
    except OSError as error:
        remedy = "use images=copy" if error.errno in _NO_LINK else "free space or choose another folder"
        raise StorageError(f"{place}: cannot be written: {error.strerror} ({error.filename}); {remedy}") from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    return Converted(place, indices)


def to_document(index: CocoIndex) -> dict[str, list[dict[str, object]]]:
    """A split as the content of a COCO annotation file; annotations are numbered from 1."""
    truth = index.ground_truth()
    names = [index.path(row).relative_to(index.folder).as_posix() for row in range(len(index))]
    images = [
        {"id": image_id, "file_name": name, "height": height, "width": width}
        for image_id, name, (height, width) in zip(
            truth.image_ids.tolist(), names, truth.sizes_hw.tolist(), strict=True
        )
    ]
    columns = zip(
        truth.image_ids[truth.image_rows].tolist(),
        truth.category_ids[truth.labels].tolist(),
        truth.boxes_xywh.tolist(),
        truth.areas.tolist(),
        truth.crowd.astype(int).tolist(),
        strict=True,
    )
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [{"id": number, **dict(zip(keys, row, strict=True))} for number, row in enumerate(columns, start=1)]
    classes = zip(truth.category_ids.tolist(), truth.class_names, strict=True)
    categories = [{"id": category_id, "name": name} for category_id, name in classes]
    return {"images": images, "annotations": annotations, "categories": categories}


def _check_target(source: Path, target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"target={target}: exists already; choose a folder that is empty or does not exist yet")
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source)):
        raise DataError(f"target={target}: lies inside source={source}, which is not changed; choose another folder")


def _read(source: Path, *, follow_links: bool) -> dict[str, CocoIndex]:
    splits = find_layout(source)
    if any(split.annotations.suffix == ".json" for split in splits.values()):
        raise DataError(f"{source}: is in COCO format already; use it as it is, by data.root={source}")
    indices: dict[str, CocoIndex] = {}
    faults: list[str] = []
    for name, split in splits.items():
        try:
            indices[name] = load_index(*split, source, follow_links=follow_links)
        except DataError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise DataError("\n".join(faults))
    _check_same_classes(indices)
    return indices


def _check_same_classes(indices: Mapping[str, CocoIndex]) -> None:
    classes = {name: dict(zip(i.category_ids.tolist(), i.class_names, strict=True)) for name, i in indices.items()}
    first, *others = classes
    for other in others:
        for number in sorted(classes[first].keys() | classes[other].keys()):
            here, there = classes[first].get(number), classes[other].get(number)
            if here != there:
                raise DataError(f"class {number} is {here!r} in {first} and {there!r} in {other}; make them the same")


def _write_images(index: CocoIndex, folder: Path, images: str) -> None:
    for row in range(len(index) if images != "none" else 0):
        path = folder / index.path(row).relative_to(index.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        original = os.path.realpath(index.path(row))
        if images == "link":
            os.link(original, path)
        else:
            shutil.copyfile(original, path)


def _write_json(document: dict[str, list[dict[str, object]]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
