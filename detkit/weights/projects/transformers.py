"""Read folders that transformers saved: config.json and the weights."""

import json
from pathlib import Path

from detkit.checkpoint import UNREADABLE
from detkit.errors import CheckpointError
from detkit.files import open_regular
from detkit.weights.projects.coco_names import COCO_NAMES

CONFIG = "config.json"
MAX_CONFIG_BYTES = 2**24
FILES = ("model.safetensors", "pytorch_model.bin")
UNNAMED = "LABEL_0"  # the first class of a model without class names


def is_transformers_folder(path: Path) -> bool:
    """Whether the folder has a config.json."""
    return (path / CONFIG).is_file()


def weights_in(folder: Path) -> Path:
    """The file of weights.

    Raises:
        CheckpointError: if there is none, or there are several.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: contains {CONFIG}, but none of {', '.join(FILES)}")


def class_names_in(folder: Path) -> tuple[str, ...] | None:
    """The names of the class rows; None if the config has none.

    Published models spell six of COCO's names differently ("sofa" for "couch"), so names that mostly equal COCO's, each
    at its position, become COCO's.

    Raises:
        CheckpointError: if the config cannot be read.
    """
    path = folder / CONFIG
    try:
        with open_regular(path) as file:
            config = json.loads(file.read(MAX_CONFIG_BYTES).decode())
        by_label = {int(label): str(name) for label, name in config["id2label"].items()}
    except KeyError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise CheckpointError(f"{path}: is damaged, or no config of a model ({type(error).__name__})") from error
    names = tuple(by_label[label] for label in sorted(by_label))
    if not names or names[0] == UNNAMED:
        return None
    equal = sum(name == coco_name for name, coco_name in zip(names, COCO_NAMES, strict=False))
    return COCO_NAMES if len(names) == len(COCO_NAMES) and 2 * equal > len(names) else names
