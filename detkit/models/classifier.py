"""A network that predicts the class of an image."""

from detkit.models.composition import Composition


class Classifier(Composition):
    """Backbone, a pooling neck and a linear head; see ``Composition`` for its arguments.

    Its output is (B, C) logits, whose softmax is the probability of each class. Its backbone is that of a
    detector under the same names, so a detector can start from a trained classifier's weights.
    """
