"""Pictures show what the network sees: read back and compared in colour at the places of the boxes."""

from pathlib import Path

import cv2
import numpy as np

from detkit.ops.drawing import GAP
from detkit.training import train
from tests.helpers.toy import SIZE, ToyData, toy_parts


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None, path
    return image


def test_training_batch_in_its_colours(tmp_path: Path) -> None:
    """The middle of each square has the colour of its class, red before blue."""
    trained = train(toy_parts(tmp_path, epochs=1, data=ToyData(length=8, batch_size=8)))
    sheet = read(trained.folder / "pictures" / "train_batch_0.jpg")
    assert sheet.shape == (2 * SIZE + GAP, 4 * SIZE + 3 * GAP, 3)
    data = ToyData(length=8).dataset
    targets = [data[(0, index)][1] for index in np.random.Generator(np.random.Philox(0)).permutation(8).tolist()]
    for number, target in enumerate(targets):
        row, column = divmod(number, 4)
        x1, y1, x2, y2 = target.boxes[0].int().tolist()
        middle_y, middle_x = row * (SIZE + GAP) + (y1 + y2) // 2 + 3, column * (SIZE + GAP) + (x1 + x2) // 2 + 3
        patch = sheet[middle_y - 1 : middle_y + 2, middle_x - 1 : middle_x + 2].reshape(-1, 3).mean(axis=0)
        assert patch.argmax() == int(target.labels[0]), number


def test_validation_at_the_best_and_at_the_end(tmp_path: Path) -> None:
    trained = train(toy_parts(tmp_path, epochs=2))
    pictures = {path.name for path in (trained.folder / "pictures").glob("val_*")}
    assert pictures == {"val_best.jpg", "val_last.jpg"}
    height, width, _ = read(trained.folder / "pictures" / "val_last.jpg").shape
    assert width > 4 * SIZE and height > 4 * SIZE  # eight images, truth beside prediction, two in a row
