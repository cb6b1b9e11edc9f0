"""Weights of the official YOLOX release: where each tensor belongs in detkit."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from detkit.errors import CheckpointError
from detkit.models import Preprocess
from detkit.weights.coco_names import COCO_NAMES
from detkit.weights.fit import ClassRows, LoadReport, count_rows, fit, pair_classes
from detkit.weights.read import read_state_dict

CSP = r"(dark[234]\.1|dark5\.2|C3_[pn][34])"
# Applied one after the other to every name.
RULES = (
    (rf"{CSP}\.conv1\.", r"\1.main."),
    (rf"{CSP}\.conv2\.", r"\1.bypass."),
    (rf"{CSP}\.conv3\.", r"\1.join."),
    (rf"{CSP}\.m\.", r"\1.bottlenecks."),
    (r"dark5\.1\.conv1\.", "dark5.1.reduce."),
    (r"dark5\.1\.conv2\.", "dark5.1.expand."),
    (r"\.dconv\.", ".0."),
    (r"\.pconv\.", ".1."),
    (r"\.bn\.", ".norm."),
    (r"^backbone\.backbone\.", "backbone."),
    (r"^backbone\.dark2\.", "backbone.stages.0."),
    (r"^backbone\.dark3\.", "backbone.stages.1."),
    (r"^backbone\.dark4\.", "backbone.stages.2."),
    (r"^backbone\.dark5\.", "backbone.stages.3."),
    (r"^backbone\.reduce_conv1\.", "neck.laterals.0."),
    (r"^backbone\.lateral_conv0\.", "neck.laterals.1."),
    (r"^backbone\.C3_p3\.", "neck.top_down.0."),
    (r"^backbone\.C3_p4\.", "neck.top_down.1."),
    (r"^backbone\.bu_conv2\.", "neck.downs.0."),
    (r"^backbone\.bu_conv1\.", "neck.downs.1."),
    (r"^backbone\.C3_n3\.", "neck.bottom_up.0."),
    (r"^backbone\.C3_n4\.", "neck.bottom_up.1."),
    (r"^head\.cls_convs\.", "head.class_branches."),
    (r"^head\.reg_convs\.", "head.box_branches."),
    (r"^head\.cls_preds\.", "head.class_logits."),
    (r"^head\.reg_preds\.", "head.box_parameters."),
    (r"^head\.obj_preds\.", "head.objectness."),
)
CLASS_TENSORS = "head.class_logits."
HALLMARK = "head.obj_preds.0.weight"  # a name that no other layout has


def detkit_name(official_name: str) -> str:
    """The name of a YOLOX tensor in a detkit detector."""
    for pattern, replacement in RULES:
        official_name = re.sub(pattern, replacement, official_name)
    return official_name


def is_yolox(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether these are the official project's names."""
    return HALLMARK in state_dict


def load_yolox(
    weights: str | Path | Mapping[str, Tensor],
    detector: nn.Module,
    class_names: Sequence[str] | None = None,
    source: str = "state_dict",
) -> LoadReport:
    """Load weights of YOLOX 0.1.1 or later into a detector of a ``yolox_*`` recipe.

    Files of the first release (0.0.1, "legacy") have the same names, but another normalisation.

    Args:
        weights: the file, or its state_dict.
        detector: changed in place, unless an error is raised.
        class_names: of the detector. With them the rows of 80 published classes are kept by name;
            without, all rows if there are as many classes, or none.
        source: where a state_dict comes from, for messages.

    Raises:
        CheckpointError: if the file cannot be read or is not YOLOX's, if the detector feeds its
            network other pixel values than these weights were trained on, or has another backbone.
    """
    if isinstance(weights, str | Path):
        weights, source = read_state_dict(weights), str(weights)
    if not is_yolox(weights):
        raise CheckpointError(f"{source} holds no YOLOX weights: it has no {HALLMARK}")
    _require_preprocess(detector, source)
    weights = {detkit_name(name): tensor for name, tensor in weights.items()}
    num_own, num_file = (count_rows(names, CLASS_TENSORS) for names in (detector.state_dict(), weights))
    file_names = COCO_NAMES if num_file == len(COCO_NAMES) else None
    pairs = pair_classes(num_own, class_names, num_file, file_names)
    return fit(weights, detector, ClassRows(CLASS_TENSORS, pairs), source)


def _require_preprocess(detector: nn.Module, source: str) -> None:
    """With other pixel values nothing would fail, and nothing be found either."""
    given = getattr(detector, "preprocess", None)
    fits = (
        isinstance(given, Preprocess)
        and (given.channel_order, given.scale) == ("bgr", 255.0)
        and bool((given.mean == 0).all() and (given.std == 1).all())
    )
    if not fits:
        raise CheckpointError(
            f"{source} was trained on BGR images in 0..255, which this detector does not make of its images; take a "
            "yolox_* recipe or model.preprocess={_target_: detkit.models.Preprocess, channel_order: bgr, scale: 255.0}"
        )
