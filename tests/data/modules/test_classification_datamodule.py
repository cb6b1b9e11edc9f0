"""The data modules of classifiers: the stream of batches, its resume, its ranks, and what they refuse."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from detkit.data import CropDataModule, ImageFolderDataModule
from detkit.data.augment import ClassAugmentation
from detkit.data.demo import detection_set as demo
from detkit.data.modules.classification_datamodule import ClassificationDataModule
from detkit.errors import DataError
from detkit.types import ClassBatch, ImageLabels
from tests.helpers.colour_set import BOXES, COLOURS, write_coco, write_folder

SMALL: dict[str, Any] = {"image_hw": (16, 24), "batch_size": 4, "num_workers": 0}
MODULES: dict[str, type[CropDataModule] | type[ImageFolderDataModule]] = {
    "crops": CropDataModule,
    "folder": ImageFolderDataModule,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sets of 14 training and 7 validation images."""
    crops, folder = tmp_path_factory.mktemp("crops"), tmp_path_factory.mktemp("folder")
    write_coco(crops, "train", {**BOXES, **{30 + number: BOXES[20] for number in range(5)}, 40: BOXES[21]})
    write_coco(crops, "val", {**BOXES, 30: BOXES[20], 31: BOXES[20]})
    write_folder(folder, "train", {"red": 6, "green": 4, "blue": 4})
    write_folder(folder, "val", {"red": 2, "green": 2, "blue": 3})
    return {"crops": crops, "folder": folder}


@pytest.fixture(params=MODULES)
def make(request: pytest.FixtureRequest, roots: dict[str, Path]) -> Callable[..., Any]:
    def make(**settings: Any) -> ClassificationDataModule:
        return MODULES[request.param](**{"root": str(roots[request.param]), **SMALL, **settings})

    return make


def digest(batch: ClassBatch) -> tuple[tuple[int, ...], str]:
    content = hashlib.sha256(batch.images.contiguous().numpy().tobytes())
    content.update(str((batch.targets.labels.tolist(), batch.targets.image_ids.tolist())).encode())
    return tuple(batch.targets.image_ids.tolist()), content.hexdigest()


def main_colours(batch: ClassBatch) -> list[str]:
    """The class that the pixels show: the colour that most of them have most of."""
    names = list(COLOURS)
    shown = []
    for image in batch.images.permute(0, 2, 3, 1).reshape(len(batch.images), -1, 3).int():
        coloured = image[(image.max(1).values - image.min(1).values) > 40]
        shown.append(names[int(coloured.argmax(1).mode().values)])
    return shown


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches(make: Callable[..., Any], num_workers: int) -> None:
    data = make(num_workers=num_workers)
    loader = data.train_dataloader()
    batches = list(loader)
    data.teardown("fit")
    assert len(batches) == len(loader) == 3
    for batch in batches:
        assert type(batch) is ClassBatch and type(batch.targets) is ImageLabels
        assert batch.images.shape == (4, 3, 16, 24) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.labels.dtype == torch.int64 and len(batch.targets.labels) == len(batch.images)
    ready = data.on_after_batch_transfer(batches[0], 0)
    torch.testing.assert_close(ready.images, batches[0].images / 255, rtol=0, atol=0)
    assert ready.targets is batches[0].targets


def test_labels_are_what_the_pixels_show(make: Callable[..., Any]) -> None:
    data = make(augmentation=ClassAugmentation(hue_degrees=0, saturation=0))
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert [data.class_names[label] for label in batch.targets.labels] == main_colours(batch)


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_the_stream_does_not_depend_on_workers_or_cache(make: Callable[..., Any], cache_mb: int) -> None:
    def two_epochs(num_workers: int, megabytes: int) -> list[Any]:
        data = make(num_workers=num_workers, cache_mb=megabytes)
        loader = data.train_dataloader()
        seen = [digest(batch) for _ in range(2) for batch in loader]
        data.teardown("fit")
        return seen

    alone = two_epochs(0, 64)
    assert len(alone) == len(set(alone)) == 6
    assert two_epochs(0, cache_mb) == alone
    assert two_epochs(2, cache_mb) == alone


def test_seeds_and_epochs_differ(make: Callable[..., Any]) -> None:
    streams = [[digest(batch) for batch in make(seed=seed).train_dataloader()] for seed in (0, 1)]
    assert not set(streams[0]) & set(streams[1])


def test_resume_at_every_batch(make: Callable[..., Any]) -> None:
    loader = make().train_dataloader()
    expected, states = [], []
    for _ in range(2):
        for batch in loader:
            expected.append(digest(batch))
            states.append(loader.state_dict())
    for done, state in enumerate(states[:-1], start=1):
        resumed = make().train_dataloader()
        resumed.load_state_dict(state)
        assert next(digest(batch) for batch in resumed) == expected[done]


@pytest.mark.parametrize("val_batch_size", [1, 3, 100])
def test_two_ranks_share_the_validation_images(make: Callable[..., Any], val_batch_size: int) -> None:
    seen, lengths = [], []
    for rank in range(2):
        data = make(val_batch_size=val_batch_size)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        batches = list(data.val_dataloader())
        lengths.append(len(batches))
        seen += [image_id for batch in batches for image_id in batch.targets.image_ids]
    assert lengths[0] == lengths[1]
    assert sorted(seen) == list(range(7)) or (val_batch_size == 1 and sorted(set(seen)) == list(range(7)))
    assert len(seen) - 7 == (1 if val_batch_size == 1 else 0)  # 7 batches of 1 for two ranks: image 0 comes again


def test_two_ranks_share_each_training_batch(make: Callable[..., Any]) -> None:
    def epoch(rank: int, world_size: int, batch_size: int) -> list[list[int]]:
        data = make(batch_size=batch_size)
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=world_size, training=False, max_epochs=1, current_epoch=0
        )
        return [batch.targets.image_ids.tolist() for batch in data.train_dataloader()]

    whole = epoch(0, 1, 4)
    assert [a + b for a, b in zip(epoch(0, 2, 2), epoch(1, 2, 2), strict=True)] == whole


class Trace(L.LightningModule):
    """Notes which batches were trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Any] = []

    def training_step(self, batch: ClassBatch) -> Tensor:
        assert batch.images.dtype == torch.float32 and batch.images.max() <= 1
        self.seen.append(digest(batch))
        return self.weight.sum()

    def validation_step(self, batch: ClassBatch) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveInTheMiddle(L.Callback):
    """A checkpoint after the first step of the second epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_resume_in_lightning_in_the_middle_of_an_epoch(
    make: Callable[..., Any], tmp_path: Path, num_workers: int
) -> None:
    def fit(resume: Path | None = None) -> list[Any]:
        module = Trace()
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=3,
            logger=False,
            callbacks=[SaveInTheMiddle(tmp_path / "4.ckpt")],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, make(num_workers=num_workers), ckpt_path=resume, weights_only=True)
        return module.seen

    expected = fit()
    assert len(set(expected)) == 9
    assert fit(tmp_path / "4.ckpt") == expected[4:]


def test_ground_truth(make: Callable[..., Any]) -> None:
    data = make()
    truth = data.ground_truth()
    assert truth.class_names == data.class_names
    labels = [label for batch in data.val_dataloader() for label in batch.targets.labels.tolist()]
    np.testing.assert_array_equal(truth.counts, np.bincount(labels, minlength=3))
    assert truth.counts.dtype == truth.category_ids.dtype == np.int64
    expected = (
        {"red": 3, "green": 3, "blue": 1} if isinstance(data, CropDataModule) else {"red": 2, "green": 2, "blue": 3}
    )
    assert dict(zip(truth.class_names, truth.counts.tolist(), strict=True)) == expected
    assert truth.category_ids.tolist() == ([3, 7, 8] if isinstance(data, CropDataModule) else [0, 1, 2])


def test_fingerprint(make: Callable[..., Any]) -> None:
    assert make().fingerprint == make(seed=5).fingerprint
    assert len(make().fingerprint) == 64


def test_reports_once(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    data = make()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            data.prepare()
            data.setup("fit")
    if isinstance(data, ImageFolderDataModule):
        assert [message.split(":")[0] for message in caplog.messages] == ["train", "val"]
    else:
        assert [message.split(":")[0] for message in caplog.messages] == ["train", "val", "train", "val"]
        assert caplog.messages[2].startswith("train: 14 crops of 3 classes (red 6, green 6, blue 2)")
        assert "boxes narrower or lower than 8 px, of which no crop is made: 6" in caplog.messages[2]
        assert "crowd boxes, of which no crop is made: 2" in caplog.messages[2]


def test_an_evaluation_needs_no_training_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "val", {"red": 1})
    write_coco(tmp_path / "crops", "val")
    for name, message in (("folder", "there is no folder train under"), ("crops", "there is no train split under")):
        data = MODULES[name](root=str(tmp_path / name), **SMALL)
        data.setup("validate")
        with pytest.raises(DataError, match=message):
            data.setup("fit")


def test_classes_must_agree(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", {"red": 1, "blue": 1})
    write_folder(tmp_path, "val", {"red": 1})
    with pytest.raises(DataError, match="'blue' is only in train"):
        ImageFolderDataModule(root=str(tmp_path), **SMALL).prepare()


def test_explicit_annotations(roots: dict[str, Path]) -> None:
    named: dict[str, Any] = {"val_annotations": "annotations/instances_train.json", "val_images": "train"}
    data = CropDataModule(root=str(roots["crops"]), **SMALL, **named)
    assert data.ground_truth().counts.sum() == 14


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_one_line(tmp_path: Path, num_workers: int) -> None:
    write_coco(tmp_path, "val")
    data = CropDataModule(root=str(tmp_path), **{**SMALL, "num_workers": num_workers})
    data.prepare()
    (tmp_path / "val/21.png").write_bytes(b"not a picture any more")
    with pytest.raises(DataError, match=r"^image 21: .*21\.png: not an image") as caught:
        list(data.val_dataloader())
    assert "\n" not in str(caught.value)
    data.on_exception(caught.value)


def test_without_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DETKIT_DEMO", str(tmp_path / "demo"))
    monkeypatch.setattr(demo, "SPLITS", {"train": 6, "val": 4})
    with caplog.at_level(logging.INFO):
        crops, folder = CropDataModule(**SMALL), ImageFolderDataModule(**{**SMALL, "image_hw": (32, 32)})
        for data in (crops, folder):
            assert next(iter(data.train_dataloader())).images.shape[0] == 4
    assert caplog.messages[0] == f"the demo set lies in {tmp_path / 'demo'}"
    assert f"the demo image folder lies in {tmp_path / 'demo-crops-v1'}" in caplog.messages
    assert sorted(crops.class_names) == sorted(folder.class_names)


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        ({"batch_size": 0}, ["batch_size must be at least 1; got 0"]),
        ({"val_batch_size": 0, "num_workers": -1}, ["val_batch_size must be at least 1; got 0", "num_workers must be"]),
        ({"seed": -1, "cache_mb": -1}, ["seed must be at least 0; got -1", "cache_mb must be at least 0; got -1"]),
        ({"image_hw": (64, 7)}, ["image_hw must be at least 8 pixels; got [64, 7]"]),
        ({"image_hw": (4, 64), "seed": -2}, ["seed must be at least 0; got -2", "image_hw must be"]),
    ],
)
def test_settings_out_of_range(make: Callable[..., Any], settings: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, all parts are matched below
        make(**settings)
    parts = str(caught.value).split("; ")
    assert all(message in str(caught.value) for message in messages), parts


def test_settings_of_crops_out_of_range() -> None:
    message = (
        "seed must be at least 0; got -2; margin must be a number from 0 on; got -0.1; min_box_px must be a number "
        "from 0 on; got nan; val_annotations and val_images must be given together; got 'a.json', None"
    )
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        CropDataModule(seed=-2, margin=-0.1, min_box_px=float("nan"), val_annotations="a.json")


def test_the_base_alone_has_no_images() -> None:
    with pytest.raises(NotImplementedError, match="a subclass must read its splits"):
        ClassificationDataModule(**SMALL).prepare()


def test_real_crops(shared_data: Path) -> None:
    """Chess: the 386 validation boxes are counted by class as pycocotools' own reader counts them."""
    from pycocotools.coco import COCO

    data = CropDataModule(root=str(shared_data / "chess"), **SMALL)
    truth = data.ground_truth()
    coco = COCO(str(shared_data / "chess/annotations/instances_val.json"))
    assert truth.counts.tolist() == [len(coco.getAnnIds(catIds=[number])) for number in truth.category_ids]
    batches = list(data.val_dataloader())
    assert sum(len(batch.images) for batch in batches) == 386

    def brightness(batch: ClassBatch) -> list[tuple[str, float]]:
        means = batch.images[:, :, 4:12, 3:10].float().mean(dim=(1, 2, 3)).tolist()
        return [
            (data.class_names[label].split("-")[0], mean)
            for label, mean in zip(batch.targets.labels, means, strict=True)
        ]

    shades = [shade for batch in batches for shade in brightness(batch)]
    white, black = (np.median([mean for name, mean in shades if name == colour]) for colour in ("white", "black"))
    assert white > black + 50  # the pieces of each colour look like it
