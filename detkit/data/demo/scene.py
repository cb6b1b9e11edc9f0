"""Drawn pictures of metal parts on a workbench, for the demo set.

Shape alone tells the class, not colour. Parts overlap, lie at any angle and are 22 to 150 px long. The bench also
shows scratches, chips, coins and cables, which are no parts.
"""

from typing import NamedTuple

import cv2
import numpy as np

CLASS_NAMES = ("gear", "nut", "washer", "bolt", "wrench")

_FINE = 3  # subpixels per pixel and axis while a part is drawn
_MIN_VISIBLE = 0.5  # share of each part that the others leave visible
_METALS = np.array(  # RGB
    [(178, 182, 188), (104, 110, 120), (196, 164, 84), (184, 112, 76), (172, 58, 48), (56, 92, 158), (64, 124, 80),
     (52, 52, 58), (220, 216, 206)], dtype=np.float32,
)  # fmt: skip


class Scene(NamedTuple):
    """A picture and its truth."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (N, 4) int64 xyxy of what is visible
    labels: np.ndarray  # (N,) int64
    areas: np.ndarray  # (N,) int64 visible pixels
    crowd: np.ndarray  # (N,) bool: a heap of small parts


class _Bench:
    """A picture that is being drawn, and the part that each of its pixels shows."""

    def __init__(self, image: np.ndarray, light: float) -> None:
        self.image = image  # (H, W, 3) float32 RGB
        self.light = light  # direction that the light comes from, radians
        self.owner: np.ndarray = np.full(image.shape[:2], -1, dtype=np.int64)
        self.labels: list[int] = []
        self.full_areas: list[float] = []


def draw_scene(rng: np.random.Generator) -> Scene:
    """One picture, which depends on the generator alone."""
    height, width = (int(side) for side in rng.integers(13, 21, size=2) * 16)
    bench = _Bench(_draw_surface(rng, height, width), rng.uniform(0, 2 * np.pi))
    _litter(bench, rng)
    is_empty, has_heap = rng.random() < 0.04, rng.random() < 0.06
    heap_label = int(rng.integers(1, 3))  # of nuts or washers
    if has_heap:
        _pour_heap(bench, rng, heap_label)
    heap_parts = len(bench.labels)
    for _ in range(0 if is_empty else int(rng.integers(2, 9))):
        _place(bench, rng, int(rng.integers(len(CLASS_NAMES))), float(np.exp(rng.uniform(np.log(22), np.log(150)))))
    image = _photograph(bench.image, rng)
    return _truth(bench, image, heap_parts)


def _truth(bench: _Bench, image: np.ndarray, heap_parts: int) -> Scene:
    """Boxes around the visible pixels of each part; the parts of the heap become one crowd box."""
    owners = np.where((bench.owner >= 0) & (bench.owner < heap_parts), 0, bench.owner)
    boxes, labels, areas, crowd = [], [], [], []
    for part in [0] * (heap_parts > 0) + list(range(heap_parts, len(bench.labels))):
        ys, xs = np.nonzero(owners == part)
        boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        labels.append(bench.labels[part])
        areas.append(len(xs))
        crowd.append(part < heap_parts)
    return Scene(
        image,
        np.array(boxes, dtype=np.int64).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
        np.array(areas, dtype=np.int64),
        np.array(crowd, dtype=bool),
    )


def _pour_heap(bench: _Bench, rng: np.random.Generator, label: int) -> None:
    height, width = bench.owner.shape
    centre = rng.uniform(0.25, 0.75, size=2) * (width, height)
    for _ in range(int(rng.integers(14, 24))):
        _place(bench, rng, label, rng.uniform(12, 17), centre + rng.normal(0, 14, size=2))


def _place(
    bench: _Bench, rng: np.random.Generator, label: int, length: float, centre: np.ndarray | None = None
) -> None:
    """Draw a part where it leaves enough of the others visible and is mostly in the picture; give up after 8 tries."""
    height, width = bench.owner.shape
    colour, alpha = _draw_part(rng, label, length, bench.light)
    for _ in range(8):
        x, y = rng.uniform(0, 1, size=2) * (width, height) if centre is None else centre
        left, top = round(x - alpha.shape[1] / 2), round(y - alpha.shape[0] / 2)
        canvas_alpha = _shift_into(alpha, top, left, height, width)
        inside = canvas_alpha > 0.5
        full_area = float((alpha > 0.5).sum())
        if inside.sum() < max(0.7 * full_area, 20):
            continue
        owner = np.where(inside, len(bench.labels), bench.owner)
        visible = np.bincount(owner[owner >= 0], minlength=len(bench.labels) + 1)
        if centre is None and (visible[:-1] < _MIN_VISIBLE * np.array(bench.full_areas)).any():
            continue
        shadow = cv2.GaussianBlur(canvas_alpha, (0, 0), 1 + length / 40)
        reach = 1 + length / 30
        offset = np.array([[1, 0, -np.cos(bench.light) * reach], [0, 1, -np.sin(bench.light) * reach]])
        bench.image *= 1 - 0.5 * cv2.warpAffine(shadow, offset, (width, height))[..., None]
        blend = canvas_alpha[..., None]
        bench.image = bench.image * (1 - blend) + _shift_into(colour, top, left, height, width) * blend
        bench.owner = owner
        bench.labels.append(label)
        bench.full_areas.append(full_area)
        return


def _shift_into(patch: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The patch on an empty canvas; what lies outside the canvas is cut off."""
    canvas = np.zeros((height, width, *patch.shape[2:]), dtype=np.float32)
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = min(top + patch.shape[0], height), min(left + patch.shape[1], width)
    if y1 < y2 and x1 < x2:
        canvas[y1:y2, x1:x2] = patch[y1 - top : y2 - top, x1 - left : x2 - left]
    return canvas


def _draw_part(rng: np.random.Generator, label: int, length: float, light: float) -> tuple[np.ndarray, np.ndarray]:
    """RGB and coverage in [0, 1] of a part that is ``length`` pixels long, with bevelled edges."""
    side = int(np.ceil(length)) + 4
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * length * _FINE
    mask = np.zeros((side * _FINE, side * _FINE), dtype=np.uint8)
    for outline, value in _outlines(rng, CLASS_NAMES[label]):
        points = outline @ turn.T + side * _FINE / 2
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], value, cv2.LINE_AA, shift=4)
    bevel = max(length * _FINE * 0.045, 2.0)
    height = np.sqrt(np.minimum(cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5) / bevel, 1))
    height = cv2.GaussianBlur(height, (0, 0), bevel / 3)
    slope_x, slope_y = cv2.Sobel(height, cv2.CV_32F, 1, 0), cv2.Sobel(height, cv2.CV_32F, 0, 1)
    shade = -(slope_x * np.cos(light) + slope_y * np.sin(light)) * bevel / 8
    sheen = cv2.resize(rng.normal(0, 0.06, (4, 4)).astype(np.float32), mask.shape, interpolation=cv2.INTER_CUBIC)
    base = _METALS[rng.integers(len(_METALS))] * rng.uniform(0.85, 1.1) + rng.normal(0, 5, 3)
    lit = base.astype(np.float32) * (1 + sheen - 0.75 * np.clip(-shade, 0, 1))[..., None]
    lit += 90 * np.clip(shade, 0, 1)[..., None]
    shrink = {"dsize": (side, side), "interpolation": cv2.INTER_AREA}
    return cv2.resize(lit.astype(np.float32), **shrink), cv2.resize(mask.astype(np.float32) / 255, **shrink)


def _outlines(rng: np.random.Generator, name: str) -> list[tuple[np.ndarray, int]]:
    """Polygons (points, 2) of a part of length 1 around the origin, to fill (255) or to cut out (0) in turn."""
    if name == "gear":
        teeth = int(rng.integers(8, 13))
        radii = np.tile((0.37, 0.5, 0.5, 0.37), teeth)
        steps = (np.arange(teeth)[:, None] + (0.0, 0.14, 0.42, 0.56)).ravel() * 2 * np.pi / teeth
        outline = np.column_stack((radii * np.cos(steps), radii * np.sin(steps)))
        return [(outline, 255), (_ring(rng.uniform(0.1, 0.17), 40), 0)]
    if name == "nut":
        return [(_ring(0.5, 6), 255), (_ring(rng.uniform(0.18, 0.22), 40), 0)]
    if name == "washer":
        return [(_ring(0.5, 60), 255), (_ring(rng.uniform(0.29, 0.36), 40), 0)]
    if name == "bolt":
        thickness, head = rng.uniform(0.09, 0.11), rng.uniform(0.19, 0.22)
        notches = np.linspace(-0.1, 0.5, 25)  # the thread
        upper = np.column_stack((notches, thickness - 0.02 * (np.arange(25) % 2)))
        shaft = np.vstack(([(-0.4, thickness)], upper, upper[::-1] * (1, -1), [(-0.4, -thickness)]))
        return [(shaft, 255), (_box(-0.5, -head, -0.33, head), 255)]
    handle, jaw = rng.uniform(0.065, 0.085), rng.uniform(0.165, 0.19)
    polygons = [(_box(-0.36, -handle, 0.36, handle), 255)]
    for end in (-1, 1):
        centre = np.array([end * (0.5 - jaw), 0])
        polygons.append((_ring(jaw, 30) + centre, 255))
    slot, eye = _box(0.0, -0.45 * jaw, 0.5, 0.45 * jaw), _ring(0.55 * jaw, 6)
    tilt = rng.uniform(0.1, 0.35)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    middle = np.array([0.5 - jaw, 0])
    return [*polygons, (slot @ turn.T + middle, 0), (eye - middle, 0)]


def _ring(radius: float, corners: int) -> np.ndarray:
    steps = np.arange(corners) * 2 * np.pi / corners
    return radius * np.column_stack((np.cos(steps), np.sin(steps)))


def _box(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _noise(rng: np.random.Generator, height: int, width: int, cells_yx: tuple[int, int]) -> np.ndarray:
    """Smooth noise of mean 0 and deviation about 1: octaves of random fields."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(3):
        grid_yx = (min(cells_yx[0] << octave, height), min(cells_yx[1] << octave, width))
        field = rng.standard_normal(grid_yx, dtype=np.float32)
        total += cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.15


def _draw_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wood, brushed metal, cutting mat or concrete."""
    kind = int(rng.integers(4))
    base = np.array([(150, 112, 76), (142, 146, 150), (58, 104, 92), (152, 146, 138)][kind], dtype=np.float32)
    texture = 0.06 * _noise(rng, height, width, (4, 4))
    if kind == 0:
        texture += 0.12 * np.sin(6 * _noise(rng, height, width, (6, 1))) + 0.05 * _noise(rng, height, width, (90, 4))
    elif kind == 1:
        texture += 0.08 * _noise(rng, height, width, (2, 120))
    elif kind == 3:
        texture += 0.07 * _noise(rng, height, width, (60, 60))
    image = np.clip(base * rng.uniform(0.7, 1.2), 0, 235) * (1 + texture[..., None])
    if kind == 2:
        pitch = int(rng.integers(20, 34))
        image[rng.integers(pitch) :: pitch] += 34
        image[:, rng.integers(pitch) :: pitch] += 34
    return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image, dtype=np.float32)


def _litter(bench: _Bench, rng: np.random.Generator) -> None:
    """Draw what is on the bench but is no part: stains, scratches, chips, coins, a cable."""
    height, width = bench.owner.shape
    for _ in range(int(rng.integers(3, 12))):
        kind = int(rng.integers(4))
        x, y = rng.uniform(0, 1, size=2) * (width, height)
        mask = np.zeros((height, width), dtype=np.uint8)
        length, angle = float(rng.uniform(10, 60)), rng.uniform(0, 2 * np.pi)
        far = (round(x + length * np.cos(angle)), round(y + length * np.sin(angle)))
        if kind == 0:
            cv2.ellipse(
                mask, (round(x), round(y)), (round(length), round(length / 2)), np.degrees(angle), 0, 360, 110, -1
            )
            mask = cv2.GaussianBlur(mask, (0, 0), 6)
        elif kind == 1:
            cv2.line(mask, (round(x), round(y)), far, 170, 1, cv2.LINE_AA)
        elif kind == 2:
            corners = np.array([x, y]) + rng.normal(0, length / 5, size=(4, 2))
            cv2.fillConvexPoly(mask, cv2.convexHull(corners.astype(np.int32)), 255, cv2.LINE_AA)
        else:
            cv2.circle(mask, (round(x), round(y)), round(length / 4), 255, -1, cv2.LINE_AA)
        colour = _METALS[rng.integers(len(_METALS))] * rng.uniform(0.5, 1.1)
        left, top, columns, rows = cv2.boundingRect(mask)
        touched = bench.image[top : top + rows, left : left + columns]
        cover = mask[top : top + rows, left : left + columns, None].astype(np.float32) / 255
        touched += cover * (colour - touched)
    if rng.random() < 0.3:
        ends = rng.uniform(-0.2, 1.2, size=(4, 2)) * (width, height)
        t = np.linspace(0, 1, 50)[:, None]
        curve = (1 - t) ** 3 * ends[0] + 3 * t * (1 - t) ** 2 * ends[1] + 3 * t**2 * (1 - t) * ends[2] + t**3 * ends[3]
        colour = _METALS[rng.integers(len(_METALS))].tolist()
        cv2.polylines(bench.image, [curve.astype(np.int32)], False, colour, int(rng.integers(2, 6)), cv2.LINE_AA)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light, a tint, a little blur and the noise of a sensor."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    ys = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.sin(angle)
    xs = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.cos(angle)
    ramp = rng.uniform(0.7, 1.15) * (1 + rng.uniform(0, 0.6) * (xs + ys))
    tint = rng.uniform(0.93, 1.07, size=3).astype(np.float32)
    exposed = image * ramp[..., None].astype(np.float32) * tint
    exposed += rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1, 6)
    return cv2.convertScaleAbs(np.maximum(cv2.GaussianBlur(exposed, (0, 0), rng.uniform(0.3, 0.9)), 0))
