"""Decisions that all ranks take together: to stop, to end the run with an error, to save."""

import signal
from collections.abc import Callable, Sequence

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

MAX_REQUEST = 255  # each request is sent as one byte


class TrainingStopped(BaseException):
    """The user stopped the training. It is no ``Exception``, so that no ``except Exception`` catches it.

    Args:
        at_step_end: whether all ranks stop together after a complete optimizer step.
        number: number of the signal.
    """

    def __init__(self, at_step_end: bool, number: int = signal.SIGINT) -> None:
        super().__init__("training was stopped by the user")
        self.at_step_end = at_step_end
        self.exit_code = 128 + number  # the convention of shells


def process_rank() -> int:
    """The rank of this process. It is also known before a trainer exists, from the environment of the launcher."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


def max_over_ranks(trainer: L.Trainer, *values: int) -> list[int]:
    """The maximum over all ranks of each value. All ranks get the same result; the call waits for the device."""
    if trainer.world_size == 1:
        return [int(value) for value in values]
    own = torch.tensor(values, dtype=torch.int64, device=trainer.strategy.root_device)
    return trainer.strategy.reduce(own, reduce_op="max").tolist()


class StepRequests:
    """Requests of single ranks, e.g. to save, which all ranks carry out together at the end of a step.

    # Note [requests are sent with the finite check]
    A separate message would make every step wait for the device. So the requests are part of the message about
    the finite loss, which is reduced and copied to the host without waiting. A request that is made after
    the backward pass has begun is received one step later.

    Args:
        requests: each returns 0 for no request, or a number up to 255. The maximum over all ranks is used.
    """

    def __init__(self, *requests: Callable[[], int]) -> None:
        self.requests = requests
        self._received = [0] * len(requests)
        self._sent: tuple[list[int], Tensor] | None = None

    def own(self) -> list[int]:
        """The present requests of this rank."""
        return [int(request()) for request in self.requests]

    def encoded(self, device: torch.device) -> Tensor:
        """(requests,) uint8: the requests of this rank for a minimum over all ranks. Copied only if they changed."""
        own = self.own()
        if self._sent is None or self._sent[0] != own:
            self._sent = own, torch.tensor([MAX_REQUEST - value for value in own], dtype=torch.uint8, device=device)
        return self._sent[1]

    def receive(self, least: Sequence[int]) -> None:
        """Decode the minimum over all ranks of ``encoded``."""
        self._received = [MAX_REQUEST - value for value in least]

    def agreed(self, trainer: L.Trainer) -> list[int]:
        """The requests to carry out at the end of this step."""
        return self.own() if trainer.world_size == 1 else self._received
