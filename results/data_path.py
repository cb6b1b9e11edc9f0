"""CPU time of one training sample, from the image file to the augmented image; one process, one thread.

    python -m results.data_path data/bccd

Prints CPU milliseconds for each image (``time.process_time``); bccd has 205 JPEGs of 640 x 480. Warm: decoded images
come from the cache, as after the first epochs of a data set that fits into it. Cold: every image is decoded for every
use. The last row also stacks batches of 16 and converts them to floats.

Measured figures: results/README.md.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import torch

from detkit.data import CocoDataModule, DetectionDataset, Resize, SampleKey
from detkit.data.augment import Augmentation
from detkit.data.loading.loader import collate

ZOOMS = Augmentation(
    mosaic_probability=0,
    hue_degrees=0,
    saturation=0,
    brightness=0,
    zoom_out_probability=0.5,
    iou_crop_probability=0.8,
)
SETTINGS: dict[str, tuple[Augmentation | None, Resize]] = {
    "mosaic": (Augmentation(), "letterbox"),
    "mosaic, turned and sheared": (Augmentation(degrees=10, shear=2), "letterbox"),
    "mosaic, turned and sheared, mixup": (
        Augmentation(degrees=10, shear=2, scale=(0.1, 2.0), mixup_probability=1),
        "letterbox",
    ),
    "one image, affine": (Augmentation(mosaic_probability=0), "letterbox"),
    "one image, zoom-out and crop, squash": (ZOOMS, "squash"),
    "the same, distorted (RT-DETR)": (
        replace(ZOOMS, photometric_probability=0.5, channel_shuffle_probability=0.5),
        "squash",
    ),
    "one image, letterbox (last epochs)": (Augmentation(), "letterbox"),
    "one image, squash (last epochs)": (ZOOMS, "squash"),
    "validation": (None, "letterbox"),
    "validation, squash": (None, "squash"),
}


class Measured:
    """Passes over all images of the training split.

    Args:
        data: data module that has the split.
        augmentation: of the samples; None: as in validation.
        resize: how images come to the size of the input.
        side: side of the square input, pixels.
        warm: whether all decoded images are in the cache.
        plain: whether samples are made as in the last epochs.
    """

    def __init__(
        self,
        data: CocoDataModule,
        augmentation: Augmentation | None,
        resize: Resize,
        side: int,
        *,
        warm: bool,
        plain: bool = False,
    ) -> None:
        index = data.train_dataloader().dataset.index
        self.data = data
        cache_bytes, max_epochs = 2**34 if warm else 0, 0 if plain else None
        self.dataset = DetectionDataset(index, augmentation, 0, cache_bytes, resize, max_epochs=max_epochs)
        self.keys = [SampleKey(0, row, (side, side)) for row in range(len(index))]
        for epoch in range(9 if warm else 1):  # by then every image was used at every reduction
            for key in self.keys:
                self.dataset[key._replace(epoch=epoch)]

    def samples(self) -> None:
        """Make each sample alone."""
        for key in self.keys:
            self.dataset[key]

    def batches(self) -> None:
        """Make batches of 16 and convert them to floats."""
        for start in range(0, len(self.keys), 16):
            made = collate(self.dataset.__getitems__(self.keys[start : start + 16]))
            assert isinstance(made, tuple), "every image decodes"
            self.data.on_after_batch_transfer(made[0], 0)

    def milliseconds(self, work: Callable[[], None], passes: int) -> float:
        """CPU milliseconds of this process for each image, in the fastest pass."""
        times = []
        for _ in range(passes):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times) / len(self.keys) * 1000


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--passes", type=int, default=3, help="per number; the fastest counts")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    data = CocoDataModule(root=arguments.root)
    print(f"{'':38}" + "".join(f"{name:>12}" for name in ("320 cold", "320 warm", "640 cold", "640 warm")))
    for name, (augmentation, resize) in SETTINGS.items():
        cells = []
        for side, warm in ((320, False), (320, True), (640, False), (640, True)):
            measured = Measured(data, augmentation, resize, side, warm=warm, plain="last epochs" in name)
            cells.append(measured.milliseconds(measured.samples, arguments.passes))
        print(f"{name:38}" + "".join(f"{cell:12.2f}" for cell in cells), flush=True)
    collated = [Measured(data, Augmentation(), "letterbox", side, warm=True) for side in (320, 640)]
    cells = [measured.milliseconds(measured.batches, arguments.passes) for measured in collated]
    print(f"{'mosaic, batched, as floats':38}{'':12}{cells[0]:12.2f}{'':12}{cells[1]:12.2f}")


if __name__ == "__main__":
    main()
