"""Random outputs of a DETR decoder and objects for them, and the same in the form that transformers takes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detkit.types import Denoising, DETRPredictions, QueryOutput, Target
from tests.helpers.targets import target

IMAGE_HW = (96, 160)  # not square, so that a mix-up of the axes shows
NUM_CLASSES = 5


def random_targets(counts: Sequence[int], rng: torch.Generator, dtype: torch.dtype = torch.float32) -> list[Target]:
    """So many objects in each image."""
    height, width = IMAGE_HW
    targets = []
    for count in counts:
        top_left = torch.rand(count, 2, generator=rng) * torch.tensor([width * 0.7, height * 0.7])
        sides = torch.rand(count, 2, generator=rng) * torch.tensor([width * 0.3, height * 0.3]) + 1
        labels = torch.randint(NUM_CLASSES, (count,), generator=rng)
        boxes = torch.cat((top_left, top_left + sides), dim=1).tolist()
        targets.append(target(boxes, labels.tolist(), image_hw=IMAGE_HW, dtype=dtype))
    return targets


def random_output(images: int, queries: int, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> QueryOutput:
    """With leaves that gather gradients."""
    logits = torch.randn(images, queries, NUM_CLASSES, generator=rng) * 2 - 1
    boxes = torch.rand(images, queries, 4, generator=rng) * torch.tensor([1.0, 1.0, 0.4, 0.4])
    return QueryOutput(logits.to(dtype).requires_grad_(), boxes.to(dtype).requires_grad_())


def random_predictions(
    counts: Sequence[int],
    rng: torch.Generator,
    dtype: torch.dtype = torch.float32,
    layers: int = 3,
    queries: int = 12,
    groups: int = 0,
) -> DETRPredictions:
    """For images with so many objects; each group of noisy queries has positives, then negatives, both padded."""
    images, most = len(counts), max(counts)
    decoder = [random_output(images, queries, rng, dtype) for _ in range(layers)]
    encoder = random_output(images, queries, rng, dtype)
    denoising = None
    if groups and most:
        rows = [
            (image, group * 2 * most + row, sum(counts[:image]) + row)
            for image, count in enumerate(counts)
            for group in range(groups)
            for row in range(count)
        ]
        noisy = [random_output(images, 2 * most * groups, rng, dtype) for _ in range(layers)]
        image_rows, query_rows, gt_rows = torch.tensor(rows).unbind(1)
        denoising = Denoising(noisy, image_rows, query_rows, gt_rows, groups)
    return DETRPredictions(decoder, encoder, denoising, IMAGE_HW)


def leaves(predictions: DETRPredictions) -> list[Tensor]:
    """All logits and boxes: of the layers, the encoder, the noisy queries."""
    noisy = predictions.denoising.layers if predictions.denoising else []
    return [values for output in (*predictions.layers, predictions.encoder, *noisy) for values in output]


def as_labels(targets: Sequence[Target]) -> list[dict[str, Tensor]]:
    """The objects as transformers takes them: centre and size as fractions of the image."""
    height, width = IMAGE_HW
    scale = torch.tensor([width, height, width, height])
    return [
        {"class_labels": target.labels, "boxes": box_convert(target.boxes, "xyxy", "cxcywh") / scale}
        for target in targets
    ]
