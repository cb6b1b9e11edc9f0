"""Train, evaluate and export object detectors on COCO-format data.

``detkit.load("detector.safetensors")`` gives a trained detector.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.inference import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import torch when ``load`` is asked for and not before: the command line answers typing errors at once."""
    if name == "load":
        from detkit.inference import load

        return load
    raise AttributeError(f"module 'detkit' has no attribute {name!r}")
