"""Train, evaluate and export object detectors on COCO-format data.

``detkit.load("detector.safetensors")`` gives a trained detector.
"""

from typing import TYPE_CHECKING

from detkit.lazy import lazy_exports

if TYPE_CHECKING:
    from detkit.inference import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"

# The command line answers typing errors at once, because torch is imported no sooner than a name is used.
__getattr__, __dir__ = lazy_exports(__name__, {"load": "detkit.inference"})
