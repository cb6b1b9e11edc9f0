"""A linear layer that predicts the class of an image."""

from torch import Tensor, nn

from detkit.types import FeatureSpec


class LinearHead(nn.Module):
    """One vector for the image to the logits of its class.

    Args:
        in_specs: of the neck, e.g. GlobalAveragePool: a single one with stride 0.
        num_classes: C.
        dropout: fraction of the vector's entries that training leaves out.

    Raises:
        ValueError: if there is anything but one vector to read, num_classes is less than 1, or
            dropout lies outside [0, 1).
    """

    def __init__(self, in_specs: list[FeatureSpec], num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        strides = [spec.stride for spec in in_specs]
        if strides != [0]:
            raise ValueError(
                "LinearHead needs one vector for the image, which is stride 0; "
                f"got maps of strides {strides}: put GlobalAveragePool before it"
            )
        if num_classes < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"at least one class, and dropout in [0, 1); got num_classes={num_classes}, dropout={dropout}"
            )
        self.num_classes = num_classes
        self.dropout = nn.Dropout(dropout)
        self.class_logits = nn.Linear(in_specs[0].channels, num_classes)  # the name by which rows are transferred

    def forward(self, features: list[Tensor]) -> Tensor:
        """[(B, channels)] to (B, C) logits."""
        (vectors,) = features
        return self.class_logits(self.dropout(vectors))
