"""RT-DETR weights of the authors and of transformers: every tensor at its place, every misfit told."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detkit.errors import CheckpointError
from detkit.models import Detector, Preprocess
from detkit.weights import load_weights
from detkit.weights.projects.coco_names import COCO_NAMES
from detkit.weights.projects.rtdetr import convert_rtdetr, detkit_name
from tests.helpers.rtdetr_files import SIZES, detector_of, random_file, shapes_of

PARAMETERS = {"r18": 20_184_464, "r34": 31_441_668, "r50": 42_891_372, "r101": 76_556_268}
PUBLISHED = [
    *(f"rtdetr_{size}_{layout}" for size in SIZES for layout in ("official", "hf")),
    *(f"rtdetrv2_{size}_{layout}" for size in ("r18", "r50") for layout in ("official", "hf")),
    *("rtdetr_r18_hf_file", "rtdetr_r50_hf_file", "rtdetrv2_r18_hf_file"),
]
COUNTED = 464  # tensors of r18 without the counters of batch norm
CLASS_LAYERS = 9  # of r18: weight and bias for three layers and the cells, and the classes of noisy queries


@pytest.fixture
def weights(shared_reference: Path) -> dict[str, Tensor]:
    return dict(random_file(shared_reference, "rtdetr_r18_official"))


@pytest.fixture(scope="module")
def untrained() -> Detector:
    return detector_of("rtdetr_r18")


@pytest.fixture
def detector(untrained: Detector) -> Detector:
    return copy.deepcopy(untrained)


@pytest.mark.parametrize("file", PUBLISHED)
def test_recipe_has_the_published_tensors(shared_reference: Path, file: str) -> None:
    with torch.device("meta"):
        detector = detector_of("_".join(file.split("_")[:2]))
        state_dict = {name: torch.empty(shape) for name, shape in shapes_of(shared_reference, file).items()}
    ours = {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items() if "preprocess" not in name}
    assert ours == {name: tuple(tensor.shape) for name, tensor in convert_rtdetr(state_dict, file).weights.items()}
    assert sum(parameter.numel() for parameter in detector.parameters()) == PARAMETERS[file.split("_")[1]]


@pytest.mark.parametrize(
    ("official", "port"),
    [
        ("backbone.conv1.conv1_3.norm.bias", "backbone.model.embedder.embedder.2.normalization.bias"),
        (
            "backbone.res_layers.1.blocks.0.branch2b.norm.bias",
            "backbone.model.encoder.stages.1.layers.0.layer.1.normalization.bias",
        ),
        ("encoder.encoder.0.layers.0.norm1.bias", "encoder.aifi.0.layers.0.self_attn_layer_norm.bias"),
        ("encoder.encoder.0.layers.0.norm2.bias", "encoder.aifi.0.layers.0.final_layer_norm.bias"),
        ("encoder.encoder.0.layers.0.linear2.bias", "encoder.aifi.0.layers.0.mlp.fc2.bias"),
        ("decoder.decoder.layers.1.norm1.bias", "decoder.layers.1.self_attn_layer_norm.bias"),
        ("decoder.decoder.layers.1.norm2.bias", "decoder.layers.1.encoder_attn_layer_norm.bias"),
        ("decoder.decoder.layers.1.norm3.bias", "decoder.layers.1.final_layer_norm.bias"),
        ("decoder.decoder.layers.1.cross_attn.value_proj.bias", "decoder.layers.1.encoder_attn.value_proj.bias"),
        ("decoder.decoder.layers.1.linear1.bias", "decoder.layers.1.fc1.bias"),
        ("decoder.dec_bbox_head.1.layers.2.bias", "decoder.bbox_embed.1.layers.2.bias"),
        ("decoder.dec_score_head.1.bias", "decoder.class_embed.1.bias"),
        ("decoder.enc_output.1.bias", "enc_output.1.bias"),
        ("decoder.query_pos_head.layers.1.bias", "decoder.query_pos_head.layers.1.bias"),
    ],
)
def test_both_layouts_mean_the_same_tensor(official: str, port: str) -> None:
    """Where several of one shape lie side by side. What each does, the comparison of outputs shows."""
    hallmark = {"model.enc_score_head.weight": torch.zeros(80, 256)}
    assert detkit_name(official) in convert_rtdetr({**hallmark, f"model.{port}": torch.zeros(1)}, "").weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_tensor_is_loaded(weights: dict[str, Tensor], detector: Detector, dtype: torch.dtype) -> None:
    report = load_weights(weights, detector.to(dtype))
    assert str(report) == (
        f"state_dict: loaded {COUNTED} of {COUNTED} tensors\n  images: RGB, 0..1 (as these weights were trained)"
    )
    state = detector.state_dict()
    for name, tensor in weights.items():
        assert torch.equal(state[detkit_name(name)], tensor.to(state[detkit_name(name)].dtype)), name


def test_projections_of_the_port_become_one(shared_reference: Path, detector: Detector) -> None:
    weights = random_file(shared_reference, "rtdetr_r18_hf_file")
    load_weights(weights, detector)
    for ours, theirs in (
        ("neck.attention.0.attention", "encoder.encoder.0.layers.0.self_attn"),
        ("head.layers.2.self_attention", "decoder.layers.2.self_attn"),
    ):
        for kind in ("weight", "bias"):
            queries, keys, values = detector.state_dict()[f"{ours}.in_proj_{kind}"].chunk(3)
            assert torch.equal(queries, weights[f"model.{theirs}.q_proj.{kind}"])
            assert torch.equal(keys, weights[f"model.{theirs}.k_proj.{kind}"])
            assert torch.equal(values, weights[f"model.{theirs}.v_proj.{kind}"])


@pytest.mark.parametrize("name", ["rtdetr_r18", "rtdetrv2_r50"])
@pytest.mark.parametrize("frozen_norm", ["true", "false"])
def test_norms_that_learn_and_frozen_ones_take_each_other_s(
    shared_reference: Path, name: str, frozen_norm: str
) -> None:
    """They differ in the counter, which those that learn keep if a file has none."""
    weights = random_file(shared_reference, f"{name}_official")
    detector = detector_of(name, f"model.backbone.frozen_norm={frozen_norm}")
    report = load_weights(weights, detector)
    assert report.loaded == report.names and not report.unexpected
    assert torch.equal(
        detector.get_buffer("backbone.bn1.running_var"), weights["backbone.conv1.conv1_3.norm.running_var"]
    )


def test_class_rows_are_left_out_when_classes_differ(weights: dict[str, Tensor]) -> None:
    detector = detector_of("rtdetr_r18", "model.head.num_classes=3")
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    report = load_weights(weights, detector)
    assert f"loaded {COUNTED - CLASS_LAYERS} of {COUNTED} tensors" in str(report)
    assert "class rows: 0 of 3 from the file, the others start untrained" in str(report)
    assert not (report.missing or report.unexpected or report.other_shape)
    same = {name for name, tensor in detector.state_dict().items() if torch.equal(tensor, before[name])}
    assert {n for n in before if any(layer in n for layer in ("class_logits", "cell_logits", "noisy_classes"))} <= same
    assert len(same) == CLASS_LAYERS + 4  # and the preprocessing, which was as it should be


def test_class_rows_are_kept_by_name(weights: dict[str, Tensor]) -> None:
    """In all three kinds of layers; the row of padding comes along, a new class keeps its own start."""
    detector = detector_of("rtdetr_r18", "model.head.num_classes=3")
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    report = load_weights(weights, detector, ["Traffic_Light", "cell", "dog"])
    assert report.kept_classes == (0, 2)
    assert len(report.loaded) == len(report.names)
    assert "class rows: 2 of 3 from the file" in str(report)
    rows = [COCO_NAMES.index("traffic light"), COCO_NAMES.index("dog")]
    for ours, theirs in (
        ("head.class_logits.1.weight", "decoder.dec_score_head.1.weight"),
        ("head.cell_logits.bias", "decoder.enc_score_head.bias"),
        ("head.noisy_classes.weight", "decoder.denoising_class_embed.weight"),
    ):
        assert torch.equal(detector.state_dict()[ours][[0, 2]], weights[theirs][rows])
        assert torch.equal(detector.state_dict()[ours][1], before[ours][1])
    embedding = detector.state_dict()["head.noisy_classes.weight"]
    assert torch.equal(embedding[3], weights["decoder.denoising_class_embed.weight"][80])


@torch.no_grad()
def test_classes_in_another_order_give_the_same_scores_in_that_order(weights: dict[str, Tensor]) -> None:
    detector, other = (detector_of("rtdetr_r18", "model.head.num_queries=9").eval() for _ in range(2))
    load_weights(weights, detector)
    load_weights(weights, other, COCO_NAMES[::-1])
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(detector(image).layers[-1].logits, other(image).layers[-1].logits.flip(-1))


def test_what_does_not_fit_is_told(weights: dict[str, Tensor]) -> None:
    """Here also a model that is without noisy queries, and has a layer less than the file."""
    detector = detector_of("rtdetr_r18", "model.head.num_layers=2", "model.head.num_denoising=0")
    del weights["encoder.pan_blocks.1.conv3.conv.weight"]
    weights["decoder.enc_bbox_head.layers.2.bias"] = torch.zeros(5)
    report = load_weights(weights, detector)
    assert report.missing == ("neck.fusion.bottom_up.1.join.conv.weight",)
    assert report.other_shape == ("head.cell_boxes.4.bias (5,) in the file, (4,) in the model",)
    parts = {name.rsplit(".", 1)[0] for name in report.unexpected}
    assert {"head.noisy_classes", "head.class_logits.2", "head.box_offsets.2.4"} <= parts
    assert all(
        part.startswith(("head.noisy", "head.layers.2", "head.class_logits.2", "head.box_off")) for part in parts
    )
    assert "\n  unexpected: head." in str(report)


def test_another_size_is_refused_and_changes_nothing(shared_reference: Path, detector: Detector) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"(?s)weights of another network: .* tensors of the backbone"):
        load_weights(random_file(shared_reference, "rtdetr_r50_official"), detector)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


def test_computed_tensors_are_not_unexpected(weights: dict[str, Tensor], detector: Detector) -> None:
    weights["decoder.anchors"], weights["decoder.valid_mask"] = torch.zeros(1, 8400, 4), torch.zeros(1, 8400, 1)
    weights["encoder.pos_embed2"] = torch.zeros(1, 400, 256)
    weights["decoder.decoder.layers.0.cross_attn.num_points_scale"] = torch.zeros(12)
    assert load_weights(weights, detector).unexpected == ()


def test_heads_may_lie_at_the_top_twice_or_alone(shared_reference: Path) -> None:
    """In memory the port of the second version has them at two places; a file has them at either."""
    weights = random_file(shared_reference, "rtdetrv2_r18_hf")
    tops = ("class_embed.", "bbox_embed.")
    at_top = {name: tensor for name, tensor in weights.items() if name.startswith(tops)}
    inside = {f"model.decoder.{name}": tensor for name, tensor in at_top.items()}
    others = {name: tensor for name, tensor in weights.items() if name not in {*at_top, *inside}}
    expected = convert_rtdetr(others | inside, "").weights
    for given in (others | at_top, others | at_top | inside):
        loaded = convert_rtdetr(given, "").weights
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_averaged_weights_of_a_file_go_first(weights: dict[str, Tensor], detector: Detector, tmp_path: Path) -> None:
    raw = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    path = tmp_path / "rtdetr_r18vd.pth"
    torch.save({"model": raw, "ema": {"module": weights, "updates": 9}, "last_epoch": 71}, path)
    report = load_weights(path, detector)
    assert report.loaded == report.names
    assert torch.equal(detector.state_dict()["head.cell_logits.weight"], weights["decoder.enc_score_head.weight"])


def test_backbone_alone(weights: dict[str, Tensor], detector: Detector) -> None:
    """As the authors start their training; what its images were like it does not say."""
    prefix = "backbone."
    report = load_weights({n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}, detector)
    assert all(name.startswith(prefix) for name in report.loaded)
    assert not (report.unexpected or report.other_shape)
    assert "neck 0 of" in str(report)
    assert "images: RGB, 0..1 (of the recipe; unknown for the file)" in str(report)
    expected = weights["backbone.res_layers.3.blocks.1.branch2b.norm.bias"]
    assert torch.equal(detector.state_dict()["backbone.layer4.1.bn2.bias"], expected)


@pytest.mark.parametrize("given", [Preprocess("bgr", 255.0), Preprocess(mean=(1.0, 1.0, 1.0))], ids=str)
def test_pixel_values_come_with_the_weights(weights: dict[str, Tensor], detector: Detector, given: Preprocess) -> None:
    """Whatever the recipe says of them: with others nothing would fail, and nothing be found either."""
    detector.preprocess = given
    assert "images: RGB, 0..1 (as these weights were trained)" in str(load_weights(weights, detector))
    image = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    assert torch.equal(detector.preprocess(image), image)


class TestFolder:
    """A folder as transformers saves it."""

    @pytest.fixture
    def folder(self, shared_reference: Path, tmp_path: Path) -> Path:
        save_file(dict(random_file(shared_reference, "rtdetr_r18_hf_file")), tmp_path / "model.safetensors")
        return tmp_path

    def load(self, folder: Path, config: Any, class_names: tuple[str, ...], detector: Detector) -> tuple[int, ...]:
        (folder / "config.json").write_text(json.dumps(config))
        report = load_weights(folder, detector, class_names)
        assert report.loaded == report.names and not report.unexpected
        assert "images: RGB, 0..1 (as these weights were trained)" in str(report)
        return report.kept_classes

    def test_class_names_are_those_of_the_config(self, folder: Path, detector: Detector) -> None:
        names = {str(79 - row): f"part {row}" for row in range(80)}
        kept = self.load(folder, {"id2label": names}, ("part 7", *(f"other {row}" for row in range(79))), detector)
        theirs = random_file_row(folder, "model.enc_score_head.bias", 79 - 7)
        assert kept == (0,)
        assert torch.equal(detector.state_dict()["head.cell_logits.bias"][0], theirs)

    @pytest.mark.parametrize("names", [None, [f"LABEL_{row}" for row in range(80)]], ids=["none", "numbers"])
    def test_without_names_eighty_classes_are_those_of_coco(
        self, folder: Path, detector: Detector, names: list[str] | None
    ) -> None:
        config = {} if names is None else {"id2label": dict(enumerate(names))}
        assert self.load(folder, config, ("dog", *(f"other {row}" for row in range(79))), detector) == (0,)

    def test_names_of_coco_in_another_spelling_are_those_of_coco(self, folder: Path, detector: Detector) -> None:
        others = {"couch": "sofa", "tv": "tvmonitor", "potted plant": "pottedplant", "airplane": "aeroplane"}
        names = [others.get(name, name) for name in COCO_NAMES]
        assert len(self.load(folder, {"id2label": dict(enumerate(names))}, COCO_NAMES, detector)) == 80

    @pytest.mark.parametrize("text", ["{", "[]", '{"id2label": []}', '{"id2label": {"a": "b"}}', '{"id2label": 3}'])
    def test_damaged_config(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json: is damaged, or no config of a model \(\w+Error\)"):
            load_weights(tmp_path, nn.Linear(1, 1))

    def test_no_weights(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(
            CheckpointError, match=r"contains config\.json, but none of model\.safetensors, pytorch_mod"
        ):
            load_weights(tmp_path, nn.Linear(1, 1))

    def test_older_folders_hold_a_torch_file(self, shared_reference: Path, tmp_path: Path, detector: Detector) -> None:
        torch.save(dict(random_file(shared_reference, "rtdetr_r18_hf_file")), tmp_path / "pytorch_model.bin")
        assert len(self.load(tmp_path, {}, COCO_NAMES, detector)) == 80


def random_file_row(folder: Path, name: str, row: int) -> Tensor:
    """One number of a saved tensor."""
    return load_file(folder / "model.safetensors")[name][row]
