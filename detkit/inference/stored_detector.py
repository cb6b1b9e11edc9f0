"""What a training run leaves behind, ready to be rebuilt."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detkit import checkpoint
from detkit.data import Resize, Split, default_demo_root, find_layout, make_demo
from detkit.errors import CheckpointError, DataError, RecipeError
from detkit.inference import runtimes
from detkit.inference.exported_detector import ExportedModel, metadata_of_export
from detkit.inference.metadata import Notes, metadata_faults
from detkit.inference.module_limit import limit_module_count
from detkit.inference.old_formats import in_current_format
from detkit.recipe import TRUSTED, Plan, check, from_dict, instantiate
from detkit.recipe.checking import locate
from detkit.recipe.plan import PARTS, Config

SHOWN = 10
OF_INFERENCE = ("model.head.inference_layers", "model.head.inference_queries")  # the weights stay the same
# Keys that concern the machine that trained; here they are what the command line says, or left to Lightning.
OF_TRAINER = ("_target_", "_partial_", "precision")
LAYERS_PER_WEIGHT = 8  # at most: 3 where timm builds a network several times
NEEDED = {"data": "prepare", "loss": "__call__", "decode": "__call__", "metrics": "compute"}  # of the class of a part


class StoredDetector(NamedTuple):
    """Weights of a detector and all that is needed to build it around them."""

    weights: dict[str, Tensor]
    recipe: Notes  # of the run, as Plan.config
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]
    path: Path | None = None  # of the file, for messages
    noted: Mapping[str, Any] = MappingProxyType({})  # all that lies beside the weights

    @property
    def resize(self) -> Resize:
        """How images come to that size."""
        return self.recipe.get("data", {}).get("resize", "letterbox")

    def plan(self, overrides: Sequence[tuple[str, Any]], trusted: Sequence[str] = ()) -> Plan:
        """The run's recipe with these overrides, checked, to measure the detector; see ``on_split``.

        Args:
            overrides: (key, value); of the model only how much of a decoder runs may change.
            trusted: packages whose classes may be built, besides detkit's and those it stands on.

        Raises:
            RecipeError: if an override concerns the model, or the recipe does not stand.
            CheckpointError: if a part other than the model cannot be built.
        """
        fixed = sorted({key for key, _ in overrides if key.partition(".")[0] == "model" and key not in OF_INFERENCE})
        if fixed:
            raise RecipeError(f"{', '.join(fixed)}: the model is that of the checkpoint and cannot be changed")
        plan = self.model_plan(overrides, trusted)
        with self.building():
            _require_parts(plan)
        return plan

    def model_plan(self, overrides: Sequence[tuple[str, Any]], trusted: Sequence[str] = ()) -> Plan:
        """The run's recipe with these overrides, checked; nothing is built.

        Raises:
            RecipeError: if the recipe does not stand.
        """
        with self.building():
            plan = from_dict(self._for_here(), overrides, (*TRUSTED, *trusted))
            check(plan)
        return plan

    def build_model(self, trusted: Sequence[str] = (), node: Config | None = None) -> nn.Module:
        """The model with these weights, on the CPU.

        # Note [a model without memory]
        A file may say anything. So its model is first built on the meta device, which takes no memory, with no more
        layers than the weights can have, and is compared with the weights. These then become its parameters. Only a
        model with values that are not among the weights, such as a table of positions, is built a second time.
        A model of other trusted packages is built at once, because their constructors may need numbers.

        Args:
            trusted: packages that the caller named.
            node: the model of a plan; None: that of the stored recipe.

        Raises:
            RecipeError: if the recipe of the model does not stand.
            CheckpointError: if a name or a shape differs, with the first ten that do, or torch is not trusted to open
                a program of its own.
        """
        with self.building():
            return self._built(self.recipe["model"] if node is None else node, trusted)

    def _built(self, node: Config, trusted: Sequence[str]) -> nn.Module:
        """See Note [a model without memory]."""
        if self.path and "torch" not in trusted:
            runtimes.require_harmless(self.path)
        if any(trusted) or (self.path and runtimes.is_exported(self.path)):
            model = instantiate(node, trusted=(*TRUSTED, *trusted))
            self._compare(model)
            if isinstance(model, ExportedModel):
                model.may_run_code = "torch" in trusted
        else:
            with torch.device("meta"), limit_module_count(LAYERS_PER_WEIGHT * (len(self.weights) + 10)):
                model = instantiate(node)
            self._compare(model)
            if not _has_other_values(model):
                expected = model.state_dict()
                weights = {name: tensor.to(expected[name].dtype) for name, tensor in self.weights.items()}
                model.load_state_dict(weights, assign=True)
                return model
            model = instantiate(node)
        model.load_state_dict(self.weights)
        return model

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Name the file in what goes wrong while its recipe is read and built.

        Raises:
            RecipeError: that of the recipe.
            CheckpointError: in place of what constructors raise of values that they do not expect.
        """
        try:
            yield
        except (RecipeError, CheckpointError) as error:
            raise type(error)(f"{self.path}: {error}" if self.path else str(error)) from error
        except (OSError, *checkpoint.UNREADABLE) as error:
            said = checkpoint.error_line(error)
            raise CheckpointError(f"{self.path}: its recipe cannot be built: {said}") from error

    def _for_here(self) -> Notes:
        """The recipe without what concerns the machine that trained."""
        trainer = self.recipe.get("trainer")
        if not isinstance(trainer, dict):
            return self.recipe
        return {**self.recipe, "trainer": {key: value for key, value in trainer.items() if key in OF_TRAINER}}

    def _compare(self, detector: nn.Module) -> None:
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


def read_stored(path: str | Path) -> StoredDetector:
    """The detector that a run left.

    Args:
        path: the run's folder, its detector.safetensors, one of its checkpoints, or an exported detector: .onnx,
            .xml of OpenVINO, .pt2 or .torchscript.

    Raises:
        CheckpointError: if there is none, it cannot be read, or lacks what a detector is rebuilt from.
    """
    path = checkpoint.local_path(path)
    is_exported = runtimes.is_exported(path)
    weights, metadata = ({}, metadata_of_export(path)) if is_exported else checkpoint.read_trained(path)
    if not weights and not is_exported:  # a recipe that names another file has none of its own
        raise CheckpointError(f"{path}: holds no weights")
    if fault := next(metadata_faults(metadata), None):
        raise CheckpointError(f"{path}: {fault}")
    metadata = in_current_format(metadata)
    height, width = metadata["image_hw"]
    return StoredDetector(weights, metadata["recipe"], tuple(metadata["class_names"]), (height, width), path, metadata)


def on_split(plan: Plan, split: str) -> Plan:
    """The same plan, but its validation data is this split of the data set.

    Args:
        plan: of a stored detector.
        split: "train", "val" or "test".

    Raises:
        RecipeError: if the data module cannot choose a split.
        DataError: if the data has no such split.
    """
    data = plan.config["data"]
    if data["_target_"] == "detkit.data.CocoDataModule":
        return plan._replace(config={**plan.config, "data": _of_split(data, split)})
    if split != "val":
        raise RecipeError(f"split={split}: {data['_target_']} has no splits to choose from")
    return plan


def _has_other_values(model: nn.Module) -> bool:
    """Whether a model on the meta device has tensors, besides its weights, that a constructor computed."""
    weights = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    return any(isinstance(value, Tensor) and id(value) not in weights for value in _attributes(model))


def _attributes(model: nn.Module) -> Iterator[object]:
    """What the modules of a model hold: parameters, buffers, and plain attributes, with what lies in lists of them."""
    for value in (value for module in model.modules() for value in vars(module).values()):
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, list | tuple):
            yield from value
        else:
            yield value


def _require_parts(plan: Plan) -> None:
    """Each part is what it is called, and its constructor takes what it is given."""
    for part, node in ((part, plan.config[part]) for part in PARTS if part != "model"):
        target, needed = locate(node["_target_"], plan.trusted), NEEDED.get(part)
        bases = target.__mro__ if isinstance(target, type) else (target,)
        if needed and not any(needed in vars(base) for base in bases):
            raise RecipeError(f"{part}._target_: {node['_target_']} is none: it has no {needed}")
        instantiate(node, trusted=plan.trusted)


def _of_split(data: Notes, split: str) -> Notes:
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
