"""Load weights to start from, of detkit, another project or a library."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from detkit.checkpoint import is_own, read_trained
from detkit.weights.align import align
from detkit.weights.files import read_state_dict
from detkit.weights.fit import LoadReport, fit
from detkit.weights.library import fetch, published_by
from detkit.weights.projects.rtdetr import is_rtdetr, of_rtdetr
from detkit.weights.projects.transformers import class_names_in, is_transformers_folder, weights_in
from detkit.weights.projects.yolox import is_yolox, of_yolox
from detkit.weights.source_weights import SourceWeights

# Test of the names of a project, and conversion of its weights. All other names are aligned with the model's.
PROJECTS = ((is_yolox, of_yolox), (is_rtdetr, of_rtdetr))
FILES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")


def load_weights(
    source: str | Path | Mapping[str, Tensor],
    model: nn.Module,
    class_names: Sequence[str] | None = None,
    leave_out: str | Sequence[str] = (),
) -> LoadReport:
    """Load weights into a model, with the preprocessing that they expect.

    Args:
        source: what a run of detkit left (its folder, detector.safetensors or a checkpoint, also of a
            classifier); another project's .pth, .pt, .ckpt or .safetensors file, of the whole model or
            of its backbone; a folder that transformers saved; the name of weights that torchvision or timm
            publish for the backbone, ``DEFAULT`` for their own choice; or a state_dict.
        model: changed in place, unless an error is raised.
        class_names: of the model: rows of classes go by name, where the source has names as well.
        leave_out: names with wildcards, the file's or the model's, that are not loaded.

    Raises:
        CheckpointError: if the source cannot be read, does not fill the backbone, or nothing of it fits; if a name to
            leave out matches nothing.
    """
    source_weights = _source_weights(source, model)
    return fit(source_weights, model, class_names, [leave_out] if isinstance(leave_out, str) else leave_out)


def _source_weights(source: str | Path | Mapping[str, Tensor], model: nn.Module) -> SourceWeights:
    if isinstance(source, Mapping):
        return _foreign("state_dict", source, model)
    path, published = Path(source).expanduser(), published_by(model)
    is_name = "/" not in str(source) and path.suffix not in FILES and not path.exists()
    if published is not None and is_name:
        return fetch(str(source), published, model.state_dict())
    if is_transformers_folder(path):
        class_names = class_names_in(path)
        weights = _foreign(str(source), read_state_dict(weights_in(path)), model)
        return weights._replace(class_names=class_names or weights.class_names)
    if is_own(path):
        weights, metadata = read_trained(path)
        return SourceWeights(str(source), weights, metadata.get("class_names"))
    return _foreign(str(source), read_state_dict(path), model)


def _foreign(source: str, weights: Mapping[str, Tensor], model: nn.Module) -> SourceWeights:
    for is_theirs, of_theirs in PROJECTS:
        if is_theirs(weights):
            return of_theirs(weights, source)
    published = published_by(model)
    preprocess = published.preprocess() if published else None
    return SourceWeights(source, align(weights, model.state_dict()), preprocess=preprocess, is_certain=False)
