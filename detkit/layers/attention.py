"""Transformer layers: attention among the cells of a map, and of queries to each other and to feature maps."""

from torch import Tensor, nn

from detkit.layers.deformable import DeformableAttention, Sampling, refuse_uneven_heads

FLOAT16_MAX = 65504.0  # larger values become infinity in float16, and a norm turns infinity into NaN


class EncoderLayer(nn.Module):
    """Every token attends to every token, then goes through two linear layers; norms come last.

    Args:
        channels: of the tokens.
        num_heads: of the attention.
        feedforward: channels between the linear layers.

    Raises:
        ValueError: if channels are no multiple of the heads.

    Source: Vaswani et al., Attention Is All You Need, 2017, fig. 1 left. https://arxiv.org/abs/1706.03762
        Differs from the paper in: GELU; positions are added to queries and keys alone (DETR).
    """

    def __init__(self, channels: int, num_heads: int = 8, feedforward: int = 1024) -> None:
        super().__init__()
        refuse_uneven_heads(channels, num_heads)
        self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.feedforward = nn.Sequential(nn.Linear(channels, feedforward), nn.GELU(), nn.Linear(feedforward, channels))
        self.feedforward_norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, tokens, channels) and their (tokens, channels) positions to the tokens' shape."""
        placed = tokens + positions
        attended = self.attention(placed, placed, tokens, need_weights=False)[0]
        tokens = self.attention_norm(tokens + attended)
        updated = tokens + self.feedforward(tokens)
        return self.feedforward_norm(updated.clamp(-FLOAT16_MAX, FLOAT16_MAX))


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to a few points of the feature maps around their boxes.

    Args:
        channels: of queries and maps.
        num_heads: of both attentions.
        num_points: sampled per level and head, one number for each level.
        feedforward: channels between the linear layers.
        sampling: see ``DeformableAttention``.

    Raises:
        ValueError: as ``DeformableAttention``.

    Source: Zhu et al., Deformable DETR, 2020, §4. https://arxiv.org/abs/2010.04159
    """

    def __init__(
        self, channels: int, num_heads: int, num_points: list[int], feedforward: int, sampling: Sampling
    ) -> None:
        super().__init__()
        refuse_uneven_heads(channels, num_heads)
        self.self_attention = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.self_attention_norm = nn.LayerNorm(channels)
        self.cross_attention = DeformableAttention(channels, num_heads, num_points, sampling)
        self.cross_attention_norm = nn.LayerNorm(channels)
        self.feedforward = nn.Sequential(nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels))
        self.feedforward_norm = nn.LayerNorm(channels)

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        boxes_cxcywh_norm: Tensor,
        memory: Tensor,
        sizes_hw: list[tuple[int, int]],
        blocked: Tensor | None,
    ) -> Tensor:
        """One layer.

        Args:
            queries: (B, Q, channels).
            positions: (B, Q, channels), added where queries look for something.
            boxes_cxcywh_norm: (B, Q, 4) around which they look.
            memory: (B, cells of all levels, channels) to look at.
            sizes_hw: (height, width) of each level.
            blocked: (Q, Q) True where a query (row) must not see another (column).

        Returns:
            (B, Q, channels).
        """
        placed = queries + positions
        attended = self.self_attention(placed, placed, queries, attn_mask=blocked, need_weights=False)[0]
        queries = self.self_attention_norm(queries + attended)
        queries = self.cross_attention_norm(
            queries + self.cross_attention(queries + positions, boxes_cxcywh_norm, memory, sizes_hw)
        )
        updated = queries + self.feedforward(queries)
        return self.feedforward_norm(updated.clamp(-FLOAT16_MAX, FLOAT16_MAX))
