"""Decoders: raw predictions to final detections or classes."""

from detkit.decode.classes import ClassDecode
from detkit.decode.detr import DETRDecode
from detkit.decode.yolo import YOLODecode

__all__ = ["ClassDecode", "DETRDecode", "YOLODecode"]
