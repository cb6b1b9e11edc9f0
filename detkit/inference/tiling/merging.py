"""Merges the detections of several views of one image: of overlapping windows, or of an image and its mirror image.

Note [objects on seams]: a window shows only a fragment of an object on its border. The box of a fragment has a side on
a border that is inside the image. Another window that reaches beyond this side shows more of the object. Two boxes
belong to one object if they agree in the area that both windows cover.

1. A fragment is removed if the other box contains it and is not itself cut where the first window reaches further.
2. Otherwise the two boxes are joined, because each covers a part that the other lacks. The object is the hull of such a
   chain. So an object may span any number of windows.
3. The remaining boxes are suppressed, the best first, by an IoU above 0.5 with a better box of another view. Here a
   fragment has half its score, and is also removed if more than half of it lies in the better box. A box of the whole
   image that lies in a window has half its score too, and is also removed if more than half of the better box lies
   in it.

Boxes of one view never remove each other, because the detector has already decided on them. A box with less than
``MIN_SCORE_SHARE`` of another box's score does not affect it; so a threshold before merging that is lower by this
factor does not change the result.

Source: Akyon et al., Slicing Aided Hyper Inference (SAHI), 2022. https://arxiv.org/abs/2202.06934
    Differs in: there all overlapping boxes are merged into their hull or suppressed by one measure, also within a
    window; fragments are not treated separately.
    Solovyev et al., Weighted boxes fusion, 2021. https://arxiv.org/abs/1910.13302 (``fuse``)
    Differs in: only two views, and each box is paired with at most one box of the other view.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detkit.ops.boxes import box_areas
from detkit.ops.iou import aligned_iou, pairwise_coverage, pairwise_iou
from detkit.types import Detections

SAME = 0.5  # two boxes are of one object above this IoU, or share of a fragment inside the other box
HELD = 0.9  # a box contains a fragment if more than this share of it is inside
NEAR = 0.02  # a box within this share of a window's side from its border is cut by it
DOUBTFUL_WEIGHT = 0.5  # factor on the score of a fragment or a coarse box in the ranking
PART = 0.5  # a box with less than this share of a fragment's score neither removes it nor is joined to it
MIN_SCORE_SHARE = DOUBTFUL_WEIGHT * PART * PART  # lower scores affect no box above a threshold


class _ViewedBoxes(NamedTuple):
    """Boxes of all views, xyxy in pixels of the image."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,)
    labels: Tensor  # (N,)
    view: Tensor  # (N,) number of the view
    cut: Tensor  # (N, 4) bool: the sides that lie on a border of the view inside the image
    coarse: Tensor  # (N,) bool: the box lies within a smaller view

    def select(self, which: Tensor) -> "_ViewedBoxes":
        return _ViewedBoxes(*(values[which] for values in self))


def merge(found: Sequence[Detections], windows: Tensor, image_hw: tuple[int, int]) -> Detections:
    """The detections of overlapping windows as those of the image, best first.

    Args:
        found: of each window, xyxy in pixels of the image.
        windows: (n, 4) xyxy; the whole image may be one of them.
        image_hw: the size of the image.
    """
    views = _gather(found, windows, image_hw)
    views = _with_joined(views, windows.to(views.boxes))
    kept = _not_dropped(views)
    best_first = kept[views.scores[kept].argsort(descending=True, stable=True)]
    return Detections(*views.select(best_first)[:3])


def fuse(ours: Detections, theirs: Detections) -> Detections:
    """Fuse two lists of detections of the same image; the result is sorted by score.

    Boxes of one class are paired one to one, the highest product of IoU and score sum first; with IoU alone, weaker
    duplicates of a DETR would be paired. A pair becomes the mean of both boxes, weighted by their scores, with the mean
    score. Boxes without a partner keep half their score.
    """
    partner = _partners(ours, theirs)
    mine, its = torch.tensor(list(partner.items()), dtype=torch.int64).reshape(-1, 2).T
    weights = torch.stack((ours.scores[mine], theirs.scores[its])).clamp(min=1e-9)[..., None]
    mean = (torch.stack((ours.boxes[mine], theirs.boxes[its])) * weights).sum(0) / weights.sum(0)
    alone = [_without(ours, mine), _without(theirs, its)]
    boxes = torch.cat([mean, *(each.boxes for each in alone)])
    scores = torch.cat([ours.scores[mine] + theirs.scores[its], *(each.scores for each in alone)]) / 2
    labels = torch.cat([ours.labels[mine], *(each.labels for each in alone)])
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], labels[order])


def _gather(found: Sequence[Detections], windows: Tensor, image_hw: tuple[int, int]) -> _ViewedBoxes:
    boxes, scores, labels = (torch.cat(values) for values in zip(*found, strict=True))
    view = torch.repeat_interleave(torch.tensor([len(each.scores) for each in found]))
    windows = windows.to(boxes)
    near = NEAR * (windows[:, 2:] - windows[:, :2]).repeat(1, 2)
    inner = torch.cat((windows[:, :2] > 0, windows[:, 2:] < windows.new_tensor((image_hw[1], image_hw[0]))), dim=1)
    cut = ((boxes - windows[view]).abs() <= near[view]) & inner[view]
    areas = box_areas(windows)
    coarse = torch.zeros_like(labels, dtype=torch.bool)
    for large in (areas > areas.min()).nonzero().squeeze(1).tolist():
        mine, smaller = view == large, windows[areas < areas[large]]
        coarse[mine] = (pairwise_coverage(boxes[mine], smaller) >= 1).any(dim=1)
    return _ViewedBoxes(boxes, scores, labels, view, cut, coarse)


def _with_joined(views: _ViewedBoxes, windows: Tensor) -> _ViewedBoxes:
    """The boxes without superseded fragments, and with each chain of fragments replaced by its hull as a new view."""
    superseded, neighbours = _fragments(views, windows)
    scores = views.scores.tolist()
    taken = set(superseded)
    chains: list[list[int]] = []
    for seed in sorted(neighbours, key=lambda row: -scores[row]):
        chain = [] if seed in taken else [seed]
        taken.update(chain)
        for row in chain:  # the list grows during the iteration
            more = [other for other in neighbours[row] if other not in taken and scores[other] >= PART * scores[seed]]
            taken.update(more)
            chain += more
        if len(chain) > 1:
            chains.append(chain)
    left = torch.ones(len(scores), dtype=torch.bool)
    left[[*superseded, *(row for chain in chains for row in chain)]] = False
    joined = [_hull(views.select(torch.tensor(chain)), len(windows) + n) for n, chain in enumerate(chains)]
    return _ViewedBoxes(*(torch.cat(values) for values in zip(views.select(left), *joined, strict=True)))


def _fragments(views: _ViewedBoxes, windows: Tensor) -> tuple[list[int], dict[int, list[int]]]:
    """Rows of the fragments to remove, and for each other fragment the rows of the boxes to join it with."""
    superseded: list[int] = []
    neighbours: dict[int, list[int]] = defaultdict(list)
    for mine, others in _groups(views, views.cut.any(dim=1)):
        window, theirs = windows[views.view[mine[:1]]], windows[views.view[others]]
        shared = _clipped(window, theirs)
        inside = [_clipped(boxes, shared) for boxes in (views.boxes[mine][:, None], views.boxes[others])]
        same = (aligned_iou(inside[0], inside[1]) > SAME) & (views.labels[mine][:, None] == views.labels[others])
        misses = (views.cut[mine][:, None] & _beyond(theirs, window)).any(
            dim=2
        )  # the other window shows the missing part
        other_misses = (views.cut[others] & _beyond(window, theirs)).any(dim=1)
        enough = views.scores[others] >= PART * views.scores[mine][:, None]
        holds = pairwise_coverage(views.boxes[mine], views.boxes[others]) > HELD
        superseded += mine[(same & misses & holds & ~other_misses & enough).any(dim=1)].tolist()
        for row, column in (same & misses & (other_misses | ~holds)).nonzero().tolist():
            neighbours[int(mine[row])].append(int(others[column]))
            neighbours[int(others[column])].append(int(mine[row]))
    return superseded, neighbours


def _beyond(windows: Tensor, others: Tensor) -> Tensor:
    """(n, 4) whether each side of the windows is beyond that of the others."""
    return torch.cat((windows[:, :2] < others[:, :2], windows[:, 2:] > others[:, 2:]), dim=1)


def _hull(chain: _ViewedBoxes, view: int) -> _ViewedBoxes:
    """The box around a chain; each side is cut if that of the outermost box is cut."""
    low, lowest = chain.boxes[:, :2].min(dim=0)
    high, highest = chain.boxes[:, 2:].max(dim=0)
    cut = torch.cat((chain.cut[:, :2].gather(0, lowest[None]), chain.cut[:, 2:].gather(0, highest[None])), dim=1)
    best, whole = chain.scores.max()[None], torch.tensor([False])
    return _ViewedBoxes(torch.cat((low, high))[None], best, chain.labels[:1], torch.tensor([view]), cut, whole)


def _not_dropped(views: _ViewedBoxes) -> Tensor:
    """(kept,) rows that are not suppressed; better boxes have priority."""
    weights = torch.where(views.cut.any(dim=1) | views.coarse, DOUBTFUL_WEIGHT, 1.0)
    order = (views.scores * weights).argsort(descending=True, stable=True)
    views = views.select(order)
    droppers: dict[int, list[int]] = defaultdict(list)
    for mine, others in _groups(views, torch.ones_like(views.coarse)):
        boxes, other_boxes = views.boxes[mine], views.boxes[others]
        inside = torch.where(views.cut[mine].any(dim=1)[:, None], pairwise_coverage(boxes, other_boxes), 0)
        around = torch.where(views.coarse[mine][:, None], pairwise_coverage(other_boxes, boxes).T, 0)
        overlap = pairwise_iou(boxes, other_boxes).maximum(inside).maximum(around)
        better = (others < mine[:, None]) & (views.labels[mine][:, None] == views.labels[others])
        for row, column in ((overlap > SAME) & better).nonzero().tolist():
            droppers[int(mine[row])].append(int(others[column]))
    kept = [True] * len(order)
    for row in sorted(droppers):
        kept[row] = not any(kept[other] for other in droppers[row])
    return order[torch.tensor(kept, dtype=torch.bool)]


def _groups(views: _ViewedBoxes, which: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each view its selected rows, and the rows of other views near them, which limits the number of pairs."""
    for view in views.view[which].unique():
        mine = (which & (views.view == view)).nonzero().squeeze(1)
        low, high = views.boxes[mine, :2].amin(dim=0), views.boxes[mine, 2:].amax(dim=0)
        near = (views.boxes[:, :2] < high).all(dim=1) & (views.boxes[:, 2:] > low).all(dim=1)
        others = (near & (views.view != view)).nonzero().squeeze(1)
        if len(others):
            yield mine, others


def _clipped(boxes: Tensor, to: Tensor) -> Tensor:
    """Boxes clipped to other boxes; without overlap they have no area."""
    return torch.cat((boxes[..., :2].maximum(to[:, :2]), boxes[..., 2:].minimum(to[:, 2:])), dim=-1)


def _partners(ours: Detections, theirs: Detections) -> dict[int, int]:
    overlap = pairwise_iou(ours.boxes, theirs.boxes) * (ours.labels[:, None] == theirs.labels)
    pairs = (overlap > SAME).nonzero()
    values = overlap * (ours.scores[:, None] + theirs.scores)
    best_first = values[pairs[:, 0], pairs[:, 1]].argsort(descending=True, stable=True)
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for mine, its in pairs[best_first].tolist():
        if mine not in partner and its not in taken:
            partner[mine] = its
            taken.add(its)
    return partner


def _without(found: Detections, rows: Tensor) -> Detections:
    left = torch.ones(len(found.scores), dtype=torch.bool)
    left[rows] = False
    return Detections(*(values[left] for values in found))
