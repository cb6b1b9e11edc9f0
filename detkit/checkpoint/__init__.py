"""The one writer and the one reader of training checkpoints and detector files."""

from detkit.checkpoint.detector import read_detector, write_detector
from detkit.checkpoint.file import UNREADABLE, PlainData, first_line, free_bytes, local, readable, storing
from detkit.checkpoint.plain import load_plain
from detkit.checkpoint.trained import DETECTOR_FILE, is_own, read_trained
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
    "first_line",
    "free_bytes",
    "is_own",
    "latest_checkpoint",
    "load_plain",
    "local",
    "manifests_in",
    "read_checkpoint",
    "read_detector",
    "read_manifest",
    "read_trained",
    "readable",
    "remove_checkpoint",
    "remove_leftovers",
    "remove_manifest",
    "storing",
    "write_checkpoint",
    "write_detector",
]
