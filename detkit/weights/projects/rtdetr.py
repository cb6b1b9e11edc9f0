"""Weights of RT-DETR and RT-DETRv2, from the authors' release and from transformers."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from detkit.models import Preprocess
from detkit.weights.class_rows import count_class_rows
from detkit.weights.projects.coco_names import COCO_NAMES
from detkit.weights.projects.rename import rename
from detkit.weights.source_weights import SourceWeights

# Names in transformers to the authors' names. "mlp.", "aifi" and "o_proj" occur in a model, the others in a file.
PORT_RULES = (
    (r"^model\.backbone\.model\.embedder\.embedder\.0\.", "backbone.conv1.conv1_1."),
    (r"^model\.backbone\.model\.embedder\.embedder\.1\.", "backbone.conv1.conv1_2."),
    (r"^model\.backbone\.model\.embedder\.embedder\.2\.", "backbone.conv1.conv1_3."),
    (r"^model\.backbone\.model\.encoder\.stages\.(\d)\.layers\.", r"backbone.res_layers.\1.blocks."),
    (r"\.layer\.0\.", ".branch2a."),
    (r"\.layer\.1\.", ".branch2b."),
    (r"\.layer\.2\.", ".branch2c."),
    (r"\.shortcut\.1\.", ".short.conv."),
    (r"\.shortcut\.", ".short."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"^model\.encoder_input_proj\.", "encoder.input_proj."),
    (r"^model\.encoder\.(aifi|encoder)\.", "encoder.encoder."),
    (r"^model\.encoder\.", "encoder."),
    (r"^model\.decoder_input_proj\.", "decoder.input_proj."),
    (r"^model\.decoder\.layers\.", "decoder.decoder.layers."),
    (r"^(model\.decoder\.)?class_embed\.", "decoder.dec_score_head."),
    (r"^(model\.decoder\.)?bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^model\.(decoder\.)?", "decoder."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.(mlp\.)?fc([12])\.", r".linear\2."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"^decoder\.(.*)\.final_layer_norm\.", r"decoder.\1.norm3."),
    (r"^encoder\.(.*)\.final_layer_norm\.", r"encoder.\1.norm2."),
)
# The authors' names, of both versions, to detkit's.
RULES = (
    (r"^backbone\.conv1\.conv1_1\.conv\.", "backbone.conv1.0."),
    (r"^backbone\.conv1\.conv1_1\.norm\.", "backbone.conv1.1."),
    (r"^backbone\.conv1\.conv1_2\.conv\.", "backbone.conv1.3."),
    (r"^backbone\.conv1\.conv1_2\.norm\.", "backbone.conv1.4."),
    (r"^backbone\.conv1\.conv1_3\.conv\.", "backbone.conv1.6."),
    (r"^backbone\.conv1\.conv1_3\.norm\.", "backbone.bn1."),
    (r"^backbone\.res_layers\.0\.blocks\.", "backbone.layer1."),
    (r"^backbone\.res_layers\.1\.blocks\.", "backbone.layer2."),
    (r"^backbone\.res_layers\.2\.blocks\.", "backbone.layer3."),
    (r"^backbone\.res_layers\.3\.blocks\.", "backbone.layer4."),
    (r"\.branch2a\.conv\.", ".conv1."),
    (r"\.branch2a\.norm\.", ".bn1."),
    (r"\.branch2b\.conv\.", ".conv2."),
    (r"\.branch2b\.norm\.", ".bn2."),
    (r"\.branch2c\.conv\.", ".conv3."),
    (r"\.branch2c\.norm\.", ".bn3."),
    (r"\.short\.(conv\.)?norm\.", ".downsample.2."),
    (r"\.short\.(conv\.)?conv\.", ".downsample.1."),
    (r"^encoder\.input_proj\.", "neck.project."),
    (r"^decoder\.input_proj\.", "head.project."),
    (r"\.project\.(\d)\.0\.", r".project.\1.conv."),
    (r"\.project\.(\d)\.1\.", r".project.\1.norm."),
    (r"^encoder\.encoder\.0\.layers\.(\d+)\.self_attn\.", r"neck.attention.\1.attention."),
    (r"^encoder\.encoder\.0\.layers\.(\d+)\.norm1\.", r"neck.attention.\1.attention_norm."),
    (r"^encoder\.encoder\.0\.layers\.(\d+)\.norm2\.", r"neck.attention.\1.feedforward_norm."),
    (r"^encoder\.encoder\.0\.layers\.", "neck.attention."),
    (r"^encoder\.lateral_convs\.0\.", "neck.fusion.laterals.1."),
    (r"^encoder\.lateral_convs\.1\.", "neck.fusion.laterals.0."),
    (r"^encoder\.fpn_blocks\.0\.", "neck.fusion.top_down.1."),
    (r"^encoder\.fpn_blocks\.1\.", "neck.fusion.top_down.0."),
    (r"^encoder\.downsample_convs\.", "neck.fusion.downs."),
    (r"^encoder\.pan_blocks\.", "neck.fusion.bottom_up."),
    (r"^(neck\.fusion\.\w+\.\d)\.conv1\.", r"\1.main."),
    (r"^(neck\.fusion\.\w+\.\d)\.conv2\.", r"\1.bypass."),
    (r"^(neck\.fusion\.\w+\.\d)\.conv3\.", r"\1.join."),
    (r"\.bottlenecks\.(\d+)\.conv1\.", r".blocks.\1.conv3."),
    (r"\.bottlenecks\.(\d+)\.conv2\.", r".blocks.\1.conv1."),
    (r"^decoder\.decoder\.layers\.", "head.layers."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.cross_attn\.sampling_offsets\.", ".cross_attention.offsets."),
    (r"\.cross_attn\.attention_weights\.", ".cross_attention.weights."),
    (r"\.cross_attn\.value_proj\.", ".cross_attention.values."),
    (r"\.cross_attn\.output_proj\.", ".cross_attention.output."),
    (r"\.norm1\.", ".self_attention_norm."),
    (r"\.norm2\.", ".cross_attention_norm."),
    (r"\.norm3\.", ".feedforward_norm."),
    (r"\.linear1\.", ".feedforward.0."),
    (r"\.linear2\.", ".feedforward.2."),
    (r"^decoder\.denoising_class_embed\.", "head.noisy_classes."),
    (r"^decoder\.enc_output\.(0|proj)\.", "head.cell_features.0."),
    (r"^decoder\.enc_output\.(1|norm)\.", "head.cell_features.1."),
    (r"^decoder\.enc_score_head\.", "head.cell_logits."),
    (r"^decoder\.enc_bbox_head\.", "head.cell_boxes."),
    (r"^decoder\.query_pos_head\.", "head.positions."),
    (r"^decoder\.dec_score_head\.", "head.class_logits."),
    (r"^decoder\.dec_bbox_head\.", "head.box_offsets."),
    (r"^(head\.(cell_boxes|positions|box_offsets\.\d+))\.layers\.0\.", r"\1.0."),
    (r"^(head\.(cell_boxes|positions|box_offsets\.\d+))\.layers\.1\.", r"\1.2."),
    (r"^(head\.(cell_boxes|positions|box_offsets\.\d+))\.layers\.2\.", r"\1.4."),
)
# Tensors computed from the image size or the number of points, which are not learnt.
COMPUTED = re.compile(r"^decoder\.(anchors|valid_mask)$|\.n(um)?_points_scale$|^encoder\.pos_embed")
QUERY_PROJECTION = re.compile(r"\.q_proj\.(weight|bias)$")
# Names that occur only in: the authors' detectors, detectors of transformers, the authors' separate backbones.
UNIQUE_NAME, PORT_UNIQUE_NAME = "decoder.enc_score_head.weight", "model.enc_score_head.weight"
BACKBONE_UNIQUE_NAME = "res_layers.0.blocks.0.branch2a.conv.weight"


def detkit_name(official_name: str) -> str:
    """The name in a detkit detector of a tensor of the authors' release."""
    return rename(official_name, RULES)


def is_rtdetr(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the authors' detectors or backbones, or of transformers."""
    return any(name in state_dict for name in (UNIQUE_NAME, PORT_UNIQUE_NAME, BACKBONE_UNIQUE_NAME))


def convert_rtdetr(state_dict: Mapping[str, Tensor], source: str) -> SourceWeights:
    """Weights of RT-DETR or RT-DETRv2 under detkit's names.

    They were trained on RGB images in [0, 1] without mean and standard deviation. This is unknown for a backbone.

    Args:
        state_dict: of the authors' code, its backbone, or transformers.
        source: the file, for messages.
    """
    if BACKBONE_UNIQUE_NAME in state_dict:
        return SourceWeights(source, {detkit_name(f"backbone.{name}"): tensor for name, tensor in state_dict.items()})
    if PORT_UNIQUE_NAME in state_dict:
        state_dict = _stacked({rename(name, PORT_RULES): tensor for name, tensor in state_dict.items()})
    learnt = {name: tensor for name, tensor in state_dict.items() if not COMPUTED.search(name)}
    weights = {detkit_name(name): tensor for name, tensor in learnt.items()}
    class_names = COCO_NAMES if count_class_rows(weights) == len(COCO_NAMES) else None
    return SourceWeights(source, weights, class_names, Preprocess())


def _stacked(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the projections to queries, keys and values to one tensor, as in the authors' release."""
    stacked = dict(state_dict)
    for name in state_dict:
        match = QUERY_PROJECTION.search(name)
        parts = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        if match is not None and all(part in stacked for part in parts):
            together = torch.cat([stacked.pop(part) for part in parts])
            stacked[f"{name[: match.start()]}.in_proj_{match[1]}"] = together
    return stacked
