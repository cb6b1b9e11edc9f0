"""Which steps are logged."""

import lightning as L


def log_interval(trainer: L.Trainer) -> int:
    """Every so many optimizer steps are logged; 0: none."""
    return trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it where type checkers do not see it


def is_logged(trainer: L.Trainer, step: int) -> bool:
    """Whether the numbers of an optimizer step are logged: of every n-th one, and at the end of an epoch.

    Not of every step, because ``log_dict`` takes Lightning about 1 ms of CPU time for each number.
    """
    every = log_interval(trainer)
    return trainer.is_last_batch or trainer.should_stop or (every > 0 and step % every == 0)
