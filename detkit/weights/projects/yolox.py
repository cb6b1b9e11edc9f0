"""Weights of the official YOLOX release, under detkit's names."""

from collections.abc import Mapping

from torch import Tensor

from detkit.models import Preprocess
from detkit.weights.class_rows import count_class_rows
from detkit.weights.projects.coco_names import COCO_NAMES
from detkit.weights.projects.rename import rename
from detkit.weights.source_weights import SourceWeights

CSP = r"(dark[234]\.1|dark5\.2|C3_[pn][34])"
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
UNIQUE_NAME = "head.obj_preds.0.weight"  # only in files of YOLOX


def detkit_name(official_name: str) -> str:
    """The name of a YOLOX tensor in a detkit detector."""
    return rename(official_name, RULES)


def is_yolox(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether these are the official project's names."""
    return UNIQUE_NAME in state_dict


def convert_yolox(state_dict: Mapping[str, Tensor], source: str) -> SourceWeights:
    """Weights of YOLOX 0.1.1 or later under detkit's names.

    They were trained on BGR images in [0, 255]. Files of the first release (0.0.1, "legacy") have the same names but
    another normalisation.

    Args:
        state_dict: of the official project.
        source: the file, for messages.
    """
    weights = {detkit_name(name): tensor for name, tensor in state_dict.items()}
    class_names = COCO_NAMES if count_class_rows(weights) == len(COCO_NAMES) else None
    return SourceWeights(source, weights, class_names, Preprocess("bgr", 255.0))
