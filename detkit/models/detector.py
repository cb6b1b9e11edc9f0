"""A network that finds objects."""

from detkit.models.composition import Composition


class Detector(Composition):
    """Backbone, neck and a detection head; see ``Composition`` for its arguments."""
