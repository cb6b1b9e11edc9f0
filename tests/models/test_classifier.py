"""Pooling and linear head against torchvision's way, and a classifier that shares its backbone with a detector."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from detkit.models import Classifier, Detector
from detkit.models.backbones import CSPDarknet
from detkit.models.heads import LinearHead, YOLOHead
from detkit.models.necks import PAN, GlobalAveragePool
from detkit.types import FeatureSpec

SPECS = [FeatureSpec(16, 8, "fine"), FeatureSpec(40, 32, "coarse"), FeatureSpec(24, 16, "between")]
POOLED = [FeatureSpec(40, 0, "pooled")]


def small_classifier(num_classes: int = 3) -> Classifier:
    backbone = CSPDarknet(depth_multiple=0.33, width_multiple=0.125)
    return Classifier(backbone, GlobalAveragePool, partial(LinearHead, num_classes=num_classes))


def test_pools_the_coarsest_level_as_torch_does() -> None:
    """Whatever the order of the levels; the reference is the layer that torchvision's networks end with."""
    maps = [torch.randn(2, spec.channels, 96 // spec.stride, 64 // spec.stride) for spec in SPECS]
    pool = GlobalAveragePool(SPECS)
    (vector,) = pool(maps)
    torch.testing.assert_close(vector, F.adaptive_avg_pool2d(maps[1], 1).flatten(1))
    assert pool.out_specs == POOLED


def test_head_is_one_linear_layer() -> None:
    head = LinearHead(POOLED, num_classes=5, dropout=0.5).eval()
    vectors = torch.randn(4, 40)
    torch.testing.assert_close(head([vectors]), vectors @ head.class_logits.weight.T + head.class_logits.bias)
    assert set(head.state_dict()) == {"class_logits.weight", "class_logits.bias"}


def test_dropout_is_for_training_alone() -> None:
    head = LinearHead(POOLED, num_classes=5, dropout=0.5)
    vectors = torch.ones(1, 40)
    assert not torch.equal(head.train()([vectors]), head.eval()([vectors]))


@pytest.mark.parametrize("size_hw", [(64, 64), (96, 160)], ids=str)
def test_logits_and_a_gradient_for_every_parameter(size_hw: tuple[int, int]) -> None:
    classifier = small_classifier()
    logits = classifier(torch.rand(2, 3, *size_hw))
    assert logits.shape == (2, 3)
    F.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert [name for name, p in classifier.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_image_does_not_see_another() -> None:
    classifier = small_classifier().eval()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(classifier(images)[:1], classifier(images[:1]), rtol=1e-4, atol=1e-5)


def test_backbone_goes_into_a_detector() -> None:
    backbone = CSPDarknet(depth_multiple=0.33, width_multiple=0.125)
    detector = Detector(backbone, PAN, partial(YOLOHead, num_classes=3))
    taken = {name: t for name, t in small_classifier().state_dict().items() if not name.startswith("head.")}
    missing, unexpected = detector.load_state_dict(taken, strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"neck", "head"}


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (SPECS, r"got maps of strides \[8, 32, 16\]: put GlobalAveragePool before it"),
        (POOLED * 2, r"got maps of strides \[0, 0\]"),
    ],
)
def test_head_refuses_maps(specs: list[FeatureSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearHead(specs, num_classes=2)


@pytest.mark.parametrize(("num_classes", "dropout"), [(0, 0.0), (2, 1.0), (2, -0.1)])
def test_head_refuses_odd_numbers(num_classes: int, dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"got num_classes={num_classes}, dropout={dropout}"):
        LinearHead(POOLED, num_classes=num_classes, dropout=dropout)


def test_pooling_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a stride above 0; got strides \[0\]"):
        GlobalAveragePool(POOLED)
