r"""Distances of palettes, small sets of Lab colors with or without areas.

Taught in: notebooks/12_palette_recoloring and notebooks/04_find_references.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance_nd
from torch import Tensor

from ctlib.metrics.fidelity import ciede2000_lab


def _palette(colors: Tensor | np.ndarray, name: str) -> np.ndarray:
    array = colors.detach().cpu().numpy() if isinstance(colors, Tensor) else np.asarray(colors)
    array = array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{name}: expected Lab colors (k, 3), got shape {array.shape}")
    if len(array) == 0:
        raise ValueError(f"{name}: the palette is empty; give at least one color")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: holds NaN or infinite values")
    return array


def _weights(weights: Tensor | np.ndarray | None, count: int, name: str) -> np.ndarray:
    array = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if array.shape != (count,):
        raise ValueError(f"{name}: expected one weight for each of {count} colors, got shape {array.shape}")
    if not np.isfinite(array).all() or array.min() < 0 or array.sum() <= 0:
        raise ValueError(f"{name}: expected weights that are not negative and not all zero")
    return array / array.sum()


def palette_distance(palette: Tensor, target: Tensor) -> Tensor:
    r"""Mean CIEDE2000 of two palettes matched color by color at the least total cost (Hungarian assignment).

    Args:
        palette, target: `(k, 3)` Lab, natural units, any order, equal k.

    Returns:
        float64 scalar in units of $\Delta E_{00}$, lower is better, 0 for equal palettes in any order.

    Raises:
        ValueError: an empty or malformed palette, or two lengths.

    Example:
        >>> palette_distance(torch.tensor([[50.0, 2.5, 0.0]]), torch.tensor([[73.0, 25.0, -18.0]])).round(decimals=4)
        tensor(27.1492, dtype=torch.float64)
    """
    first, second = _palette(palette, "palette"), _palette(target, "target")
    if len(first) != len(second):
        raise ValueError(
            f"palette and target: {len(first)} and {len(second)} colors; extract both with one k, or use palette_emd"
        )
    cost = ciede2000_lab(first[:, None], second[None])
    return torch.tensor(cost[linear_sum_assignment(cost)].mean(), dtype=torch.float64)


def palette_emd(palette: Tensor, weights: Tensor | None, target: Tensor, target_weights: Tensor | None) -> Tensor:
    r"""Earth mover's distance of two palettes whose colors carry areas; moving costs the distance in Lab (CIE76).

    Args:
        palette, target: `(k, 3)` and `(m, 3)` Lab, natural units.
        weights, target_weights: `(k,)` and `(m,)`, not negative; `None` gives every color the same area. Each set is
            scaled to sum to 1.

    Returns:
        float64 scalar in Lab units, lower is better.

    Raises:
        ValueError: an empty or malformed palette, or weights that do not fit it.
    """
    first, second = _palette(palette, "palette"), _palette(target, "target")
    moved = wasserstein_distance_nd(
        first, second, _weights(weights, len(first), "weights"), _weights(target_weights, len(second), "target_weights")
    )
    return torch.tensor(max(moved, 0.0), dtype=torch.float64)  # the solver may end at -1e-17
