"""What a training run leaves behind, ready to be rebuilt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from detkit import checkpoint
from detkit.data import Resize, Split, default_demo_root, find_layout, make_demo
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.recipe import TRUSTED, Plan, check, from_dict

SHOWN = 10
OF_INFERENCE = ("model.head.inference_layers", "model.head.inference_queries")  # the weights stay the same


class StoredDetector(NamedTuple):
    """Weights of a detector and all that is needed to build it around them."""

    weights: dict[str, Tensor]
    recipe: dict[str, Any]  # of the run, as Plan.config
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]

    @property
    def resize(self) -> Resize:
        """How images come to that size."""
        return self.recipe.get("data", {}).get("resize", "letterbox")

    def plan(self, overrides: Sequence[tuple[str, Any]], split: str = "val", trusted: Sequence[str] = ()) -> Plan:
        """The run's recipe with these overrides, checked, to measure the detector on one split.

        Args:
            overrides: (key, value); of the model only how much of a decoder runs may change.
            split: "train", "val" or "test".
            trusted: packages whose classes may be built, besides detkit's and those it stands on.

        Raises:
            RecipeError: if an override concerns the model, or the recipe does not stand.
            DataError: if the data has no such split.
        """
        fixed = sorted({key for key, _ in overrides if key.partition(".")[0] == "model" and key not in OF_INFERENCE})
        if fixed:
            raise RecipeError(f"{', '.join(fixed)}: the model is that of the checkpoint and cannot be changed")
        plan = from_dict(self.recipe, overrides, (*TRUSTED, *trusted))
        data = plan.config["data"]
        if data["_target_"] == "detkit.data.CocoDataModule":
            data = _of_split(data, split)
        elif split != "val":
            raise RecipeError(f"split={split}: {data['_target_']} has no splits to choose from")
        plan = plan._replace(config={**plan.config, "data": data})
        check(plan)
        return plan

    def load_into(self, detector: nn.Module) -> None:
        """Give the detector these weights.

        Raises:
            CheckpointError: if a name or a shape differs, with the first ten that do.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items()}
        stored = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        faults = [
            f"{name}: {stored.get(name, 'absent')} in the file, {expected.get(name, 'absent')} in the detector"
            for name in sorted(expected.keys() | stored.keys())
            if stored.get(name) != expected.get(name)
        ]
        if faults:
            more = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
            listed = "".join(f"\n  {line}" for line in [*faults[:SHOWN], *more])
            raise CheckpointError(f"{len(faults)} weights do not fit the detector of the stored recipe:{listed}")
        detector.load_state_dict(self.weights)


def read_stored(path: str | Path) -> StoredDetector:
    """The detector that a run left.

    Args:
        path: the run's folder, its detector.safetensors or one of its checkpoints.

    Raises:
        CheckpointError: if there is none, it cannot be read, or lacks what a detector is rebuilt from.
    """
    path = Path(path).expanduser()
    weights, metadata = checkpoint.read_trained(path)
    absent = [key for key in ("recipe", "class_names", "image_hw") if key not in metadata]
    if absent:
        raise CheckpointError(f"{path}: has no {', '.join(absent)} inside, which a detector is rebuilt from")
    height, width = metadata["image_hw"]
    return StoredDetector(weights, metadata["recipe"], tuple(metadata["class_names"]), (height, width))


def _of_split(data: dict[str, Any], split: str) -> dict[str, Any]:
    """CocoDataModule's arguments so that it validates on this split and reads no other.

    To check the training split of COCO takes minutes, which an evaluation need not wait for.
    """
    root, annotations, images = (data.get(key) for key in ("root", f"{split}_annotations", f"{split}_images"))
    if annotations and images:
        folder = Path(root or "").expanduser()
        found = {split: Split(folder / Path(annotations).expanduser(), folder / Path(images).expanduser())}
    else:
        found = find_layout(root or make_demo(default_demo_root()))
    if split not in found:
        raise DataError(f"there is no {split} split under {root or 'the demo set'}; there is {', '.join(found)}")
    annotations, images = (str(path.absolute()) for path in found[split])
    named = {"val_annotations": annotations, "val_images": images, "train_annotations": None, "train_images": None}
    return {**data, "root": None, **named}
