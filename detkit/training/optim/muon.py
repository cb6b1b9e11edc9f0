"""Muon: momentum with orthogonalised updates for matrices, and AdamW for all other parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from detkit.ops.precision import at_least_float32


class Muon(Optimizer):
    """Optimizer that updates all singular directions of a weight matrix by the same amount.

    Weights with two or more dimensions are matrices of (output channels, everything else). Biases and norms are
    updated by AdamW. torch.optim.Muon does the same for matrices but accepts no other parameters.

    Args:
        params: parameters, or groups with their own lr and weight_decay.
        lr: learning rate of matrices; an update has a spectral norm of about lr.
        weight_decay: decoupled, multiplied by lr.
        momentum: Nesterov momentum of matrices.
        adam_lr_factor: learning rate of AdamW as a factor on lr.
        betas: betas of AdamW.
        eps: eps of AdamW.

    Raises:
        ValueError: if lr or the factor is not positive, or momentum lies outside [0, 1).

    Source: Jordan et al., Muon, 2024. https://kellerjordan.github.io/posts/muon/
        Differs from the text in: with more rows than columns, the update is multiplied by sqrt(rows / columns).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        adam_lr_factor: float = 0.15,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        if lr <= 0 or adam_lr_factor <= 0:
            raise ValueError(f"learning rates must be positive; got lr={lr}, adam_lr_factor={adam_lr_factor}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1); got {momentum}")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "adam_lr_factor": adam_lr_factor,
            "betas": tuple(betas),
            "eps": eps,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._update_matrix if parameter.ndim >= 2 else self._update_vector
                update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def _update_matrix(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        direction = grad.lerp(state["momentum"], group["momentum"])
        # Channels last gives a view. The order of the columns does not change the result.
        columns_last = direction.movedim(1, -1)
        matrix = columns_last.flatten(1)
        rows, columns = matrix.shape
        step = orthogonalise(matrix).view_as(columns_last).movedim(-1, 1)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _update_vector(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        beta_mean, beta_square = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - beta_mean)
        state["square"].lerp_(grad.square(), 1 - beta_square)
        lr = group["lr"] * group["adam_lr_factor"]
        root = (state["square"] / (1 - beta_square ** state["step"])).sqrt_().add_(group["eps"])
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(state["mean"], root, value=-lr / (1 - beta_mean ** state["step"]))


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """(rows, columns) to about the nearest semi-orthogonal matrix: its singular values are in [0.7, 1.2].

    A quintic Newton-Schulz iteration with coefficients for speed rather than exactness. It runs in float32 or better,
    not in bfloat16 as in the source, so that small rounding errors of the gradients stay small.

    Source: Jordan et al., Muon, 2024. https://kellerjordan.github.io/posts/muon/
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = at_least_float32(matrix)
    x = x / x.norm().clamp(min=1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrix.dtype)
