"""What all ranks decide together: to stop, to end the run, to save."""

import signal
from collections.abc import Callable, Sequence

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

MOST = 255  # that a request can be: a message has a byte for each


class TrainingStopped(BaseException):
    """Training was asked to stop. Like KeyboardInterrupt, it is no Exception, so that no handler swallows it.

    Args:
        at_border: whether the weights are those of a whole step, so that all ranks stop there together.
        number: of the signal.
    """

    def __init__(self, at_border: bool, number: int = signal.SIGINT) -> None:
        super().__init__("training was stopped by the user")
        self.at_border = at_border
        self.exit_code = 128 + number  # as a shell counts


def process_rank() -> int:
    """The rank of this process before there is a trainer: Lightning reads it from the launcher's environment."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


def agreed(trainer: L.Trainer, *values: int) -> list[int]:
    """The highest of all ranks for each value, so that all of them decide alike; it waits for the device."""
    if trainer.world_size == 1:
        return [int(value) for value in values]
    own = torch.tensor(values, dtype=torch.int64, device=trainer.strategy.root_device)
    return trainer.strategy.reduce(own, reduce_op="max").tolist()


class StepRequests:
    """What a rank asks for at the border of a step, and what all ranks agreed on.

    # Note [requests travel with the finite check]
    A message of its own would make every step wait for the device. So the requests are part of the message that
    says whether the loss is finite: it is reduced and copied to the host without waiting. What is asked after the
    backward pass has begun is heard a step later.

    Args:
        asked: each gives 0 for nothing, or a number up to 255; the highest of all ranks counts.
    """

    def __init__(self, *asked: Callable[[], int]) -> None:
        self.asked = asked
        self._heard = [0] * len(asked)
        self._sent: tuple[list[int], Tensor] | None = None

    def own(self) -> list[int]:
        """What this rank asks for now."""
        return [int(ask()) for ask in self.asked]

    def to_send(self, device: torch.device) -> Tensor:
        """(requests,) uint8, the least of which over all ranks is what ``hear`` wants; copied only when it changes."""
        own = self.own()
        if self._sent is None or self._sent[0] != own:
            self._sent = own, torch.tensor([MOST - value for value in own], dtype=torch.uint8, device=device)
        return self._sent[1]

    def hear(self, least: Sequence[int]) -> None:
        """Take the least of all ranks of what was sent."""
        self._heard = [MOST - value for value in least]

    def agreed(self, trainer: L.Trainer) -> list[int]:
        """What counts at the border of this step."""
        return self.own() if trainer.world_size == 1 else self._heard
