"""Load the weights that match a model, and report the others."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from detkit.errors import CheckpointError, did_you_mean
from detkit.models import Preprocess
from detkit.weights.class_rows import RowPairs, count_class_rows, is_class_layer, pair_classes, with_rows
from detkit.weights.load_report import LoadReport
from detkit.weights.source_weights import SourceWeights

COUNTER = "num_batches_tracked"  # of batch norm; old files and frozen norms lack it
PREPROCESS = "preprocess."


@runtime_checkable
class HasAdapters(Protocol):
    """A backbone with additional layers around a published network."""

    adapters: Sequence[str]


def fit(
    source_weights: SourceWeights,
    model: nn.Module,
    class_names: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
) -> LoadReport:
    """Load the weights with equal names and shapes, in the precision of the model.

    Args:
        source_weights: weights to load.
        model: changed in place, unless an error is raised.
        class_names: class names of the model, in the order of its labels.
        leave_out: patterns of names that are not loaded.

    Raises:
        CheckpointError: if a tensor of the backbone is missing, no tensor matches, or a pattern matches nothing.
    """
    own = model.state_dict()
    _require_matches(leave_out, [*source_weights.weights, *own], source_weights.source)
    left_out = tuple(name for name in own if _matches(name, leave_out))
    weights = {
        name: t for name, t in source_weights.weights.items() if name not in left_out and not _matches(name, leave_out)
    }
    num_own, num_file = count_class_rows(own), count_class_rows(weights)
    pairs = pair_classes(num_own, class_names, num_file, source_weights.class_names)
    fitted = {name: _fitted(name, ours, weights[name], pairs) for name, ours in own.items() if name in weights}
    fitting = {name: tensor for name, tensor in fitted.items() if tensor is not None}
    images = _preprocess(source_weights, fitting, model)
    report = LoadReport(
        source_weights.source,
        names=tuple(name for name in own if _is_counted(name)),
        loaded=tuple(name for name in fitting if _is_counted(name) and (pairs or not is_class_layer(name))),
        missing=tuple(name for name in own if name not in weights and name not in left_out and _is_counted(name)),
        unexpected=tuple(name for name in weights if name not in own and _is_counted(name)),
        other_shape=tuple(
            f"{name} {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
            for name, tensor in fitted.items()
            if tensor is None
        ),
        left_out=left_out,
        num_classes=num_own if any(map(is_class_layer, fitting)) else 0,
        kept_classes=tuple(row for row, _ in pairs),
        images=images,
    )
    _require_backbone(report, fitting, dict(model.named_children()).get("backbone"))
    model.load_state_dict(fitting, strict=False)
    return report


def _preprocess(source_weights: SourceWeights, fitting: dict[str, Tensor], model: nn.Module) -> str:
    """Add the preprocessing that the weights expect to them, and describe it."""
    own = dict(model.named_children()).get("preprocess")
    if not isinstance(own, Preprocess):
        return ""
    if f"{PREPROCESS}mean" in fitting:
        own_values = {name.removeprefix(PREPROCESS): t for name, t in fitting.items() if name.startswith(PREPROCESS)}
        of_file = Preprocess()
        of_file.load_state_dict(own_values)
        return f"{of_file.extra_repr()} (with the weights)"
    if source_weights.preprocess is None:
        return f"{own.extra_repr()} (of the recipe; unknown for the file)"
    if not source_weights.is_certain and not own.is_plain:
        return f"{own.extra_repr()} (of the recipe)"
    fitting |= {f"{PREPROCESS}{name}": tensor for name, tensor in source_weights.preprocess.state_dict().items()}
    why = (
        "as these weights were trained"
        if source_weights.is_certain
        else "as the published weights of this backbone; check it"
    )
    return f"{source_weights.preprocess.extra_repr()} ({why})"


def _require_backbone(report: LoadReport, fitting: Mapping[str, Tensor], backbone: nn.Module | None) -> None:
    adapters = backbone.adapters if isinstance(backbone, HasAdapters) else ()  # may start untrained
    own = tuple(f"backbone.{adapter}." for adapter in adapters)
    needed = [name for name in report.names if name.startswith("backbone.") and not name.startswith(own)]
    absent = [name for name in needed if name not in fitting and name not in report.left_out]
    if absent:
        raise CheckpointError(
            f"weights of another network: {len(absent)} tensors of the backbone are missing; use the recipe of these "
            f"weights, or set weights_except to tensors that may start untrained, e.g. [{absent[0]}]\n{report}"
        )
    if not report.loaded:
        raise CheckpointError(f"weights of another network: no tensor matches\n{report}")


def _require_matches(patterns: Sequence[str], names: Sequence[str], source: str) -> None:
    for pattern in patterns:
        if not any(_matches(name, [pattern]) for name in names):
            hint = did_you_mean(pattern, names, 3, likeness=0.4, list_all=False)
            raise CheckpointError(f"weights_except: {pattern!r} matches nothing in {source} or the model{hint}")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_counted(name: str) -> bool:
    return not name.endswith(COUNTER) and not name.startswith(PREPROCESS)


def _fitted(name: str, own: Tensor, source: Tensor, pairs: RowPairs) -> Tensor | None:
    if is_class_layer(name):
        return with_rows(name, own, source, pairs)
    return source if source.shape == own.shape else None
