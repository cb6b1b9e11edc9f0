"""What inference asks of a detector's decoder, and what it uses where a decoder offers it."""

from typing import Any, Protocol, TypeAlias, runtime_checkable

from detkit.types import DenseDetections, Detections

Predictions: TypeAlias = Any  # what a head gives and its decoder takes: of a user's own pair it can be anything


class Decode(Protocol):
    """Raw predictions to the detections of each image, in pixels of the network input."""

    def __call__(self, predictions: Predictions, /) -> list[Detections]: ...


@runtime_checkable
class HasThreshold(Protocol):
    """A decoder that says the lowest score of its detections."""

    score_threshold: float


@runtime_checkable
class SetsThreshold(Protocol):
    """A decoder that can have another lowest score, and then computes less."""

    def with_threshold(self, score_threshold: float) -> Decode: ...


@runtime_checkable
class SelectsDense(Protocol):
    """A decoder in two steps, of which an exported program has done the first."""

    def select(self, dense: DenseDetections) -> list[Detections]: ...


@runtime_checkable
class TakesUint8(Protocol):
    """A detector that says whether its images are uint8 in place of values in [0, 1]; only exported ones do."""

    takes_uint8: bool


def lowest_score(decode: Decode) -> float:
    """The lowest score that a decoder keeps; 0 if it does not say."""
    return decode.score_threshold if isinstance(decode, HasThreshold) else 0.0


def with_threshold(decode: Decode, score_threshold: float) -> Decode:
    """The decoder with another lowest score, if it can have one; else itself."""
    return decode.with_threshold(score_threshold) if isinstance(decode, SetsThreshold) else decode
