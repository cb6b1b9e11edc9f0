"""Box formats are inverse to each other; the way back to the original image is the way there reversed."""

import pytest
import torch
import torchvision

from detkit.ops.boxes import (
    box_areas,
    boxes_to_original,
    clip_boxes,
    cxcywh_norm_to_xyxy,
    cxcywh_to_xyxy,
    inverse_sigmoid,
    xyxy_to_cxcywh,
    xyxy_to_cxcywh_norm,
)

BOXES = torch.tensor([[0.0, 0.0, 10.0, 20.0], [3.5, 4.0, 3.5, 9.0], [-5.0, 2.0, 30.0, 7.0]])


def test_formats_agree_with_torchvision() -> None:
    torch.testing.assert_close(xyxy_to_cxcywh(BOXES), torchvision.ops.box_convert(BOXES, "xyxy", "cxcywh"))


def test_formats_are_inverse() -> None:
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(BOXES)), BOXES)


def test_fractions_of_an_image_by_hand() -> None:
    boxes = torch.tensor([[[20.0, 10.0, 60.0, 40.0]], [[-20.0, 0.0, 200.0, 100.0]]])
    fractions = torch.tensor([[[0.2, 0.25, 0.2, 0.3]], [[0.45, 0.5, 1.1, 1.0]]])  # of 200 wide and 100 high
    torch.testing.assert_close(xyxy_to_cxcywh_norm(boxes, (100, 200)), fractions)
    torch.testing.assert_close(cxcywh_norm_to_xyxy(fractions, (100, 200)), boxes)
    assert cxcywh_norm_to_xyxy(fractions[:0], (100, 200)).shape == (0, 1, 4)


def test_area_of_an_inverted_box_is_zero() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 5.0], [4.0, 5.0, 0.0, 0.0], [2.0, 2.0, 2.0, 9.0]])
    assert box_areas(boxes).tolist() == [20.0, 0.0, 0.0]


def test_clip_agrees_with_torchvision() -> None:
    torch.testing.assert_close(clip_boxes(BOXES, (8, 9)), torchvision.ops.clip_boxes_to_image(BOXES, (8, 9)))


def test_way_back_to_the_original_image() -> None:
    """network = original * scale + pad, by hand; what lies outside of the original is clipped."""
    boxes = torch.tensor([[18.0, 9.0, 28.0, 14.0], [0.0, 0.0, 500.0, 500.0]])
    expected = torch.tensor([[20.0, 20.0, 40.0, 40.0], [0.0, 0.0, 200.0, 100.0]])
    found = boxes_to_original(boxes, (100, 200), scale_xy=(0.5, 0.25), pad_xy=(8.0, 4.0))
    torch.testing.assert_close(found, expected)


def test_inverse_sigmoid_undoes_the_sigmoid() -> None:
    logits = torch.linspace(-11.5, 11.5, 47, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(logits.sigmoid()), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_inverse_sigmoid_has_limits(dtype: torch.dtype) -> None:
    """log(1e5) from 0, at whatever lies outside of [0, 1] too."""
    logits = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1e-6, 0.5, 1.0, 2.0], dtype=dtype))
    limit = 11.512925
    torch.testing.assert_close(
        logits.float(), torch.tensor([-limit, -limit, -limit, 0, limit, limit]), rtol=0, atol=0.03
    )
    assert inverse_sigmoid(torch.tensor(1.0, dtype=torch.float64), eps=1e-3).item() == pytest.approx(6.907755)


def test_inverse_sigmoid_has_a_finite_gradient_everywhere() -> None:
    """That of log(v / (1 - v)) inside: 1 / (v (1 - v)); outside of [0, 1] none."""
    values = torch.tensor([-1.0, 0.0, 1e-7, 0.2, 0.5, 1.0, 2.0], requires_grad=True)
    inverse_sigmoid(values).sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    torch.testing.assert_close(values.grad[3:5], torch.tensor([1 / 0.16, 4.0]))
    assert values.grad[[0, -1]].tolist() == [0, 0]
