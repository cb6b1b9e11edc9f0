"""Whoever reads an image, the network sees the same bytes: validation, predict, and what is exported."""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detkit.data import CocoDataModule, decode_image
from detkit.data.images.resize import to_unit
from detkit.inference.exported_detector import program_input
from detkit.inference.predictor import Predictor
from detkit.types import Detections

IMAGE_HW = (96, 128)


class Seen(nn.Module):
    """A detector that keeps what it is given."""

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return images


def decode_nothing(images: Tensor) -> list[Detections]:
    empty = torch.zeros(0)
    return [Detections(torch.zeros(0, 4), empty, empty.long()) for _ in images]


def odd_files(folder: Path) -> list[Path]:
    """One of each kind that loaders trip over."""
    folder.mkdir()
    colours = cv2.resize(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8), (90, 60))
    rgb, grey = Image.fromarray(colours), Image.fromarray(colours[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    see_through = rgb.convert("RGBA")
    see_through.putalpha(grey)
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "turned.jpg", {"exif": exif}),
        (grey, "grey.jpg", {}),
        (rgb.convert("CMYK"), "cmyk.jpg", {}),
        (rgb.quantize(16), "palette.png", {}),
        (see_through, "alpha.png", {}),
        (Image.fromarray(colours[..., 0].astype(np.uint16) * 250), "deep.png", {}),
    ]
    for image, name, options in made:
        image.save(folder / name, **options)
    return [folder / name for _, name, _ in made]


def coco_of(root: Path, files: list[Path]) -> Path:
    """The files as a validation split."""
    images = []
    for number, path in enumerate(files, start=1):
        height, width = decode_image(path).shape[:2]
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
    path = root / "instances_val.json"
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps(document))
    return path


def validated(annotations: Path, images: Path, resize: Any) -> dict[str, Tensor]:
    """What validation gives the network of each file."""
    data = CocoDataModule(
        image_hw=IMAGE_HW,
        resize=resize,
        batch_size=5,
        num_workers=0,
        val_annotations=str(annotations),
        val_images=str(images),
    )
    data.prepare()
    names = {image["id"]: image["file_name"] for image in json.loads(annotations.read_text())["images"]}
    return {
        names[image_id]: image
        for batch in data.val_dataloader()
        for image, image_id in zip(to_unit(batch.images), batch.targets.image_ids.tolist(), strict=True)
    }


def require_one_path(annotations: Path, images: Path, resize: Any) -> int:
    seen, expected = Seen(), validated(annotations, images, resize)
    predictor = Predictor(seen, decode_nothing, ["cat"], IMAGE_HW, resize)
    for name, image in expected.items():
        path = images / name
        predictor.predict(path)
        assert torch.equal(seen.images[0], image), path
        predictor.predict([Image.open(io.BytesIO(path.read_bytes()))])
        assert torch.equal(seen.images[0], image), path
        pixels = (image * 255).round().to(torch.uint8)
        for takes_uint8 in (True, False):  # both give an exported program the same, from a file and from the loader
            of_loader, of_file = (program_input(given[None], takes_uint8) for given in (image, pixels))
            assert of_loader.dtype == (np.uint8 if takes_uint8 else np.float32)
            assert (of_loader == of_file).all(), path
    return len(expected)


@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_odd_images_are_the_same_everywhere(tmp_path: Path, resize: str) -> None:
    files = odd_files(tmp_path / "images")
    assert require_one_path(coco_of(tmp_path, files), tmp_path / "images", resize) == len(files)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # by Pillow
@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_real_odd_images_are_the_same_everywhere(shared_data: Path, resize: str) -> None:
    root = shared_data / "odd_images"
    assert require_one_path(root / "annotations" / "instances_train.json", root / "train", resize) == 46
