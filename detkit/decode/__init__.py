"""Decoders: raw predictions to final detections."""

from detkit.decode.yolo import YOLODecode

__all__ = ["YOLODecode"]
