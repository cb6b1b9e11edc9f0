"""Which norms are folded; whether they are or not, the numbers stay."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from detkit.exporting.formats.folding import fold_norms


class Net(nn.Module):
    """Two convolutions and two norms, connected as ``run`` says."""

    def __init__(self, run: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.c, self.d = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.n, self.m = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.alias = self.c
        for norm in (self.n, self.m):
            nn.init.uniform_(norm.weight, 1.0, 3.0)
            nn.init.uniform_(norm.bias, -1.0, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self, images)


@pytest.mark.parametrize(
    ("run", "left"),
    [
        (lambda net, x: net.n(net.c(x)) + net.m(net.d(x)), 0),
        (lambda net, x: net.n(net.c(x)) + net.n(net.d(x)), 2),  # one norm of two convolutions
        (lambda net, x: net.n(net.c(x)) + net.c(x).relu(), 2),  # a convolution that others call too
        (lambda net, x: net.n(net.c(x)) + net.alias(x).relu(), 2),
        (lambda net, x: net.n(net.c(x)) + net.m(net.c(x)), 2),
        (lambda net, x: net.n(net.c(x)) + net.c.weight.sum(), 2),
        (lambda net, x: net.n(y := net.c(x)) + y + net.m(net.d(x)), 1),  # what is between them goes elsewhere too
        (lambda net, x: net.n(torch.relu(net.c(x))) + net.m(net.d(x)), 1),
    ],
)
def test_numbers_stay(run: Callable[[Net, Tensor], Tensor], left: int) -> None:
    torch.manual_seed(0)
    net, images = Net(run).eval(), torch.rand(2, 3, 5, 5)
    folded = copy.deepcopy(net)
    with torch.no_grad():
        fold_norms(folded, torch.export.export(folded, (images,)))
        torch.testing.assert_close(folded(images), net(images))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == left
