"""Detections of several views of one image made into one list: of overlapping windows, and of an image and its mirror.

Note [objects on seams]: a window sees of an object on its border a fragment, which is no smaller object but a worse
box of the same one. Fragments are known by a side on a border inside the image. Another window that looks beyond this
side shows what they are part of: the two boxes are of one object if they are the same in what both windows see.

1. A fragment goes, if the other box holds all of it, and is not cut itself where the first window looks further.
2. Otherwise the two are joined: each has what the other lacks. The hull of such a chain is the object; so objects come
   out whole that no window holds, however many they span.
3. The rest is suppressed, the best boxes first, by an IoU of more than a half with a better box of another view. For
   this a fragment counts with half its score, and goes also if more than half of it lies in the better box. A box of
   the whole image that some window holds too, in more detail, counts with half its score as well, and goes also if
   more than half of the better box lies in it.

Boxes of one view never drop each other: the detector has decided on these, a DETR without any suppression at all.
What has less than ``LEAST`` of a box's score changes nothing for it: a threshold before gives what one after gives.

Source: Akyon et al., Slicing Aided Hyper Inference (SAHI), 2022. https://arxiv.org/abs/2202.06934
    Differs in: there all boxes that overlap are merged into their hull or suppressed, by one measure for all, within a
    window too; what a border has cut is not told from what is whole.
    Solovyev et al., Weighted boxes fusion, 2021. https://arxiv.org/abs/1910.13302 (``fuse``)
    Differs in: of two views alone, one box of each to one of the other.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detkit.ops.boxes import box_areas
from detkit.ops.iou import aligned_iou, pairwise_coverage, pairwise_iou
from detkit.types import Detections

SAME = 0.5  # IoU, or part of a fragment that lies in another box: more is the same object
HELD = 0.9  # of a fragment in the box that another window saw: more is all of it
NEAR = 0.02  # of a window's side: a box that ends within is cut by the border
DOUBTFUL_WEIGHT = 0.5  # of the score of a fragment or a coarse box, in the ranking
PART = 0.5  # of a fragment's score: what has less takes no fragment away and is not joined to it
LEAST = DOUBTFUL_WEIGHT * PART * PART  # what scores less than this part of a threshold changes nothing above it


class _Views(NamedTuple):
    """Boxes of all views, xyxy in pixels of the image."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,)
    labels: Tensor  # (N,)
    view: Tensor  # (N,) which view a box is of
    cut: Tensor  # (N, 4) bool: the sides that lie on a border of the view inside the image
    coarse: Tensor  # (N,) bool: a smaller view holds it

    def those(self, which: Tensor) -> "_Views":
        return _Views(*(values[which] for values in self))


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
    return Detections(*views.those(best_first)[:3])


def fuse(ours: Detections, theirs: Detections) -> Detections:
    """Two lists of detections of the same image, best first: the mean of what both found, half the score of the rest.

    Boxes are paired within a class, each with one at most, the highest IoU times score first: by IoU alone the doubtful
    second boxes of a DETR would take the place of the first. The box of a pair is the mean, weighted by the scores,
    its score the mean.
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


def _gather(found: Sequence[Detections], windows: Tensor, image_hw: tuple[int, int]) -> _Views:
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
    return _Views(boxes, scores, labels, view, cut, coarse)


def _with_joined(views: _Views, windows: Tensor) -> _Views:
    """With the hull of each chain of fragments in place of these, as a view of its own, and without superseded ones."""
    superseded, neighbours = _fragments(views, windows)
    scores = views.scores.tolist()
    taken = set(superseded)
    chains: list[list[int]] = []
    for seed in sorted(neighbours, key=lambda row: -scores[row]):
        chain = [] if seed in taken else [seed]
        taken.update(chain)
        for row in chain:  # grows while it is walked along
            more = [other for other in neighbours[row] if other not in taken and scores[other] >= PART * scores[seed]]
            taken.update(more)
            chain += more
        if len(chain) > 1:
            chains.append(chain)
    left = torch.ones(len(scores), dtype=torch.bool)
    left[[*superseded, *(row for chain in chains for row in chain)]] = False
    joined = [_hull(views.those(torch.tensor(chain)), len(windows) + n) for n, chain in enumerate(chains)]
    return _Views(*(torch.cat(values) for values in zip(views.those(left), *joined, strict=True)))


def _fragments(views: _Views, windows: Tensor) -> tuple[list[int], dict[int, list[int]]]:
    """Rows of fragments of which others have seen more, and of each the rows of those that it is to be joined with."""
    superseded: list[int] = []
    neighbours: dict[int, list[int]] = defaultdict(list)
    for mine, others in _groups(views, views.cut.any(dim=1)):
        window, theirs = windows[views.view[mine[:1]]], windows[views.view[others]]
        shared = _clipped(window, theirs)
        inside = [_clipped(boxes, shared) for boxes in (views.boxes[mine][:, None], views.boxes[others])]
        same = (aligned_iou(inside[0], inside[1]) > SAME) & (views.labels[mine][:, None] == views.labels[others])
        misses = (views.cut[mine][:, None] & _beyond(theirs, window)).any(dim=2)  # what the other has seen
        other_misses = (views.cut[others] & _beyond(window, theirs)).any(dim=1)
        enough = views.scores[others] >= PART * views.scores[mine][:, None]
        holds = pairwise_coverage(views.boxes[mine], views.boxes[others]) > HELD
        superseded += mine[(same & misses & holds & ~other_misses & enough).any(dim=1)].tolist()
        for row, column in (same & misses & (other_misses | ~holds)).nonzero().tolist():
            neighbours[int(mine[row])].append(int(others[column]))
            neighbours[int(others[column])].append(int(mine[row]))
    return superseded, neighbours


def _beyond(windows: Tensor, others: Tensor) -> Tensor:
    """(n, 4) whether windows reach further than others at each side."""
    return torch.cat((windows[:, :2] < others[:, :2], windows[:, 2:] > others[:, 2:]), dim=1)


def _hull(chain: _Views, view: int) -> _Views:
    """One box around all; a side of it is cut where that of the outermost is."""
    low, lowest = chain.boxes[:, :2].min(dim=0)
    high, highest = chain.boxes[:, 2:].max(dim=0)
    cut = torch.cat((chain.cut[:, :2].gather(0, lowest[None]), chain.cut[:, 2:].gather(0, highest[None])), dim=1)
    best, whole = chain.scores.max()[None], torch.tensor([False])
    return _Views(torch.cat((low, high))[None], best, chain.labels[:1], torch.tensor([view]), cut, whole)


def _not_dropped(views: _Views) -> Tensor:
    """(kept,) rows; the best of all decide first."""
    weights = torch.where(views.cut.any(dim=1) | views.coarse, DOUBTFUL_WEIGHT, 1.0)
    order = (views.scores * weights).argsort(descending=True, stable=True)
    views = views.those(order)
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


def _groups(views: _Views, which: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each view some of its rows, and those of others that lie near them: few, however many there are in all."""
    for view in views.view[which].unique():
        mine = (which & (views.view == view)).nonzero().squeeze(1)
        low, high = views.boxes[mine, :2].amin(dim=0), views.boxes[mine, 2:].amax(dim=0)
        near = (views.boxes[:, :2] < high).all(dim=1) & (views.boxes[:, 2:] > low).all(dim=1)
        others = (near & (views.view != view)).nonzero().squeeze(1)
        if len(others):
            yield mine, others


def _clipped(boxes: Tensor, to: Tensor) -> Tensor:
    """Boxes limited to other boxes; outside of them without area."""
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
