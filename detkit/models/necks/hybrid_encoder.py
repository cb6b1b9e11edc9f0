"""The neck of RT-DETR: attention inside the coarsest level, convolutions across levels."""

from functools import partial

from torch import Tensor, nn

from detkit.layers.attention import EncoderLayer
from detkit.layers.conv import ConvNormAct, use_norm
from detkit.layers.rep import CSPRep
from detkit.models.necks.pan import PAN
from detkit.ops.positions import sine_positions
from detkit.types import FeatureSpec


class HybridEncoder(nn.Module):
    """All levels to one width, attention among the cells of the coarsest (AIFI), then PAN with rep blocks (CCFM).

    Args:
        in_specs: of the backbone, finest level first, each twice the stride of the one before.
        channels: of every output level, a multiple of 4 and of num_heads.
        num_heads: of the attention.
        feedforward: channels inside the attention's layers.
        num_layers: of attention; 0 leaves it out.
        depth: rep blocks of each fusion block.
        expansion: channels inside the fusion blocks are those of the output times this.

    Raises:
        ValueError: if strides do not double from level to level, channels are no multiple of 4 and of num_heads,
            or the expansion leaves no channel.

    Source: Zhao et al., RT-DETR, 2023, §4.2, fig. 4. https://arxiv.org/abs/2304.08069
        Differs from its code in: cells are numbered row by row on maps that are not square too, and any
        size of image has positions of its own.
    """

    def __init__(
        self,
        in_specs: list[FeatureSpec],
        channels: int = 256,
        num_heads: int = 8,
        feedforward: int = 1024,
        num_layers: int = 1,
        depth: int = 3,
        expansion: float = 1.0,
    ) -> None:
        super().__init__()
        if channels % 4:  # as positions have
            raise ValueError(f"channels must be a multiple of 4; got {channels}")
        self.project = nn.ModuleList(ConvNormAct(spec.channels, channels, 1, activation=False) for spec in in_specs)
        self.attention = nn.ModuleList(EncoderLayer(channels, num_heads, feedforward) for _ in range(num_layers))
        projected = [spec._replace(channels=channels) for spec in in_specs]
        self.fusion = PAN(projected, block=partial(CSPRep, depth=depth, expansion=expansion))
        self.out_specs = self.fusion.out_specs
        use_norm(self, eps=1e-5, momentum=0.1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Backbone features to one map per entry of ``out_specs``."""
        maps = [project(feature) for project, feature in zip(self.project, features, strict=True)]
        maps[-1] = self._attend(maps[-1])
        return self.fusion(maps)

    def _attend(self, coarsest: Tensor) -> Tensor:
        _, channels, height, width = coarsest.shape
        positions = sine_positions((height, width), channels, coarsest)
        tokens = coarsest.flatten(2).transpose(1, 2)
        for layer in self.attention:
            tokens = layer(tokens, positions)
        return tokens.transpose(1, 2).reshape(coarsest.shape)
