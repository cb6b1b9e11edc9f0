"""Load initial weights of detkit, another project or a library into a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from detkit.checkpoint import read_trained, written_by_detkit
from detkit.weights.align import align
from detkit.weights.files import read_state_dict
from detkit.weights.fit import LoadReport, fit
from detkit.weights.library import fetch, published_by
from detkit.weights.projects.rtdetr import convert_rtdetr, is_rtdetr
from detkit.weights.projects.transformers import class_names_in, is_transformers_folder, weights_in
from detkit.weights.projects.yolox import convert_yolox, is_yolox
from detkit.weights.source_weights import SourceWeights

# (whether the names are those of a project, conversion of its weights). Other names are aligned with the model's.
PROJECTS = ((is_yolox, convert_yolox), (is_rtdetr, convert_rtdetr))
FILES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")


def load_weights(
    source: str | Path | Mapping[str, Tensor],
    model: nn.Module,
    class_names: Sequence[str] | None = None,
    leave_out: str | Sequence[str] = (),
) -> LoadReport:
    """Load weights into a model, with the preprocessing that they expect.

    Args:
        source: a run of detkit (its folder, detector.safetensors or a checkpoint, also of a classifier); another
            project's .pth, .pt, .ckpt or .safetensors file of the whole model or its backbone; a folder that
            transformers saved; the name of weights that torchvision or timm publish for the backbone, ``DEFAULT`` for
            the first; or a state_dict.
        model: changed in place, unless an error is raised.
        class_names: class names of the model. Class rows are matched by name if the source has names too.
        leave_out: patterns of names in the file or the model that are not loaded.

    Raises:
        CheckpointError: if the source cannot be read, a tensor of the backbone is missing, no tensor matches, or a
            pattern matches nothing.
    """
    source_weights = _source_weights(source, model)
    return fit(source_weights, model, class_names, [leave_out] if isinstance(leave_out, str) else leave_out)


def _source_weights(source: str | Path | Mapping[str, Tensor], model: nn.Module) -> SourceWeights:
    if isinstance(source, Mapping):
        return _of_other_project("state_dict", source, model)
    path, published = Path(source).expanduser(), published_by(model)
    is_name = "/" not in str(source) and path.suffix not in FILES and not path.exists()
    if published is not None and is_name:
        return fetch(str(source), published, model.state_dict())
    if is_transformers_folder(path):
        class_names = class_names_in(path)
        weights = _of_other_project(str(source), read_state_dict(weights_in(path)), model)
        return weights._replace(class_names=class_names or weights.class_names)
    if written_by_detkit(path):
        weights, metadata = read_trained(path)
        return SourceWeights(str(source), weights, metadata.get("class_names"))
    return _of_other_project(str(source), read_state_dict(path), model)


def _of_other_project(source: str, weights: Mapping[str, Tensor], model: nn.Module) -> SourceWeights:
    for is_theirs, convert in PROJECTS:
        if is_theirs(weights):
            return convert(weights, source)
    published = published_by(model)
    preprocess = published.preprocess() if published else None
    return SourceWeights(source, align(weights, model.state_dict()), preprocess=preprocess, is_certain=False)
