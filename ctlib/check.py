"""Validation at the door: one clear sentence instead of a wrong number later."""

import torch
from torch import Tensor


def rgb(image: Tensor, name: str = "image") -> Tensor:
    """Return `image` if it is a batch of sRGB pictures.

    Args:
        image: `(B, 3, H, W)` float tensor, finite, in [0, 1].
        name: what to call it in the message.

    Raises:
        ValueError: naming the argument, what is wrong with it and the remedy.
    """
    colors(image, name)
    if image.ndim != 4:
        raise ValueError(
            f"{name}: expected shape (B, 3, H, W), got {tuple(image.shape)}; add the batch axis with [None]"
        )
    if image.shape[2] == 0 or image.shape[3] == 0:
        raise ValueError(f"{name}: the picture is empty, its shape is {tuple(image.shape)}")
    if image.numel() and (image.min() < -1e-6 or image.max() > 1 + 1e-6):
        low, high = image.min().item(), image.max().item()
        hint = "divide by 255" if high > 2 else "clamp it to [0, 1] or convert it to sRGB first"
        raise ValueError(f"{name}: expected sRGB in [0, 1], got values from {low:.4g} to {high:.4g}; {hint}")
    return image


def colors(values: Tensor, name: str = "colors") -> Tensor:
    """Return `values` if it is a finite float tensor `(B, 3, ...)`, of any range.

    Raises:
        ValueError: naming the argument, what is wrong with it and the remedy.
    """
    if not isinstance(values, Tensor):
        raise ValueError(f"{name}: expected a torch tensor, got {type(values).__name__}; see ctlib.images.to_tensor")
    if not values.is_floating_point():
        raise ValueError(f"{name}: expected a float tensor, got {values.dtype}; see ctlib.images.to_tensor")
    if values.ndim < 2 or values.shape[1] != 3:
        raise ValueError(f"{name}: expected 3 color channels on axis 1, (B, 3, ...), got shape {tuple(values.shape)}")
    if values.shape[0] == 0:
        raise ValueError(f"{name}: the batch is empty, its shape is {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name}: holds NaN or infinite values; repair the picture first, e.g. with torch.nan_to_num")
    return values


def same_shape(first: Tensor, second: Tensor, names: str = "result and truth") -> None:
    """Raise `ValueError` unless both tensors have one shape."""
    if first.shape != second.shape:
        raise ValueError(f"{names}: shapes differ, {tuple(first.shape)} and {tuple(second.shape)}; resize one of them")


def long_side(value: float) -> float:
    """Return a number of pixels if it is finite and at least 1, else raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < float("inf"):
        raise ValueError(f"long_side: expected at least 1 pixel, got {value!r}")
    return value


def in_float32(network: torch.nn.Module) -> torch.device:
    """Return the device of a network whose weights are float32, else raise `ValueError`."""
    weight = next(network.parameters())
    if weight.dtype != torch.float32:
        raise ValueError(f"recolor: keep the network in float32, with .float(); it is in {weight.dtype}")
    return weight.device
