"""The interface of a decoder for inference, and optional extensions of it."""

from typing import Any, Protocol, TypeAlias, runtime_checkable

from detkit.types import DenseDetections, Detections

Predictions: TypeAlias = Any  # the output of a head and the input of its decoder; a user's own may have any type


class Decode(Protocol):
    """Raw predictions to the detections of each image, in pixels of the network input."""

    def __call__(self, predictions: Predictions, /) -> list[Detections]: ...


@runtime_checkable
class HasThreshold(Protocol):
    """A decoder with an attribute for the lowest score of its detections."""

    score_threshold: float


@runtime_checkable
class SetsThreshold(Protocol):
    """A decoder that can be copied with another lowest score, and computes less with a higher one."""

    def with_threshold(self, score_threshold: float) -> Decode: ...


@runtime_checkable
class SelectsDense(Protocol):
    """A decoder with a second step alone, for exported programs that contain the first step."""

    def select(self, dense: DenseDetections) -> list[Detections]: ...


@runtime_checkable
class TakesUint8(Protocol):
    """A detector that may take uint8 images instead of values in [0, 1]; only exported detectors do."""

    takes_uint8: bool


def lowest_score(decode: Decode) -> float:
    """The lowest score that a decoder keeps; 0 if it has no such attribute."""
    return decode.score_threshold if isinstance(decode, HasThreshold) else 0.0


def with_threshold(decode: Decode, score_threshold: float) -> Decode:
    """The decoder with another lowest score if it supports that, else the same decoder."""
    return decode.with_threshold(score_threshold) if isinstance(decode, SetsThreshold) else decode
