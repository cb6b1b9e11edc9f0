"""Real files that break loaders: each is read as its README says, or refused by name.

    python -m tests.reliability.odd_images

The files are not the project's: tests/helpers/real_data.py says where they lie; without them nothing is tried.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detkit.data.checking.check import check_splits
from detkit.data.formats.layout import Split
from detkit.data.images.decode import decode_image
from detkit.data.index.coco_index import CocoIndex, load_index
from detkit.data.loading.detection_dataset import DetectionDataset
from detkit.data.loading.sampler import SampleKey
from detkit.errors import DataError
from tests.helpers.real_data import SHARED
from tests.reliability import arguments

FOLDER = SHARED / "data" / "odd_images"
ONE_PICTURE = ("hopper_orientation_", "Portrait_")  # files that show one upright picture each
MEAN_DIFFERENCE = 6  # of pixels, each file being compressed on its own; turned wrongly it is 30 and more
BROKEN = {
    "truncated_jpeg.jpg": "its end marker is missing",
    "truncated_image.png": "it ends before its IEND chunk",
    "broken_data_stream.png": "it ends before its IEND chunk",
    "broken.png": "the PNG is cut",
    "truncated_app14.jpg": "its Adobe segment",
    "ultrahdr.jpg": "its end marker is missing",
    "png_decompression_dos.png": "unpacks to more than 1,048,576 bytes",
    "unknown_compression_method.png": "chunk iCCP fails its checksum",
    "zero_bytes.jpg": "the file is empty",
    "not_an_image.jpg": "not an image: it begins with b'this is '",
    "does_not_exist.jpg": "cannot be read: No such file",
}
LABELLED_AS_STORED = {3, 5}  # ids whose width and height ignore that EXIF turns the picture


class Tried(NamedTuple):
    """How many files were tried for one promise, and which broke it."""

    promise: str
    files: int
    broken: list[str]


def whole_files(folder: Path) -> Tried:
    """Every file of train gives a sample of the size that its record says, which is the upright one."""
    index = load_index(*_split(folder, "train"))
    broken = []
    for row in range(len(index)):
        height, width = index.sizes_hw[row].tolist()
        if decode_image(index.path(row)).shape != (height, width, 3):
            broken.append(f"{index.path(row).name}: not {width} x {height}")
    return Tried("the upright size, as stated", len(index), broken)


def one_picture(folder: Path) -> Tried:
    """All orientations give the sample of the first one: the same picture under the same boxes."""
    index = load_index(*_split(folder, "train"))
    tried, broken = 0, []
    for prefix in ONE_PICTURE:
        rows = [row for row in range(len(index)) if index.path(row).name.startswith(prefix)]
        first, boxes = _sample(index, rows[0])
        for row in rows[1:]:
            image, other_boxes = _sample(index, row)
            difference = np.abs(image.astype(int) - first.astype(int)).mean()
            if not difference < MEAN_DIFFERENCE:
                broken.append(f"{index.path(row).name}: another picture, {difference:.0f} off")
            if not len(boxes) or not np.array_equal(boxes, other_boxes):
                broken.append(f"{index.path(row).name}: boxes {other_boxes.tolist()}, not {boxes.tolist()}")
        tried += len(rows)
    return Tried("all orientations show one picture and its boxes", tried, broken)


def broken_files(folder: Path) -> Tried:
    """Each is refused with its name and its fault, by the decoder and by the check."""
    broken = []
    [checked] = check_splits({"train": _split(folder, "broken")}).values()
    found = [place for finding in checked.report.of_level("error") for place in finding.places]
    for name, fault in BROKEN.items():
        said = _refusal(folder / "broken" / name)
        if name not in said or fault not in said:
            broken.append(f"{name}: {said}")
        if not [place for place in found if place.file == name and place.image_id is not None]:
            broken.append(f"{name}: not among the findings of the check")
    return Tried("broken files are refused by name", len(BROKEN), broken)


def labels_of_stored_pixels(folder: Path) -> Tried:
    """The two photographs that were labelled as stored are named, and no other."""
    try:
        index = load_index(*_split(folder, "rawframe"))
        return Tried("labels that ignore EXIF are named", len(index), ["nothing was found"])
    except DataError as error:
        named = {int(number) for number in re.findall(r"image (\d+): ", str(error))}
        wrong = [] if named == LABELLED_AS_STORED and "ignore that EXIF turns" in str(error) else [str(error)]
        return Tried("labels that ignore EXIF are named", 5, wrong)


PROMISES: tuple[Callable[[Path], Tried], ...] = (whole_files, one_picture, broken_files, labels_of_stored_pixels)


def main() -> None:
    """Try every promise and print a table; exit with 1 if one is broken."""
    if not FOLDER.is_dir():
        sys.exit(f"nothing was tried: the files are not in {FOLDER}")
    tried = [promise(FOLDER) for promise in PROMISES]
    arguments.show("odd images", [(one.promise, one.files, len(one.broken)) for one in tried], ("", "files", "broken"))
    faults = [fault for one in tried for fault in one.broken]
    arguments.finish(faults, sum(one.files for one in tried), "each is handled as its README says")


def _split(folder: Path, name: str) -> Split:
    return Split(folder / "annotations" / f"instances_{name}.json", folder / name)


def _sample(index: CocoIndex, row: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) image and (N, 4) boxes as training and evaluation see them."""
    height, width = index.sizes_hw[row].tolist()
    image, target = DetectionDataset(index)[SampleKey(epoch=0, row=row, image_hw=(height, width))]
    return image, target.boxes.numpy()


def _refusal(path: Path) -> str:
    try:
        decode_image(path)
    except DataError as error:
        return str(error)
    return "it is decoded"


if __name__ == "__main__":
    main()
