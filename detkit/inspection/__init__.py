"""A look at any model: what its parts cost, what its weights are like, what its feature maps show.

Torch is not imported before ``look`` is called: a mistyped command is answered at once.
"""

from detkit.inspection.look import look
from detkit.inspection.options import Options, read_options

__all__ = ["Options", "look", "read_options"]
