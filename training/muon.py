"""Muon: steps of orthogonalised momentum for matrices and convolutions, AdamW for the rest.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (iteration and its coefficients); Liu et al. 2025,
"Muon is scalable for LLM training" (arXiv:2502.16982; the factor that makes a step as large as AdamW's, so that rates carry over).
PyTorch's own `torch.optim.Muon` (2.9 and later) takes matrices only, no convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
LEAST_SIDE = 16
"""Matrices with a shorter side (first and last layers, depthwise kernels) are left to AdamW."""
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEP_OF_ADAMW = 0.2
"""Root mean square of AdamW's steps relative to the learning rate."""


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `orthogonal` take Muon's steps; their gradients are gone after `step`."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step; there is no closure."""
        for group in self.param_groups:
            if group["orthogonal"]:
                self._step_orthogonal(group)
        super().step(closure)

    def _step_orthogonal(self, group: dict[str, Any]) -> None:
        of_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(parameter))  # AdamW looks for `step` when a run is resumed
            state["step"] += 1
            state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
            ahead = parameter.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
            of_shape.setdefault((ahead.shape[0], ahead.shape[1]), []).append((parameter, ahead))
            parameter.grad = None
        for shape, pairs in of_shape.items():
            rate = group["lr"] * STEP_OF_ADAMW * max(shape) ** 0.5
            for (parameter, _), step in zip(pairs, orthogonalised(torch.stack([ahead for _, ahead in pairs])), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step.view_as(parameter), alpha=rate)


def is_orthogonal(parameter: Tensor) -> bool:
    """Return whether Muon takes a parameter: a matrix, or a kernel seen as one, that is not narrow."""
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= LEAST_SIDE


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring all singular values to about 1 (0.7 to 1.2) by a Newton-Schulz iteration of fifth degree, in bfloat16.

    Args:
        matrices: (N, rows, columns) float32.

    Returns:
        (N, rows, columns) float32.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return (x if wide else x.mT).float()
