"""Non-maximum suppression for the end of an ONNX graph."""

import onnx
from onnx import compose, parser

DENSE_NAMES = ("all_boxes", "all_scores")
OPSET_TEXT = "<ir_version: {ir}, opset_import: ['' : {opset}]>"
# B images, A places, C classes, S detections left in the whole batch, K = {most} detections of an image.
TAIL = """
suppression (float[B,A,4] all_boxes, float[B,A,C] all_scores)
    => (float[B,{most},4] boxes, float[B,{most}] scores, int64[B,{most}] labels, int64[B] counts)
<int64[1] most = {{{most}}}, float[1] iou = {{{iou}}}, float[1] lowest = {{{lowest}}}, int64[3] swap = {{0, 2, 1}},
 int64[1] first = {{0}}, int64[1] second = {{1}}, int64[1] third = {{2}}, int64[2] padding = {{{most}, 3}},
 float none = {{-1}}, int64 zero = {{0}}, int64 one = {{1}}, int64[1] three = {{3}}>
{{
    by_class = Transpose <perm = [0, 2, 1]> (all_scores)
    survivors = NonMaxSuppression (all_boxes, by_class, most, iou, lowest)
    places = Gather <axis = 1> (survivors, swap)
    survivor_scores = GatherND (all_scores, places)
    survivor_images = Gather <axis = 1> (survivors, zero)

    shape = Shape (all_boxes)
    num_images = Gather (shape, zero)
    images = Range (zero, num_images, one)
    rows = Unsqueeze (images, second)
    is_of_image = Equal (rows, survivor_images)
    of_image = Where (is_of_image, survivor_scores, none)
    num_rows = Unsqueeze (num_images, first)
    blank_shape = Concat <axis = 0> (num_rows, most)
    blank = Expand (none, blank_shape)
    with_padding = Concat <axis = 1> (of_image, blank)
    best_scores, best = TopK <axis = 1, largest = 1, sorted = 1> (with_padding, most)

    no_rows = Expand (zero, padding)
    padded_places = Concat <axis = 0> (survivors, no_rows)
    chosen = Gather <axis = 0> (padded_places, best)
    labels_3d = Slice (chosen, second, third, third)
    labels = Squeeze (labels_3d, third)
    box_rows = Slice (chosen, third, three, third)
    boxes = GatherND <batch_dims = 1> (all_boxes, box_rows)
    scores = Relu (best_scores)
    is_found = Greater (best_scores, none)
    as_numbers = Cast <to = 7> (is_found)
    counts = ReduceSum <keepdims = 0> (as_numbers, second)
}}
"""


def with_suppression(
    dense: onnx.ModelProto, score_threshold: float, iou_threshold: float, max_detections: int
) -> onnx.ModelProto:
    """Append suppression to a graph, so that its outputs are those of ``outputs="detections"``.

    Args:
        dense: with the outputs ``DENSE_NAMES``: boxes (B, A, 4) and scores (B, A, C).
        score_threshold: detections must score higher.
        iou_threshold: detections of one class that overlap more are suppressed.
        max_detections: K.
    """
    [opset] = [entry.version for entry in dense.opset_import if not entry.domain]
    head = OPSET_TEXT.format(ir=dense.ir_version, opset=opset).replace("'", '"')
    tail = parser.parse_model(head + TAIL.format(most=max_detections, iou=iou_threshold, lowest=score_threshold))
    tail = compose.add_prefix(tail, "suppression_", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(dense, tail, io_map=[(name, name) for name in DENSE_NAMES])
