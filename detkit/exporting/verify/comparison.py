"""Comparison of the detections of two runtimes, matched one to one."""

from typing import NamedTuple

import torch
from torch import Tensor

from detkit.ops.iou import pairwise_iou
from detkit.types import Detections

LEAST_SCORE = 0.05  # of compared detections; below it the limit on their number decides which exist
LEAST_IOU = 0.5


class Difference(NamedTuple):
    """How far two sets of detections are apart; a box differs by its farthest side, in pixels of the network input."""

    matched: int
    unmatched: int  # detections of either set without a partner in the other
    largest_box_px: float
    mean_box_px: float
    largest_score: float
    mean_score: float
    mean_iou_loss: float  # 1 - IoU of partners

    @property
    def unmatched_share(self) -> float:
        """Unmatched detections over pairs and unmatched detections; 0 if there are none."""
        return self.unmatched / max(1, self.matched + self.unmatched)


class Comparison:
    """Matches the detections of each image and collects their differences.

    A pair is compared if at least one of its two scores is ``least_score`` or more. Partners have the same class. Pairs
    are matched in the order of their IoU minus the difference of their scores.

    Args:
        least_score: of compared detections.
    """

    def __init__(self, least_score: float = LEAST_SCORE) -> None:
        self.least_score = least_score
        self.unmatched = 0
        self.box_px: list[float] = []
        self.score: list[float] = []
        self.iou_loss: list[float] = []

    def add(self, ours: Detections, theirs: Detections) -> None:
        """Compare the detections of one image."""
        iou = _pairwise_iou(ours.boxes.double(), theirs.boxes.double())
        pairs = _pairs(iou, ours, theirs)
        matched_ours, matched_theirs = {row for row, _ in pairs}, {column for _, column in pairs}
        self.unmatched += self._without_partner(ours, matched_ours) + self._without_partner(theirs, matched_theirs)
        for row, column in pairs:
            if max(ours.scores[row], theirs.scores[column]) >= self.least_score:
                self.box_px.append(float((ours.boxes[row] - theirs.boxes[column]).abs().max()))
                self.score.append(float((ours.scores[row] - theirs.scores[column]).abs()))
                self.iou_loss.append(1 - float(iou[row, column]))

    def difference(self) -> Difference:
        """The differences over all images so far."""
        boxes, scores, losses = (sorted(values) or [0.0] for values in (self.box_px, self.score, self.iou_loss))
        of_boxes, of_scores, of_losses = (sum(values) / len(values) for values in (boxes, scores, losses))
        return Difference(len(self.box_px), self.unmatched, boxes[-1], of_boxes, scores[-1], of_scores, of_losses)

    def _without_partner(self, found: Detections, matched: set[int]) -> int:
        good = (found.scores >= self.least_score).nonzero().flatten().tolist()
        return len(set(good) - matched)


def _pairs(iou: Tensor, ours: Detections, theirs: Detections) -> list[tuple[int, int]]:
    """Rows of the partners in both sets."""
    may_pair = (iou >= LEAST_IOU) & (ours.labels[:, None] == theirs.labels)
    likeness = iou - (ours.scores.double()[:, None] - theirs.scores).abs()
    rows, columns = may_pair.nonzero(as_tuple=True)
    best_first = likeness[rows, columns].argsort(descending=True, stable=True)
    pairs: list[tuple[int, int]] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for row, column in zip(rows[best_first].tolist(), columns[best_first].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    return pairs


def _pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """As ``ops.iou``, but 1 for equal boxes without area."""
    equal = (a[:, None] == b).all(-1)
    return torch.where(equal, torch.ones((), dtype=a.dtype), pairwise_iou(a, b))
