"""Train, evaluate and export object detectors on COCO-format data.

Example::

    run = detkit.train("yolo_csp_n", {"data.root": "my_data", "trainer.max_epochs": 40})
    detector = detkit.load(run.folder)
    found = detector.predict("photo.jpg")
"""

from typing import TYPE_CHECKING

from detkit.lazy import lazy_exports

if TYPE_CHECKING:
    from detkit.api import evaluate, export, train
    from detkit.inference import load

__all__ = ["__version__", "evaluate", "export", "load", "train"]
__version__ = "0.1.0"

# The command line answers typing errors at once, because torch is imported no sooner than a name is used.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {"evaluate": "detkit.api", "export": "detkit.api", "load": "detkit.inference", "train": "detkit.api"},
)
