"""The ground truth of a batch: packed and unpacked, padded, and what of it moves to a device."""

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._pytree import tree_leaves

from detkit.ops.targets import pack_labels, pack_targets, pad_targets
from detkit.types import Batch, ClassBatch, ImageLabel, Target

BATCHES = [(3, 0, 2), (0, 0), (1,), (0, 4), (5, 1, 0, 0)]


def random_targets(counts: tuple[int, ...]) -> list[Target]:
    """With as many crowds as the image has boxes less two, if any."""
    rng = np.random.default_rng(sum(counts))

    def boxes(count: int) -> Tensor:
        return torch.from_numpy(rng.random((max(count, 0), 4), dtype=np.float32))

    return [
        Target(
            boxes(count),
            torch.from_numpy(rng.integers(0, 9, count)),
            boxes(count - 2),
            int(rng.integers(2**62)),
            (int(rng.integers(1, 99)), int(rng.integers(1, 99))),
            (float(rng.random()), float(rng.random())),
            (float(rng.random()), float(rng.random())),
        )
        for count in counts
    ]


def assert_same(one: Target, other: Target) -> None:
    assert one[3:] == other[3:]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one[:3], other[:3], strict=True))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("counts", BATCHES, ids=str)
def test_unpacked_is_what_was_packed(counts: tuple[int, ...]) -> None:
    targets = random_targets(counts)
    packed = pack_targets(targets)
    assert packed.num_images == len(counts) and packed.box_counts.tolist() == list(counts)
    assert packed.image_rows.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    assert packed.crowd_rows.tolist() == [row for row, count in enumerate(counts) for _ in range(count - 2)]
    for one, other in zip(targets, packed.unpack(), strict=True):
        assert_same(one, other)
    assert_same(packed.of_image(len(counts) - 1), targets[-1])


@pytest.mark.parametrize("counts", BATCHES, ids=str)
def test_padding_agrees_with_a_loop(counts: tuple[int, ...]) -> None:
    targets = random_targets(counts)
    labels, boxes, mask = pad_targets(pack_targets(targets))
    assert labels.shape == mask.shape == boxes.shape[:2] == (len(counts), max(counts))
    for image, target in enumerate(targets):
        assert mask[image].tolist() == [column < counts[image] for column in range(max(counts))]
        assert torch.equal(labels[image, : counts[image]], target.labels)
        assert torch.equal(boxes[image, : counts[image]], target.boxes)
    assert not labels[~mask].any() and not boxes[~mask].any()


def test_classes_are_unpacked_as_packed() -> None:
    labels = [ImageLabel(torch.tensor(label), image_id) for label, image_id in ((3, 2**40), (0, 7))]
    assert pack_labels(labels).unpack() == labels


def test_few_tensors_move_to_the_device() -> None:
    """Whatever the number of images; what is known of each image stays as it is."""
    images = torch.zeros(64, 3, 8, 8)
    batch = Batch(images, pack_targets(random_targets((2, 0, 5, 1) * 16)))
    classes = ClassBatch(images, pack_labels([ImageLabel(torch.tensor(1), 0)] * 64))
    moved, moved_classes = move_data_to_device((batch, classes), torch.device("meta"))
    for ours, theirs, count in ((moved, batch, 6), (moved_classes, classes, 2)):
        tensors = [leaf for leaf in tree_leaves(ours) if isinstance(leaf, Tensor)]
        assert len(tensors) == count and all(tensor.is_meta for tensor in tensors)
        assert ours.targets.image_ids is theirs.targets.image_ids
