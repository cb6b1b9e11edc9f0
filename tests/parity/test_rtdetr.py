"""The RT-DETR recipes against transformers' RT-DETR and RT-DETRv2 under the same random weights."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import RTDetrImageProcessor
from transformers.models.rt_detr.modeling_rt_detr import get_contrastive_denoising_training_group

from detkit.assign import HungarianAssigner
from detkit.decode import DETRDecode
from detkit.losses import DETRLoss
from detkit.models import Detector
from detkit.models.heads.denoising import Noise, noisy_queries
from detkit.ops.targets import pack_targets
from detkit.types import DETRPredictions, QueryOutput, Targets
from detkit.weights import load_weights
from detkit.weights.projects.coco_names import COCO_NAMES
from detkit.weights.projects.rtdetr import convert_rtdetr, detkit_name
from tests.helpers.detr_batches import IMAGE_HW, NUM_CLASSES, as_labels, random_targets
from tests.helpers.rtdetr_files import detector_of, image_of, port_of, shapes_of

QUERIES = 30
NAMES = [
    *("rtdetr_r18", "rtdetrv2_r18"),
    *(pytest.param(name, marks=pytest.mark.long) for name in ("rtdetr_r50", "rtdetrv2_r50")),
]
# Of logits, and of boxes as fractions of the image. The port in float32 is 1e-4 to 1e-3 away from itself in float64.
TOLERANCES = {torch.float32: (1e-3, 1e-5), torch.float64: (1e-10, 1e-11)}
TERMS = {"vfl": "cls", "bbox": "l1", "giou": "giou"}


class Pair(NamedTuple):
    """The same network twice."""

    port: Any
    detector: Detector

    def to(self, dtype: torch.dtype) -> "Pair":
        return Pair(self.port.to(dtype), self.detector.to(dtype))


def pair_of(name: str) -> Pair:
    """Both in evaluation mode; ours has its weights through the loader."""
    port = port_of(name, num_labels=NUM_CLASSES, num_queries=QUERIES)
    return Pair(port, loaded(port, name))


def loaded(port: nn.Module, name: str, *overrides: str) -> Detector:
    sizes = f"model.head.num_classes={NUM_CLASSES}", f"model.head.num_queries={QUERIES}"
    detector = detector_of(name, *sizes, *overrides).eval()
    report = load_weights(port.state_dict(), detector)
    assert report.loaded == report.names and not report.unexpected
    return detector


@pytest.fixture(scope="module")
def r18() -> Pair:
    return pair_of("rtdetr_r18")


def outputs_of(port_output: Any) -> list[QueryOutput]:
    """What the port says: of the encoder, then of every layer."""
    encoder = QueryOutput(port_output.enc_topk_logits, port_output.enc_topk_bboxes)
    of_layers = port_output.intermediate_logits.unbind(1), port_output.intermediate_reference_points.unbind(1)
    return [encoder, *(QueryOutput(*values) for values in zip(*of_layers, strict=True))]


def assert_same(ours: list[QueryOutput], theirs: list[QueryOutput], dtype: torch.dtype = torch.float32) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        for values, expected, tolerance in zip(our, their, TOLERANCES[dtype], strict=True):
            torch.testing.assert_close(values, expected, rtol=0, atol=tolerance)


@torch.no_grad()
def compare(pair: Pair, images: Tensor) -> list[QueryOutput]:
    """Encoder and every layer; returns what the port says of both."""
    pair = pair.to(images.dtype)
    predictions, expected = pair.detector(images), outputs_of(pair.port(images))
    assert_same([predictions.encoder, *predictions.layers], expected, images.dtype)
    return expected


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return pair_of(request.param)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("height", "width"), [(128, 128), (64, 448)])
def test_every_layer(pair: Pair, height: int, width: int, dtype: torch.dtype) -> None:
    """Queries differ and boxes move, so that there is something to compare. Of the wide image border cells are out."""
    encoder, *layers = compare(pair, image_of(height, width).to(dtype))
    for before, after in zip((encoder, *layers), layers, strict=False):
        assert (before.boxes_cxcywh_norm - after.boxes_cxcywh_norm).abs().mean() > 0.005
        assert after.logits.std(dim=1).mean() > 0.3


@pytest.mark.parametrize(
    ("method", "num_points"),
    [("bilinear", [2, 2, 2]), ("bilinear", [4, 3, 2]), ("discrete", [4, 4, 4]), ("discrete", [4, 3, 2])],
    ids=str,
)
def test_sampling_of_the_second_version(method: str, num_points: list[int]) -> None:
    """The port knows one number of points for all levels; its attention reads any, if its buffers say so."""
    port = port_of(
        "rtdetrv2_r18",
        num_labels=NUM_CLASSES,
        num_queries=QUERIES,
        decoder_n_points=sum(num_points) // 3,
        decoder_method="default" if method == "bilinear" else method,
    )
    for module in port.modules():
        if hasattr(module, "n_points_list"):
            module.n_points_list = num_points
            scale = [1 / points for points in num_points for _ in range(points)]
            module.n_points_scale = torch.tensor(scale, dtype=torch.float64)
    overrides = f"model.head.num_points={num_points}", f"model.head.sampling={method}"
    compare(Pair(port, loaded(port, "rtdetrv2_r18", *overrides)), image_of(96, 160).double())


@torch.no_grad()
def test_fewer_layers_and_queries_are_the_first_ones(r18: Pair) -> None:
    images = image_of(*IMAGE_HW).double()
    overrides = "model.head.inference_layers=2", "model.head.inference_queries=20"
    fewer = loaded(r18.port, "rtdetr_r18", *overrides).double()(images)
    port = copy.deepcopy(r18.port).double()
    port.config.num_queries = 20
    assert_same([fewer.encoder, *fewer.layers], outputs_of(port(images))[:3], torch.float64)


NOISES = [Noise(), Noise(num_queries=30, label=0.9, box=0.4), Noise(label=0.0)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("counts", [(3, 0, 1), (17,), (120, 5)], ids=str)
def test_noisy_queries(counts: tuple[int, ...], noise: Noise, seed: int) -> None:
    """The same from the same seed, also where one group has more queries than are asked for."""
    targets = random_targets(counts, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    expected: Any = get_contrastive_denoising_training_group(
        as_labels(targets), NUM_CLASSES, QUERIES, nn.Identity(), noise.num_queries, noise.label, noise.box
    )
    labels, box_logits, mask, meta = expected
    torch.manual_seed(seed)
    noisy = noisy_queries(pack_targets(targets), IMAGE_HW, NUM_CLASSES, QUERIES, noise)
    assert noisy is not None
    assert torch.equal(noisy.labels, labels.long())
    torch.testing.assert_close(noisy.box_logits.sigmoid(), box_logits.sigmoid(), rtol=0, atol=2e-6)
    assert torch.equal(noisy.blocked, mask.isinf())
    assert noisy.groups == meta["dn_num_group"]
    of_images = [noisy.query_rows[noisy.image_rows == image] for image in range(len(counts))]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(of_images, meta["dn_positive_idx"], strict=True))


class Step(NamedTuple):
    """A forward pass with targets of both networks, in float64 and from one seed."""

    port_output: Any
    predictions: DETRPredictions
    targets: Targets


def step(pair: Pair, counts: tuple[int, ...] = (2, 0, 3)) -> Step:
    targets = random_targets(counts, torch.Generator().manual_seed(1), torch.float64)
    images = image_of(*IMAGE_HW, count=len(counts)).double()
    torch.manual_seed(7)
    with double_by_default():
        port_output = pair.port(images, labels=as_labels(targets))
    torch.manual_seed(7)
    given = pack_targets(targets)
    return Step(port_output, pair.detector(images, given), given)


@contextmanager
def double_by_default() -> Iterator[None]:
    """The port makes its noisy queries in torch's default precision."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def with_noisy(predictions: DETRPredictions) -> list[QueryOutput]:
    """Encoder and every layer, noisy queries first: as the port has them."""
    assert predictions.denoising is not None
    layers = zip(predictions.denoising.layers, predictions.layers, strict=True)
    joined = [QueryOutput(*(torch.cat(both, dim=1) for both in zip(*layer, strict=True))) for layer in layers]
    return [predictions.encoder, *joined]


@pytest.fixture
def training(r18: Pair) -> Pair:
    """With statistics of the batch, and noisy queries; in float64."""
    port, detector = copy.deepcopy(r18).to(torch.float64)
    port.set_attn_implementation("eager")  # torch's own attention reads the port's mask, which is float32, as float64
    return Pair(port.train(), detector.train())


def test_training_outputs(training: Pair) -> None:
    """Those of noisy queries too, and the statistics that the norms gathered on the way."""
    port_output, predictions, _ = step(training)
    assert_same(with_noisy(predictions), outputs_of(port_output), torch.float64)
    state = training.detector.state_dict()
    for name, tensor in convert_rtdetr(training.port.state_dict(), "").weights.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("counts", [(2, 0, 3), (1,)], ids=str)
def test_loss_terms(training: Pair, counts: tuple[int, ...]) -> None:
    """Under our names: the port counts the encoder's output among those of layers."""
    port_output, predictions, targets = step(training, counts)
    terms = DETRLoss(HungarianAssigner())(predictions, targets)
    of_encoder = f"_aux_{len(predictions.layers) - 1}"
    expected = {}
    for name, value in port_output.loss_dict.items():
        kind, _, place = name.removeprefix("loss_").partition("_")
        expected[f"{TERMS[kind]}_{place}".removesuffix("_").replace(of_encoder, "_enc")] = value.item()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-10)
    assert torch.stack(list(terms.values())).sum().item() == pytest.approx(port_output.loss.item(), rel=1e-10)


def weighted(outputs: Sequence[Tensor]) -> Tensor:
    """A number in which every value counts in its own way."""
    rng = torch.Generator().manual_seed(0)
    return torch.stack([(values * torch.randn(values.shape, generator=rng)).sum() for values in outputs]).sum()


def gradients(port: nn.Module) -> dict[str, Tensor]:
    """Of the port, under detkit's names; zeros where nothing flowed."""
    given = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in port.named_parameters()}
    return dict(convert_rtdetr(given, "").weights)


@pytest.mark.kernels
def test_gradients_of_every_parameter(training: Pair) -> None:
    """Of all logits, and of the boxes of the encoder and of the first layer: later ones look forward twice."""
    port_output, predictions, _ = step(training)
    for outputs in (with_noisy(predictions), outputs_of(port_output)):
        boxes = [output.boxes_cxcywh_norm for output in outputs[:2]]
        weighted([*(output.logits for output in outputs), *boxes]).backward()
    expected = gradients(training.port)
    ours = {name: p.grad for name, p in training.detector.named_parameters() if p.grad is not None}
    silent = expected.keys() - ours.keys()
    assert {name.rsplit(".", 2)[0] for name in silent} == {"head.box_offsets.1", "head.box_offsets.2"}
    assert not any(expected[name].any() for name in silent)
    for name, gradient in ours.items():
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-10 * largest + 1e-11)


def test_boxes_look_forward_twice(r18: Pair) -> None:
    """Boxes written out from what the layers gave have the same gradients; the port's cut off the former layer's."""
    port, detector = copy.deepcopy(r18).to(torch.float64)
    head: Any = detector.head
    seen: list[Tensor] = []
    for layer in head.layers:
        layer.register_forward_hook(lambda _module, _inputs, queries: seen.append(queries.detach()))
    images = image_of(*IMAGE_HW).double()
    predictions = detector(images)
    weighted([layer.boxes_cxcywh_norm for layer in predictions.layers]).backward()

    former, told = predictions.encoder.boxes_cxcywh_norm.detach(), []
    for box_layers, queries in zip(head.box_offsets, seen, strict=True):
        offsets = box_layers(queries)
        told.append(torch.sigmoid(offsets + torch.logit(former, 1e-5)))
        former = torch.sigmoid(offsets + torch.logit(former.detach(), 1e-5))
    parameters = list(head.box_offsets.parameters())
    for parameter, written_out in zip(parameters, torch.autograd.grad(weighted(told), parameters), strict=True):
        torch.testing.assert_close(parameter.grad, written_out)

    weighted([layer.boxes_cxcywh_norm for layer in outputs_of(port(images))[1:]]).backward()
    cut_off = gradients(port)
    for number, (box_layers, differs) in enumerate(zip(head.box_offsets, (True, True, False), strict=True)):
        theirs = cut_off[f"head.box_offsets.{number}.4.weight"]
        difference = (box_layers[-1].weight.grad - theirs).norm() / theirs.norm()
        assert difference > 0.1 if differs else difference < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("name", ["rtdetr_r18", "rtdetrv2_r18"])
@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_a_saved_file_gives_the_same_detections(shared_reference: Path, tmp_path: Path, name: str, layout: str) -> None:
    port = port_of(name, num_queries=QUERIES, id2label=dict(enumerate(COCO_NAMES)))
    detector = detector_of(name, f"model.head.num_queries={QUERIES}").eval()
    images, decode = image_of(*IMAGE_HW).double(), DETRDecode(QUERIES)
    if layout == "official":
        path = tmp_path / "rtdetr.pth"
        torch.save({"ema": {"module": with_official_names(port, shared_reference, name)}}, path)
    else:
        path = tmp_path / "saved"
        port.save_pretrained(path)
    report = load_weights(path, detector, COCO_NAMES)
    assert report.loaded == report.names and not report.unexpected
    output = port.double()(images)
    expected = RTDetrImageProcessor().post_process_object_detection(output, 0.0, [IMAGE_HW] * len(images))
    for detections, theirs in zip(decode(detector.double()(images)), expected, strict=True):
        torch.testing.assert_close(detections.scores, theirs["scores"], rtol=0, atol=1e-11)
        torch.testing.assert_close(detections.boxes, theirs["boxes"], rtol=0, atol=1e-9)
        assert torch.equal(detections.labels, theirs["labels"])


def with_official_names(port: nn.Module, folder: Path, name: str) -> dict[str, Tensor]:
    """The port's weights as the authors' code saves them."""
    ours = convert_rtdetr(port.state_dict(), "").weights
    shapes = shapes_of(folder, f"{name}_official")
    return {key: ours.get(detkit_name(key), torch.zeros(shape)) for key, shape in shapes.items()}
