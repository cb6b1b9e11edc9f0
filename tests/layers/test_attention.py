"""Transformer layers against torch's own, and what a mask hides."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from detkit.layers.attention import FLOAT16_MAX, DecoderLayer, EncoderLayer

CHANNELS, HEADS = 8, 2
SIZES_HW = [(4, 3), (2, 2)]


def decoder_layer() -> DecoderLayer:
    """With random offsets and weights of the points, which start as zero."""
    layer = DecoderLayer(CHANNELS, HEADS, [2, 3], 16, "bilinear").double()
    for part in (layer.cross_attention.offsets, layer.cross_attention.weights):
        nn.init.normal_(part.weight, std=0.5)
    return layer


def decoder_inputs(queries: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, positions, boxes and memory of two images."""
    contents, positions = torch.randn(2, 2, queries, CHANNELS).double()
    return contents, positions, torch.rand(2, queries, 4).double(), torch.randn(2, 16, CHANNELS).double()


def test_encoder_layer_without_positions_is_torchs() -> None:
    ours = EncoderLayer(CHANNELS, HEADS, 16).double()
    theirs = nn.TransformerEncoderLayer(
        CHANNELS, HEADS, 16, dropout=0.0, activation="gelu", batch_first=True, dtype=torch.float64
    )
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    weights = list(ours.state_dict().items())
    renamed = {
        name.replace("attention.", "self_attn.")
        .replace("attention_norm.", "norm1.")
        .replace("feedforward.0.", "linear1.")
        .replace("feedforward.2.", "linear2.")
        .replace("feedforward_norm.", "norm2."): value
        for name, value in weights
    }
    theirs.load_state_dict(renamed)
    tokens = torch.randn(2, 6, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(ours(tokens, torch.zeros(6, CHANNELS)), theirs(tokens))


def test_encoder_layer_places_queries_and_keys_alone() -> None:
    """By the formula of attention, one head at a time: values are the tokens without positions."""
    layer = EncoderLayer(CHANNELS, HEADS, 16).double()
    tokens, positions = torch.randn(2, 6, CHANNELS).double(), torch.randn(6, CHANNELS).double()
    weight, bias = layer.attention.in_proj_weight, layer.attention.in_proj_bias
    placed = tokens + positions
    sources = zip((placed, placed, tokens), weight.chunk(3), bias.chunk(3), strict=True)
    q, k, v = (source @ part.T + part_bias for source, part, part_bias in sources)
    heads = [slice(0, 4), slice(4, 8)]
    scores = [(q[..., head] @ k[..., head].transpose(1, 2) / 4**0.5).softmax(-1) for head in heads]
    read = torch.cat([score @ v[..., head] for score, head in zip(scores, heads, strict=True)], dim=-1)
    attended = layer.attention_norm(tokens + layer.attention.out_proj(read))
    expected = layer.feedforward_norm(attended + layer.feedforward(attended))
    torch.testing.assert_close(layer(tokens, positions), expected)


def test_decoder_layer_by_its_parts() -> None:
    """Positions take part in both attentions' queries and in the first one's keys, never in values or sums."""
    layer = decoder_layer()
    queries, positions, boxes, memory = decoder_inputs(5)
    placed = queries + positions
    x = layer.self_attention_norm(queries + layer.self_attention(placed, placed, queries)[0])
    x = layer.cross_attention_norm(x + layer.cross_attention(x + positions, boxes, memory, SIZES_HW))
    expected = layer.feedforward_norm(x + layer.feedforward(x))
    torch.testing.assert_close(layer(queries, positions, boxes, memory, SIZES_HW, None), expected)


def test_blocked_queries_do_not_influence_others() -> None:
    """What the last two say is hidden from the first three, and not the other way round."""
    layer = decoder_layer()
    queries, positions, boxes, memory = decoder_inputs(5)
    blocked = torch.zeros(5, 5, dtype=torch.bool)
    blocked[:3, 3:] = True
    first, last = torch.arange(5) < 3, torch.arange(5) >= 3
    before = layer(queries, positions, boxes, memory, SIZES_HW, blocked)
    for changed, is_seen_by_first in ((last, False), (first, True)):
        other = torch.where(changed[:, None], queries.flip(-1), queries)
        moved = (layer(other, positions, boxes, memory, SIZES_HW, blocked) - before).abs().amax((0, 2)) > 1e-12
        assert moved[first].all() == is_seen_by_first and moved[first].any() == is_seen_by_first
        assert moved[last].all()
    alone = layer(queries[:, :3], positions[:, :3], boxes[:, :3], memory, SIZES_HW, None)
    torch.testing.assert_close(before[:, :3], alone)


LAYERS = pytest.mark.parametrize("build", [lambda: EncoderLayer(CHANNELS, HEADS, 16), decoder_layer])


def with_last_bias(layer: EncoderLayer | DecoderLayer, dtype: torch.dtype, bias: list[float]) -> Tensor:
    """What comes out, where this is added last before the norm."""
    layer = layer.to(dtype)
    with torch.no_grad():
        layer.get_parameter("feedforward.2.weight").zero_()
        layer.get_parameter("feedforward.2.bias").copy_(torch.tensor(bias))
    queries, positions, boxes, memory = (value.to(dtype) for value in decoder_inputs(3))
    if isinstance(layer, EncoderLayer):
        return layer(queries, positions[0])
    return layer(queries, positions, boxes.float(), memory, SIZES_HW, None)


def is_norm_of_largest(out: Tensor) -> None:
    by_hand = torch.tensor([FLOAT16_MAX, -FLOAT16_MAX, 0, 0, 0, 0, 0, 0])
    expected = (by_hand / by_hand.std(correction=0)).to(out.dtype).expand_as(out)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_float16_cannot_hold_is_held_at_its_largest_number(
    build: Callable[[], EncoderLayer | DecoderLayer], dtype: torch.dtype
) -> None:
    """Infinity of the linear layers would come out of the norm as NaN."""
    is_norm_of_largest(with_last_bias(build(), dtype, [torch.inf, -torch.inf, 0, 0, 0, 0, 0, 0]))


@LAYERS
def test_a_sum_beyond_float16_is_finite_under_autocast(build: Callable[[], EncoderLayer | DecoderLayer]) -> None:
    """The linear layer gives infinity in float16, and it is added to float32."""
    with torch.autocast("cpu", torch.float16):
        is_norm_of_largest(with_last_bias(build(), torch.float32, [7e4, -7e4, 0, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    "build", [lambda: EncoderLayer(10, 4), lambda: DecoderLayer(10, 4, [4], feedforward=16, sampling="bilinear")]
)
def test_heads_share_the_channels(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of num_heads; got 10 and 4"):
        build()
