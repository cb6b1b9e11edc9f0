"""Feature maps to one vector for the whole image."""

from torch import Tensor, nn

from detkit.types import FeatureSpec


class GlobalAveragePool(nn.Module):
    """The mean of the coarsest map over all its cells; the neck of a classifier.

    Args:
        in_specs: of the backbone; finer levels are not used.

    Raises:
        ValueError: if a map has no cells.

    Source: Lin et al., Network In Network, 2014, §3.2. https://arxiv.org/abs/1312.4400
    """

    def __init__(self, in_specs: list[FeatureSpec]) -> None:
        super().__init__()
        strides = [spec.stride for spec in in_specs]
        if not all(strides):
            raise ValueError(f"GlobalAveragePool needs maps of a stride above 0; got strides {strides}")
        self.coarsest = strides.index(max(strides))
        self.out_specs = [FeatureSpec(in_specs[self.coarsest].channels, 0, "pooled")]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """One (B, channels, h, w) per level to [(B, channels)]."""
        return [features[self.coarsest].mean((2, 3))]
