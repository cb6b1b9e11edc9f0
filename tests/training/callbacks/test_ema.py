"""The average against its closed form, and where it stands among the callbacks."""

import copy
import math
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from typing_extensions import override

from detkit.training.callbacks.ema import EMA, _TensorPairs, averaged_module


class Counting(L.LightningModule):
    """A weight that is the number of steps done, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        self.running += 1  # type: ignore[operator]
        self.count += 1  # type: ignore[operator]
        return -self.weight.sum() + 0 * batch.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(torch.zeros(6, 1))  # type: ignore[arg-type]


def trained(ema: EMA, **trainer: int) -> L.Trainer:
    fitted = L.Trainer(
        accelerator="cpu",
        callbacks=[ema],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **trainer},  # type: ignore[arg-type]
    )
    fitted.fit(Counting())
    return fitted


def closed_form(steps: int, decay: float, ramp_steps: int) -> float:
    """Weights are 0, 1, .. steps; each comes in by what its step does not keep."""
    decays = [decay * (1 - math.exp(-t / ramp_steps)) if ramp_steps else decay for t in range(1, steps + 1)]
    return sum((1 - decays[t - 1]) * t * math.prod(decays[t:]) for t in range(1, steps + 1))


@pytest.mark.parametrize(("decay", "ramp_steps"), [(0.9, 4), (0.5, 0), (0.999, 100), (0.0, 0)])
def test_closed_form(decay: float, ramp_steps: int) -> None:
    ema = EMA(decay, ramp_steps)
    average = ema_state(trained(ema))
    expected = closed_form(6, decay, ramp_steps)
    torch.testing.assert_close(average["weight"], torch.full((2,), expected))
    torch.testing.assert_close(average["running"], torch.full((2,), expected))
    assert int(average["count"]) == 6  # a count has no average


def ema_state(trainer: L.Trainer) -> dict[str, torch.Tensor]:
    return averaged_module(trainer).state_dict()


def test_counts_optimizer_steps_not_batches() -> None:
    average = ema_state(trained(EMA(0.9, 4), accumulate_grad_batches=2))
    torch.testing.assert_close(average["weight"], torch.full((2,), closed_form(3, 0.9, 4)))


def test_model_ends_with_the_average() -> None:
    trainer = trained(EMA(0.9, 4))
    torch.testing.assert_close(trainer.lightning_module.state_dict(), ema_state(trainer))


def test_ramp_begins_at_zero_and_ends_at_decay() -> None:
    ema = EMA(decay=0.9998, ramp_steps=2000)
    assert ema.decay_of(0) == 0.0
    assert ema.decay_of(2000) == pytest.approx(0.9998 * (1 - 1 / math.e))
    assert ema.decay_of(100_000) == pytest.approx(0.9998)


def test_without_average_the_module_itself() -> None:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1
    )
    trainer.fit(Counting())
    assert averaged_module(trainer) is trainer.lightning_module


@pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"ramp_steps": -1}])
def test_refuses(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"got decay=.*(1.0|-1)"):
        EMA(**wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_lies_on_the_device_of_the_model() -> None:
    ema = EMA(0.9, 4)
    trainer = L.Trainer(
        accelerator="gpu",
        callbacks=[ema],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        max_epochs=1,
    )
    trainer.fit(Counting())
    assert {tensor.device.type for tensor in ema.module.state_dict().values()} == {"cuda"}
    torch.testing.assert_close(ema.module.get_parameter("weight").cpu(), torch.full((2,), closed_form(6, 0.9, 4)))


class Kernels(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_one_kernel_for_all_floats_and_one_for_all_counts() -> None:
    """The model becomes channels last, and float64, after the average was made; pairs that differ go one by one."""
    conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    module = nn.Sequential(conv, norm)
    averaged, before = copy.deepcopy(module), conv.weight.detach().clone()
    module.double().to(memory_format=torch.channels_last)
    pairs = _TensorPairs(averaged, module)
    assert [(x.stride(), x.dtype) for x in pairs.floats[0]] == [(x.stride(), x.dtype) for x in pairs.floats[1]]
    conv.weight.data += 1
    norm.load_state_dict({**norm.state_dict(), "num_batches_tracked": torch.tensor(7)})
    with Kernels() as kernels:
        pairs.average(0.75)
    assert sorted(kernels.names) == ["_foreach_copy_", "_foreach_lerp_"]
    state = averaged.state_dict()
    torch.testing.assert_close(state["0.weight"], before.double() + 0.25, check_stride=False)
    assert int(state["1.num_batches_tracked"]) == 7
