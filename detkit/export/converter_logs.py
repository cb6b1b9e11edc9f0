"""What converters say about themselves and change in passing."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

LOUD = ("onnxscript", "onnx_ir", "torch.onnx")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No advice and no warnings of other libraries in here; loggers are as before afterwards.

    ONNX Runtime's quantizer logs to the root logger and so sets it up; OpenVINO's converter sets its level.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    loggers = [root, *map(logging.getLogger, LOUD)]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    root.addHandler(silent)  # without any, the first record would set it up
    root.addFilter(_nothing)
    for logger in loggers[1:]:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_nothing)
        root.handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _nothing(_: logging.LogRecord) -> bool:
    return False
