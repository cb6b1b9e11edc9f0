"""Which optimizer steps are logged."""

import lightning as L


def log_interval(trainer: L.Trainer) -> int:
    """Number of optimizer steps from one logged step to the next; 0: no step is logged."""
    return trainer.log_every_n_steps  # type: ignore[attr-defined]  # set at run time by Lightning


def is_logged(trainer: L.Trainer, step: int) -> bool:
    """Whether the numbers of an optimizer step are logged: every n-th step, and the last step of an epoch.

    Not every step is logged, because ``log_dict`` takes about 1 ms of CPU time per number.
    """
    every = log_interval(trainer)
    return trainer.is_last_batch or trainer.should_stop or (every > 0 and step % every == 0)
