"""Mosaic and mixup: samples made of several images, drawn straight into the final canvas.

The images are placed on an unbounded plane around its origin; one random affine maps the plane to the
canvas. Plane and affine are only matrices: no larger canvas is ever made, and every image is resized once.

Source: Bochkovskiy et al., YOLOv4, 2020, section 3.3 (mosaic). https://arxiv.org/abs/2004.10934
    Zhang et al., mixup, 2018. https://arxiv.org/abs/1710.09412
    Differs in: an image is not cut where the plane of twice the size would end; mixup has weights 0.5 and 0.5 and
    keeps the boxes of both images whole, as Ge et al., YOLOX, 2021. https://arxiv.org/abs/2107.08430
"""

from collections.abc import Sequence

import cv2
import numpy as np

from detkit.data.augment.transforms import Sample, affine_matrix
from detkit.data.images.resize import Resize, fitting_scale_xy


def place_single(source_hw: tuple[int, int], image_hw: tuple[int, int], resize: Resize = "letterbox") -> np.ndarray:
    """Matrix of one image that fits the canvas, its centre at the plane's origin."""
    height, width = source_hw
    scale_x, scale_y = fitting_scale_xy(source_hw, image_hw, resize)
    return affine_matrix((scale_x, scale_y), (-scale_x * width / 2, -scale_y * height / 2))


def place_mosaic(
    sources_hw: Sequence[tuple[int, int]],
    image_hw: tuple[int, int],
    meeting_xy: tuple[float, float],
    resize: Resize = "letterbox",
) -> list[np.ndarray]:
    """Matrices of four images that touch each other in one point of the plane.

    Args:
        sources_hw: sizes of the images top left, top right, bottom left, bottom right of the point.
        image_hw: size of the canvas, which each of them fits.
        meeting_xy: the point.
        resize: whether the images keep their aspect ratio.
    """
    matrices = []
    for corner, source_hw in enumerate(sources_hw):
        scale_x, scale_y = fitting_scale_xy(source_hw, image_hw, resize)
        is_right, is_bottom = corner % 2, corner // 2
        left = meeting_xy[0] - (0 if is_right else scale_x * source_hw[1])
        top = meeting_xy[1] - (0 if is_bottom else scale_y * source_hw[0])
        matrices.append(affine_matrix((scale_x, scale_y), (left, top)))
    return matrices


def mixup(first: Sample, second: Sample) -> Sample:
    """The mean of two images of one size, with the boxes of both."""
    return Sample(
        cv2.addWeighted(first.image, 0.5, second.image, 0.5, 0),
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.crowd, second.crowd]),
    )
