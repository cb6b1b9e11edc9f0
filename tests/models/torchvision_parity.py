"""Own networks against torchvision's, which give the same features from the same file of weights."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor


def check_equals_torchvision(backbone: Any, name: str, folder: Path, size_hw: tuple[int, int] = (64, 96)) -> None:
    """Features in evaluation and in training, and what training makes of the statistics.

    Args:
        backbone: with out_specs that bear torchvision's names.
        name: of torchvision's network.
        folder: where its weights are written and read.
        size_hw: of the images, in pixels.
    """
    theirs: Any = randomise_norms(models.get_model(name))
    torch.save(theirs.state_dict(), folder / "weights.pth")
    weights = torch.load(folder / "weights.pth", weights_only=True)
    own = list(backbone.state_dict())
    assert own == [key for key in weights if key.partition(".")[0] in {key.partition(".")[0] for key in own}]
    assert not {key.partition(".")[0] for key in weights} - {key.partition(".")[0] for key in own} - {"fc", "conv5"}
    backbone.load_state_dict({key: weights[key] for key in own})

    names = [spec.name for spec in backbone.out_specs]
    extractor = create_feature_extractor(theirs, names)
    images = torch.rand(2, 3, *size_hw, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for training in (False, True, False):  # the last with the statistics that the second changed
            backbone.train(training)
            wanted = extractor.train(training)(images)
            for feature, layer in zip(backbone(images), names, strict=True):
                scale = wanted[layer].abs().max().item()
                torch.testing.assert_close(feature, wanted[layer], rtol=1e-5, atol=1e-5 * scale, msg=layer)
    trained = extractor.state_dict()
    for key, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, trained[key], msg=key)


def randomise_norms(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics of all batch norms as if trained, so that a wrong use of any shows."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator=rng)
    return model
