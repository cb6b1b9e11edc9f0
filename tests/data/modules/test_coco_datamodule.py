"""The data module: what it finds and refuses, and the one stream of batches that it gives."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from detkit.data import CocoDataModule
from detkit.data.augment import Augmentation
from detkit.data.loading.sampler import SampleKey
from detkit.errors import DataError
from detkit.types import Batch
from tests.helpers.coco_batches import SMALL, data_of, digest
from tests.helpers.small_set import CLASS_NAMES, write_split


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_split(folder, "train", 14, crowd=True)
    write_split(folder, "val", 7)
    return folder


def test_batches(root: Path) -> None:
    data = data_of(root)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.num_images == 4 and type(batch.targets.boxes) is Tensor
    ready = data.on_after_batch_transfer(batch, 0)
    assert ready.images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ready.images, batch.images / 255, rtol=0, atol=0)
    assert batch.images.dtype == torch.uint8


STRONG: dict[str, Any] = {
    "resize": "squash",
    "augmentation": Augmentation(
        mixup_probability=0.3,
        mosaic_probability=0.3,
        zoom_out_probability=0.5,
        iou_crop_probability=0.8,
        photometric_probability=0.5,
        channel_shuffle_probability=0.5,
    ),
}


@pytest.mark.parametrize("settings", [{}, STRONG], ids=["affine", "zoom and crop"])
@pytest.mark.parametrize("cache_mb", [0, 64])
def test_the_stream_does_not_depend_on_workers_or_cache(root: Path, cache_mb: int, settings: dict[str, Any]) -> None:
    def two_epochs(num_workers: int, megabytes: int) -> list[Any]:
        data = data_of(root, num_workers=num_workers, cache_mb=megabytes, multi_scale=(0.5, 1.5), **settings)
        loader = data.train_dataloader()
        return [digest(batch) for _ in range(2) for batch in loader]

    alone = two_epochs(0, 64)
    assert len(alone) == 6 and len(set(alone)) == 6
    assert two_epochs(0, cache_mb) == alone
    assert two_epochs(2, cache_mb) == alone


def test_multi_scale_of_squashed_images(root: Path) -> None:
    """Square sizes from 480 to 800 in steps of 32, all of them; validation keeps its own."""
    data = data_of(root, image_hw=(640, 640), batch_size=1, multi_scale=(0.75, 1.25), **STRONG)
    sampler = data.train_dataloader().key_sampler
    drawn = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        drawn |= {key.image_hw for [key] in sampler}
    assert drawn == {(side, side) for side in range(480, 801, 32)}
    batch = next(iter(data.train_dataloader()))
    assert tuple(batch.images.shape[2:]) in drawn
    [target] = next(iter(data.val_dataloader())).targets.unpack()
    assert target.scale_xy == (640 / 128, 640 / 96)


def test_squash_in_the_last_epochs_of_training(root: Path) -> None:
    data = data_of(root, resize="squash")
    dataset = data.train_dataloader().dataset
    dataset.plain_from_epoch = 0
    _, target = dataset[SampleKey(0, 5, (64, 32))]
    assert target.scale_xy == (32 / 128, 64 / 96)


def test_workers_go_on_with_the_next_epoch_after_a_break(root: Path) -> None:
    """Persistent workers have fetched ahead when the consumer stops; what they fetched must not be seen later."""
    whole = data_of(root).train_dataloader()
    expected = [digest(batch) for _ in range(2) for batch in whole]
    loader = data_of(root, num_workers=1).train_dataloader()
    for _, batch in zip(range(1), loader, strict=False):
        assert digest(batch) == expected[0]
    loader.key_sampler.set_epoch(1)
    assert [digest(batch) for batch in loader] == expected[3:]


def test_resume_at_every_batch(root: Path) -> None:
    loader = data_of(root).train_dataloader()
    expected, states = [], []
    for _ in range(2):
        for batch in loader:
            expected.append(digest(batch))
            states.append(loader.state_dict())
    assert states[2] == {"epoch": 1, "batches_done": 0}
    for done, state in enumerate(states[:-1], start=1):
        resumed = data_of(root).train_dataloader()
        resumed.load_state_dict(state)
        assert next(digest(batch) for batch in resumed) == expected[done]


def test_validation_in_the_order_of_the_file(root: Path) -> None:
    data = data_of(root, num_workers=1, val_batch_size=3)
    batches = list(data.val_dataloader())
    assert [image_id for batch in batches for image_id in batch.targets.image_ids] == list(range(10, 17))
    assert len(data.val_dataloader()) == len(batches) == 3
    np.testing.assert_array_equal(data.ground_truth().image_ids, range(10, 17))


class Trace(L.LightningModule):
    """Notes which batches were trained on, and asks for the total number of steps as schedules do."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.fail_at = fail_at
        self.seen: list[tuple[tuple[int, ...], str]] = []

    def training_step(self, batch: Batch) -> Tensor:
        if self.fail_at == self.global_step:
            raise RuntimeError("stopped in a step")
        self.seen.append(digest(batch))
        return self.weight.sum()

    def validation_step(self, batch: Batch) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches  # makes the loader, before a checkpoint is restored
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEveryStep(L.Callback):
    """Checkpoints named by the steps that were done, also when a step fails.

    Not in the hook of an epoch's last batch: what Lightning 2.6 saves there it can resume, but what
    it saves after that it cannot.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:
            self._save(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


CLOSED_AT_THE_END = Augmentation(mixup_probability=0.3, close_mosaic_epochs=1)


@pytest.fixture
def fit(root: Path, tmp_path: Path) -> Callable[..., list[Any]]:
    """Train three epochs of three steps, saving each, and say which batches were seen."""

    def run(
        resume: str | None = None, fail_at: int | None = None, limit: int | None = None, **settings: Any
    ) -> list[Any]:
        module = Trace(fail_at)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=3,
            limit_train_batches=limit,
            logger=False,
            callbacks=[SaveEveryStep(tmp_path)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = data_of(root, **{"augmentation": CLOSED_AT_THE_END, **settings})
        trainer.fit(module, data, ckpt_path=tmp_path / resume if resume else None, weights_only=True)
        return module.seen

    return run


def test_resume_in_lightning_at_every_step(fit: Callable[..., list[Any]]) -> None:
    expected = fit()
    assert len(expected) == len(set(expected)) == 9
    for step in range(1, 9):
        assert fit(resume=f"{step}.ckpt") == expected[step:], f"resumed after {step}"  # and saves every step again
    for step in range(8, 0, -1):
        assert fit(resume=f"{step}.ckpt") == expected[step:], f"resumed after {step}, again"


def test_resume_in_lightning_with_workers(fit: Callable[..., list[Any]]) -> None:
    """The first resumed epoch must not be epoch 0's, which workers would have fetched by then."""
    expected = fit(num_workers=2)
    assert fit(resume="4.ckpt", num_workers=1) == expected[4:]


def test_a_batch_that_failed_comes_again(fit: Callable[..., list[Any]]) -> None:
    expected = fit()
    with pytest.raises(RuntimeError, match="stopped in a step"):
        fit(fail_at=4)
    assert fit(resume="4.ckpt") == expected[4:]


def test_limited_epochs_begin_at_their_start(fit: Callable[..., list[Any]]) -> None:
    whole, limited = fit(), fit(limit=2)
    assert limited == whole[0:2] + whole[3:5] + whole[6:8]


def test_the_last_epochs_are_plain(fit: Callable[..., list[Any]]) -> None:
    closed, open_to_the_end = fit(), fit(augmentation=replace(CLOSED_AT_THE_END, close_mosaic_epochs=0))
    assert closed[:6] == open_to_the_end[:6]
    assert [ids for ids, _ in closed] == [ids for ids, _ in open_to_the_end]
    assert not {content for _, content in closed[6:]} & {content for _, content in open_to_the_end[6:]}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_images_that_broke_after_the_check(tmp_path: Path, num_workers: int) -> None:
    write_split(tmp_path, "train", 8)
    write_split(tmp_path, "val", 1)
    data = data_of(tmp_path, num_workers=num_workers)
    data.prepare()
    for path in (tmp_path / "train").iterdir():
        path.write_bytes(b"not a picture any more")
    with pytest.raises(
        DataError, match=r"^none of 8 training samples can be read any more; (.*\n    image 1\d: .*){8}$"
    ):
        list(data.train_dataloader())
    data.teardown("fit")


def test_reports_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(root)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            data.prepare()
            data.setup("fit")
    assert [message.split(":")[0] for message in caplog.messages] == ["train", "val"]
    assert data.class_names == CLASS_NAMES


def test_fingerprint_is_of_both_splits(root: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "train", 14, crowd=True)
    write_split(tmp_path, "val", 7)
    assert data_of(tmp_path).fingerprint == data_of(root).fingerprint
    path = tmp_path / "annotations" / "instances_val.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(document))
    assert data_of(tmp_path).fingerprint != data_of(root).fingerprint


def test_no_augmentation_is_the_resize_of_validation(root: Path) -> None:
    named = {"train_annotations": "annotations/instances_val.json", "train_images": "val"}
    data = data_of(root, batch_size=7, augmentation=None, **named)
    [trained], [validated] = data.train_dataloader(), data.val_dataloader()
    by_id = dict(zip(validated.targets.image_ids, validated.images, strict=True))
    for image_id, image in zip(trained.targets.image_ids, trained.images, strict=True):
        torch.testing.assert_close(image, by_id[image_id], rtol=0, atol=0)


def test_explicit_files(root: Path) -> None:
    """Relative to the root, or without one; what is not named is looked for."""
    named: dict[str, Any] = {"val_annotations": "annotations/instances_train.json", "val_images": "train"}
    data = data_of(root, **named)
    data.prepare()
    assert len(data.ground_truth().image_ids) == 14 and len(data.train_dataloader()) == 3
    full: dict[str, Any] = {key: str(root / value) for key, value in named.items()}
    alone = CocoDataModule(root=None, **SMALL, **full)
    assert len(alone.ground_truth().image_ids) == 14
    with pytest.raises(DataError, match=r"there is no train split; name it by data\.train_annotations"):
        alone.setup("fit")


def test_a_root_for_evaluation_needs_no_training_data(tmp_path: Path) -> None:
    write_split(tmp_path, "val", 3)
    data = data_of(tmp_path)
    data.setup("validate")
    assert data.class_names == CLASS_NAMES
    with pytest.raises(DataError, match=f"there is no train split under {tmp_path}"):
        data.setup("fit")


def test_training_data_alone_is_not_enough(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 3)
    with pytest.raises(DataError, match=rf"there is no val split under {tmp_path}; name it by data\.val_annotations"):
        data_of(tmp_path).prepare()
    with pytest.raises(
        DataError, match=r"data\.val_annotations=annotations/instances_train\.json data\.val_images=train"
    ):
        data_of(tmp_path).prepare()


def test_classes_must_agree(tmp_path: Path) -> None:
    write_split(tmp_path, "train", 3, class_names=("thing", "other", "more"))
    write_split(tmp_path, "val", 3, class_names=("thing", "another"))
    expected = r"category 7 is 'other' in train, 'another' in val\n    category 9 is 'more' in train, missing in val"
    with pytest.raises(DataError, match=expected):
        data_of(tmp_path).prepare()


@pytest.mark.slow  # draws the demo set
def test_the_demo_set_when_there_is_no_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DETKIT_DEMO", str(tmp_path / "demo"))
    data = CocoDataModule(**SMALL)
    with caplog.at_level(logging.INFO):
        data.prepare()
    assert caplog.messages[0] == f"the demo set lies in {tmp_path / 'demo'}"
    assert next(iter(data.train_dataloader())).targets.num_images == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_hw": (64, 50)}, r"image_hw must be multiples of 32, .*; got \[64, 50\]"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"num_workers": -1, "seed": -2}, "num_workers must be at least 0; got -1; seed must be at least 0; got -2"),
        ({"resize": "crop"}, "resize must be letterbox or squash; got 'crop'"),
        ({"multi_scale": (1.1, 1.2)}, r"multi_scale must be .* with a multiple of 32 .*; got \[1.1, 1.2\]"),
        ({"train_images": "a"}, "train_annotations and train_images must be given together; got None, 'a'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoDataModule(**{**SMALL, **settings})
