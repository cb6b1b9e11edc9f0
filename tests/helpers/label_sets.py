"""Data sets in YOLO's and VOC's formats, as small as a test needs them."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def write_image(path: Path, size_hw: tuple[int, int] = (100, 200), orientation: int = 1) -> None:
    """A grey image of this size as it is stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size_hw, 3), 90, np.uint8)
    if orientation == 1:
        cv2.imwrite(str(path), pixels)
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def write_yolo(root: Path, labels: dict[str, str | bytes | None], split: str = "train", yaml: str = YAML) -> None:
    """An image of 200 x 100 for each name, and its label file where there is a text."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(yaml)
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        write_image(root / "images" / split / name)
        if text is not None:
            file = (root / "labels" / split / name).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode() if isinstance(text, str) else text)


def voc_object(name: str, corners: Iterable[object], more: str = "") -> str:
    box = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc_xml(*objects: str, size: str = "<size><width>200</width><height>100</height><depth>3</depth></size>") -> str:
    return f"<annotation><folder>f</folder><filename>x.jpg</filename>{size}{''.join(objects)}</annotation>"


def write_voc(root: Path, labels: dict[str, str | bytes | None], split: str = "train") -> None:
    """An image of 200 x 100 for each name, its XML file where there is a text, and the list of the split."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        write_image(root / "JPEGImages" / name)
        if text is not None:
            file = (root / "Annotations" / name).with_suffix(".xml")
            file.write_bytes(text.encode() if isinstance(text, str) else text)
    lines = "".join(f"{Path(name).with_suffix('').as_posix()}\n" for name in labels)
    (root / "ImageSets/Main" / f"{split}.txt").write_text(lines)
