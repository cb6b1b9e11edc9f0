"""CocoMetric against pycocotools called on files, and its own promises."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from detkit.metrics import CocoMetric
from detkit.ops.targets import pack_targets
from detkit.types import Detections
from tests.helpers.coco_files import (
    NAMES,
    coco_results,
    detections_of,
    ground_truth_of,
    pycocotools_says,
    random_dataset,
    random_detections,
    targets_of,
)

Engine = Literal["hotcoco", "pycocotools"]
ENGINES: list[Engine] = ["hotcoco", "pycocotools"]
APPROX_1 = pytest.approx(1.0, abs=1e-12)  # pycocotools adds 2e-16 to its denominators
NAN, INF = float("nan"), float("inf")
PERFECT = {"bccd": 0.99662, "chess": 1.0, "dice": 1.0, "aerial_cars": 1.0}


def measure(dataset: dict[str, Any], found: dict[int, np.ndarray], engine: Engine = "hotcoco") -> CocoMetric:
    metric = CocoMetric(ground_truth_of(dataset), engine=engine)
    metric.update(detections_of(found, [image["id"] for image in dataset["images"]]), targets_of(dataset))
    return metric


def numbers(metric: CocoMetric) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def a_dataset(boxes_xywh: list[list[float]], **annotation: Any) -> dict[str, Any]:
    """One image, one class."""
    annotations = [
        {"id": number, "image_id": 7, "category_id": 3, "bbox": box, **annotation}
        for number, box in enumerate(boxes_xywh, start=1)
    ]
    image = {"id": 7, "file_name": "7.jpg", "height": 400, "width": 600}
    return {"images": [image], "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}


def one(*row: float, image_id: int = 7) -> dict[int, np.ndarray]:
    """One detection: x1, y1, x2, y2, score, class index."""
    return {image_id: np.array([row], dtype=np.float32)}


def perfect_detections(dataset: dict[str, Any]) -> dict[int, np.ndarray]:
    """The truth with score 1, as float32 corners."""
    truth = ground_truth_of(dataset)
    corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], axis=1)
    rows = np.column_stack([corners, np.ones(len(corners)), truth.labels]).astype(np.float32)
    return {i: rows[truth.image_rows == row] for row, i in enumerate(truth.image_ids.tolist())}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_pycocotools(seed: int, engine: Engine, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    dataset = random_dataset(rng)
    found = random_detections(rng, dataset)
    if not found:
        pytest.skip("pycocotools cannot read empty results; see test_nothing_found")
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    results = coco_results(found, [category["id"] for category in dataset["categories"]])
    expected, expected_per_class = pycocotools_says(tmp_path / "truth.json", results)

    metric = measure(dataset, found, engine)
    assert numbers(metric) == pytest.approx(expected, abs=1e-12)
    assert metric.per_class() == pytest.approx(expected_per_class, abs=1e-12)


def test_written_results_give_the_same_numbers_to_pycocotools(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    dataset = random_dataset(rng)
    metric = measure(dataset, random_detections(rng, dataset))
    computed = numbers(metric)
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    expected, _ = pycocotools_says(tmp_path / "truth.json", metric.detections_json())
    assert computed == expected
    assert computed["AP"] > 0.1


def test_results_carry_the_files_own_ids() -> None:
    """Ids beyond 2^53, which no float64 holds; boxes as xywh."""
    dataset = a_dataset([[10, 20, 30, 40]])
    dataset["images"][0]["id"] = dataset["annotations"][0]["image_id"] = 2**53 + 1
    metric = measure(dataset, one(10, 20, 40, 60, 0.5, 0, image_id=2**53 + 1))
    assert metric.compute()["AP"] == APPROX_1
    box = [10.0, 20.0, 30.0, 40.0]
    assert metric.detections_json() == [{"image_id": 2**53 + 1, "category_id": 3, "bbox": box, "score": 0.5}]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PERFECT)
def test_perfect_detections(name: str, engine: Engine, shared_data: Path) -> None:
    """1 but for bccd, whose truth has a box of no area; pycocotools says 0.9894 of chess, for its annotation id 0."""
    dataset = json.loads((shared_data / name / "annotations" / "instances_val.json").read_text())
    metric = measure(dataset, perfect_detections(dataset), engine)
    assert metric.compute()["AP"].item() == pytest.approx(PERFECT[name], abs=5e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_annotation_id_zero_is_a_match(engine: Engine) -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    dataset["annotations"][0]["id"] = 0
    assert measure(dataset, perfect_detections(dataset), engine).compute()["AP"] == APPROX_1


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_found(engine: Engine) -> None:
    metric = measure(a_dataset([[10, 20, 30, 40]]), {}, engine)
    nothing_of_that_size = dict.fromkeys(["AP_small", "AP_large", "AR_small", "AR_large"], -1.0)
    assert numbers(metric) == dict.fromkeys(NAMES, 0.0) | nothing_of_that_size
    assert metric.detections_json() == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("crowd", [True, False], ids=["only crowds", "no boxes"])
def test_no_ground_truth_is_minus_one(crowd: bool, engine: Engine) -> None:
    dataset = a_dataset([[10, 20, 30, 40]], iscrowd=1) if crowd else a_dataset([])
    metric = measure(dataset, one(10, 20, 40, 60, 0.5, 0), engine)
    assert numbers(metric) == dict.fromkeys(NAMES, -1.0)
    assert metric.per_class() == {"cat": -1.0}


def test_classes_of_the_same_name_stay_apart() -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    dataset["categories"] += [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    metric = measure(dataset, perfect_detections(dataset))
    metric.compute()
    assert metric.per_class() == {"cat (3)": APPROX_1, "cat (1)": -1.0, "dog": -1.0}


def test_images_that_were_never_seen_count() -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    dataset["images"].append({"id": 8, "file_name": "8.jpg", "height": 400, "width": 600})
    dataset["annotations"].append({"id": 2, "image_id": 8, "category_id": 3, "bbox": [1, 2, 30, 40]})
    metric = CocoMetric(ground_truth_of(dataset))
    metric.update(detections_of(one(10, 20, 40, 60, 0.5, 0), [7]), targets_of(dataset, rows=slice(1)))
    assert metric.compute()["AR_100"] == 0.5


def test_boxes_go_back_to_the_original_image() -> None:
    """Detections on an image shrunk by (0.5, 0.25) fit the truth in the original's pixels."""
    dataset = a_dataset([[100, 200, 60, 80]])
    metric = CocoMetric(ground_truth_of(dataset))
    found = one(50, 50, 80, 70, 0.5, 0)
    metric.update(detections_of(found, [7]), targets_of(dataset, scale_xy=(0.5, 0.25)))
    metric.compute()
    assert metric.detections_json()[0]["bbox"] == [100.0, 200.0, 60.0, 80.0]


def test_an_image_counts_once() -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    metric = measure(dataset, perfect_detections(dataset))
    metric.update(detections_of({}, [7]), targets_of(dataset))
    metric.update(detections_of(perfect_detections(dataset), [7]), targets_of(dataset))
    assert metric.compute()["AP"] == APPROX_1
    assert len(metric.detections_json()) == 1


def test_order_of_images_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    dataset = random_dataset(rng)
    found = random_detections(rng, dataset)
    forward = numbers(measure(dataset, found))
    backward = CocoMetric(ground_truth_of(dataset))
    for target in reversed(targets_of(dataset).unpack()):
        backward.update(detections_of(found, [target.image_id]), pack_targets([target]))
    assert numbers(backward) == forward


def test_reset_forgets_detections_and_keeps_what_was_computed() -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    metric = measure(dataset, perfect_detections(dataset))
    metric.compute()
    metric.reset()
    assert metric.per_class() == {"cat": APPROX_1}
    assert metric.compute()["AP"] == 0.0


def test_copies_measure_too() -> None:
    """Averaging weights copies the module with its metric; spawned processes get it pickled."""
    dataset = a_dataset([[10, 20, 30, 40]])
    for engine in ENGINES:
        metric = measure(dataset, perfect_detections(dataset), engine)
        assert copy.deepcopy(metric).compute()["AP"] == APPROX_1
        assert pickle.loads(pickle.dumps(metric)).compute()["AP"] == APPROX_1


@pytest.mark.parametrize("row", [[1, 2, 3, NAN, 0.5], [1, 2, INF, 4, 0.5], [1, 2, 3, 4, NAN]], ids=str)
def test_refuses_what_is_not_finite(row: list[float]) -> None:
    with pytest.raises(ValueError, match=r"image 7 has box \[1\.0, 2\.0, .* with score"):
        measure(a_dataset([[10, 20, 30, 40]]), one(*row, 0))


@pytest.mark.parametrize("label", [-1, 1])
def test_refuses_labels_that_are_no_class(label: int) -> None:
    found = one(1, 2, 3, 4, 0.5, label)
    with pytest.raises(ValueError, match=rf"\[0, 1\).* image 7 has labels from {label} to {label}"):
        measure(a_dataset([[10, 20, 30, 40]]), found)


def test_refuses_images_of_another_split() -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    metric = CocoMetric(ground_truth_of(dataset))
    metric.update(detections_of({}, [99]), targets_of(dataset)._replace(image_ids=np.array([99])))
    with pytest.raises(ValueError, match=r"1 images are not in the ground truth: image ids \[99\]"):
        metric.compute()


def test_refuses_unknown_engines() -> None:
    with pytest.raises(ValueError, match="one of hotcoco, pycocotools; got 'torchmetrics'"):
        CocoMetric(ground_truth_of(a_dataset([])), engine="torchmetrics")  # pyright: ignore[reportArgumentType]


def test_says_nothing_before_compute() -> None:
    with pytest.raises(RuntimeError, match=r"call compute\(\) first"):
        CocoMetric(ground_truth_of(a_dataset([]))).per_class()


def _measure_share(rank: int, folder: Path) -> None:
    """One of two processes: rank 1 has fewer images, and one that rank 0 has too."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rng = np.random.default_rng(36)  # ten images
    dataset = random_dataset(rng)
    found = random_detections(rng, dataset)
    share = targets_of(dataset, rows=slice(-2) if rank == 0 else slice(-3, None))
    metric = CocoMetric(ground_truth_of(dataset))
    metric.update(detections_of(found, share.image_ids.tolist()), share)
    (folder / f"rank{rank}.json").write_text(json.dumps([numbers(metric), metric.detections_json()]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one(tmp_path: Path) -> None:
    spawn(_measure_share, args=(tmp_path,), nprocs=2)
    rng = np.random.default_rng(36)  # ten images
    dataset = random_dataset(rng)
    assert len(dataset["images"]) == 10
    metric = measure(dataset, random_detections(rng, dataset))
    alone = [numbers(metric), metric.detections_json()]
    assert alone[0]["AP"] > 0.1
    for rank in range(2):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == alone


@pytest.mark.gpu
def test_detections_on_the_gpu() -> None:
    dataset = a_dataset([[10, 20, 30, 40]])
    metric = CocoMetric(ground_truth_of(dataset))
    found = [Detections(*(tensor.cuda() for tensor in d)) for d in detections_of(perfect_detections(dataset), [7])]
    metric.update(found, targets_of(dataset))
    assert metric.compute()["AP"] == APPROX_1
