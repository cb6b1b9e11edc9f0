"""Costs of modules: closed forms, torchvision's own counts, figures from the literature."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from detkit import recipe
from detkit.errors import RecipeError
from detkit.inspection.measure import Part, measure_parts
from tests.inspection.nets import Net

# parameters, FLOPs, activations by hand, of a 16 x 24 image: maps of 8 x 12 and 4 x 6
FINE = (4 * 3 * 9 + 4, 2 * 3 * 9 * 4 * 8 * 12, 4 * 8 * 12)
COARSE = (8 * 2 * 9 + 8, 2 * 2 * 9 * 8 * 4 * 6, 8 * 4 * 6)  # groups=2: each output sees 2 of the 4 channels
HEAD = (5 * 8, 2 * 5 * 8, 5)
NECK = (0, 0, 0)


def costs(part: Part) -> tuple[int, int, int]:
    return part.parameters, part.flops, part.activations


def total(*rows: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))


def test_closed_forms_of_convolutions_and_of_a_product_that_no_module_makes() -> None:
    anatomy = measure_parts(Net(), (16, 24))
    assert {part.name: costs(part) for part in anatomy.parts} == {
        "backbone": total(FINE, COARSE),
        "backbone.fine": FINE,
        "backbone.coarse": COARSE,
        "neck": NECK,
        "head": HEAD,
    }
    assert costs(anatomy.whole) == total(FINE, COARSE, HEAD)
    assert [part.depth for part in anatomy.parts] == [0, 1, 1, 0, 0]


def test_outputs_have_shapes_and_specs() -> None:
    parts = {part.name: part for part in measure_parts(Net(), (16, 24), depth=0).parts}
    assert set(parts) == {"backbone", "neck", "head"}
    assert [(output.shape, output.spec.name) for output in parts["backbone"].outputs if output.spec] == [
        ((4, 8, 12), "fine"),
        ((8, 4, 6), "coarse"),
    ]
    (pooled,), (logits,) = parts["neck"].outputs, parts["head"].outputs
    assert pooled.shape == (8,) and pooled.spec and pooled.spec.stride == 0
    assert logits.shape == (5,) and logits.spec is None


def test_frozen_parameters_are_not_trainable() -> None:
    model = Net()
    model.backbone.fine.requires_grad_(False)
    trainable = {part.name: part.trainable for part in measure_parts(model, (16, 16)).parts}
    assert trainable["backbone.fine"] == 0 and trainable["backbone"] == COARSE[0]


class Attention(nn.Module):
    """Tokens of 6 channels from 4 x 4 cells, attention of 2 heads: in torch's fused ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Conv2d(3, 6, 4, stride=4)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        if self.kind == "module":
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]
        heads = tokens.unflatten(-1, (2, 3)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)


@pytest.mark.parametrize("kind", ["module", "function"])
def test_closed_form_of_attention(kind: str) -> None:
    """T tokens of C channels, all heads together: scores and their product with the values are 2 T T C each."""
    tokens, channels, heads = 16, 6, 2
    whole = measure_parts(Attention(kind), (16, 16)).whole
    flops = 2 * 48 * channels * tokens + 2 * (2 * tokens * tokens * channels)
    activations = channels * tokens + heads * tokens * tokens + channels * tokens
    if kind == "module":  # projections to query, key and value, and of the output
        flops += 2 * tokens * channels * 4 * channels
        activations += 4 * channels * tokens
    assert (whole.flops, whole.activations) == (flops, activations)


def test_fast_path_of_a_transformer_layer_is_counted() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.flatten(2).transpose(1, 2).repeat(1, 1, 3)[..., :8])

    tokens, channels = 16, 8
    projections, attention, hidden = 4 * channels * channels, 2 * tokens * channels, 2 * channels * 16
    assert measure_parts(Tokens(), (4, 4)).whole.flops == 2 * tokens * (projections + attention + hidden)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_torchvision_says_the_same(name: str) -> None:
    published = next(iter(torchvision.models.get_model_weights(name))).meta
    whole = measure_parts(torchvision.models.get_model(name), (224, 224), depth=0).whole
    assert whole.parameters == published["num_params"]
    assert whole.flops / 2e9 == pytest.approx(published["_ops"], abs=5.1e-4)  # in billions of multiply-adds


def test_activations_of_resnet18() -> None:
    """64 maps of 112 x 112; then in units of 64 x 56 x 56 the stages have 4, 2 + 1/2, half of that, half again; fc."""
    unit = 64 * 56 * 56
    whole = measure_parts(torchvision.models.resnet18(), (224, 224), depth=0).whole
    assert whole.activations == 64 * 112 * 112 + 4 * unit + 2.5 * unit + 1.25 * unit + 0.625 * unit + 1000
    assert round(whole.activations / 1e6, 1) == 2.5  # as timm lists it


def test_yolox_s() -> None:
    """Its README says 26.8 GFLOPs at 640 pixels: its counter adds two multiply-adds for each batch norm's element."""
    whole = measure_parts(recipe.build_model(recipe.load(["recipe=yolox_s"]), 80), (320, 320), depth=0).whole
    assert whole.parameters == 8_968_255
    normed = whole.activations - 2100 * 85  # all convolutions but the last of each branch
    assert 4 * (whole.flops + 4 * normed) / 1e9 == pytest.approx(26.8, abs=0.05)


def test_calls_of_one_module_add_up() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.unused = nn.Linear(2, 2)
            self.listed = nn.ModuleList([nn.Conv2d(3, 3, 1)])
            self.empty = nn.ModuleList()

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"small": self.conv(images[..., ::2, ::2]), "large": self.listed[0](self.conv(images))}

    anatomy = measure_parts(Twice(), (8, 8), depth=0)
    parts = {part.name: part for part in anatomy.parts}
    assert (parts["conv"].calls, parts["conv"].flops) == (2, 2 * 9 * (16 + 64))
    assert parts["conv"].outputs[0].shape == (3, 4, 4)  # of the first call
    assert costs(parts["unused"]) == (6, 0, 0) and parts["unused"].outputs == ()
    assert costs(parts["listed"]) == (12, 2 * 9 * 64, 3 * 64)  # a list is not called; what is in it is
    assert "empty" not in parts
    assert [(output.name, output.shape) for output in anatomy.whole.outputs] == [
        ("small", (3, 4, 4)),
        ("large", (3, 8, 8)),
    ]


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure_parts(model, (4, 4))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_image_that_does_not_fit() -> None:
    with pytest.raises(RecipeError, match=r"multiples of 4, the model's largest stride; got \[16, 18\]"):
        measure_parts(Net(), (16, 18))
