"""Write and read training checkpoints and detector files."""

from detkit.checkpoint.detector import read_detector, write_detector
from detkit.checkpoint.file import (
    UNREADABLE,
    PlainData,
    error_line,
    format_bytes,
    free_bytes,
    local_path,
    storage_errors,
)
from detkit.checkpoint.plain import load_plain
from detkit.checkpoint.trained import DETECTOR_FILE, read_trained, written_by_detkit
from detkit.checkpoint.training import (
    CheckpointManifest,
    CheckpointState,
    checkpoint_path,
    latest_checkpoint,
    manifests_in,
    read_checkpoint,
    read_manifest,
    remove_checkpoint,
    remove_leftovers,
    remove_manifest,
    write_checkpoint,
)

__all__ = [
    "DETECTOR_FILE",
    "UNREADABLE",
    "CheckpointManifest",
    "CheckpointState",
    "PlainData",
    "checkpoint_path",
    "error_line",
    "format_bytes",
    "free_bytes",
    "latest_checkpoint",
    "load_plain",
    "local_path",
    "manifests_in",
    "read_checkpoint",
    "read_detector",
    "read_manifest",
    "read_trained",
    "remove_checkpoint",
    "remove_leftovers",
    "remove_manifest",
    "storage_errors",
    "write_checkpoint",
    "write_detector",
    "written_by_detkit",
]
