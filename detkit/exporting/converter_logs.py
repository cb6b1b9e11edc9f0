"""Silence for the log messages and warnings of converters."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

CONVERTER_LOGGERS = ("onnxscript", "onnx_ir", "torch.onnx")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress warnings and log messages of converters, and restore all loggers afterwards.

    The root logger is included: ONNX Runtime's quantizer configures it by logging to it, and OpenVINO's converter
    changes its level.
    """
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, CONVERTER_LOGGERS)]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    root.addHandler(logging.NullHandler())  # a root logger without handlers would be configured by the first record
    root.addFilter(_reject)
    for logger in loggers[1:]:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_reject)
        root.handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reject(_: logging.LogRecord) -> bool:
    return False
