"""Start from the weights of a trained detector, also one of other classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from detkit.checkpoint import read_checkpoint, read_detector
from detkit.errors import CheckpointError
from detkit.training.run_folder import RunFolder

CLASS_LAYER = "class_logits"  # layers of this name have a row for each class, in every head
SHOWN = 10


def start_from(path: Path, model: nn.Module, class_names: Sequence[str]) -> str:
    """Give a model the weights that detkit left in a run folder, detector file or checkpoint.

    Rows of classes go by name: those that both have are taken, new classes begin untrained.

    Args:
        path: of the run's folder, its detector.safetensors or one of its checkpoints.
        model: takes what fits it.
        class_names: of the model, in the order of its labels.

    Returns:
        What was taken and what was not, for people.

    Raises:
        CheckpointError: if the file cannot be read, or nothing in it fits.
    """
    weights, names = _read(path)
    own, taken, misfits = model.state_dict(), 0, []
    for name, tensor in own.items():
        given = weights.get(name)
        if given is not None and CLASS_LAYER in name and list(names) != list(class_names):
            given = _rows_by_name(tensor, given, names, class_names)
        if given is not None and given.shape == tensor.shape:
            tensor.copy_(given)  # state_dict shares memory with the model
            taken += 1
        else:
            shape = "absent" if given is None else tuple(given.shape)
            misfits.append(f"{name}: {shape} in the file, {tuple(tensor.shape)} in the model")
    if not taken:
        raise CheckpointError(f"weights={path}: none of its {len(weights)} tensors fits the model; is it another one?")
    lines = [f"weights: {taken} of {len(own)} tensors from {path}"]
    if list(names) != list(class_names):
        known = [name for name in class_names if name in names]
        lines.append(f"classes that it knows: {len(known)} of {len(class_names)} ({', '.join(known[:SHOWN]) or '-'})")
    if misfits:
        more = [f"... and {len(misfits) - SHOWN} more"] if len(misfits) > SHOWN else []
        lines += [f"{len(misfits)} begin untrained:", *(f"  {line}" for line in [*misfits[:SHOWN], *more])]
    return "\n".join(lines)


def _read(path: Path) -> tuple[Mapping[str, Tensor], Sequence[str]]:
    path = path.expanduser()
    if path.suffix == ".ckpt":
        state = read_checkpoint(path)
        prefix = "model."
        weights = {name.removeprefix(prefix): t for name, t in state["state_dict"].items() if name.startswith(prefix)}
        return weights, state["detkit"]["class_names"]
    weights, metadata = read_detector(RunFolder(path).detector if path.is_dir() else path)
    return weights, metadata["class_names"]


def _rows_by_name(own: Tensor, given: Tensor, given_names: Sequence[str], own_names: Sequence[str]) -> Tensor:
    """The model's own tensor with the rows of the classes that both know."""
    if given.shape[1:] != own.shape[1:] or (len(given), len(own)) != (len(given_names), len(own_names)):
        return given  # which does not fit, and is said so
    rows = {name: row for row, name in enumerate(given_names)}
    mixed = own.clone()
    for row, name in enumerate(own_names):
        if name in rows:
            mixed[row] = given[rows[name]]
    return mixed
