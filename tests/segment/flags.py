"""Pictures with known regions, and what is asked of all label maps."""

import torch

from ctlib.segment import Regions


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def flags(height: int = 48, width: int = 64) -> torch.Tensor:
    """Four quarters of different colors and textures."""
    rgb = 0.02 * noise(height, width)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.9, 0.9, 0.6]])
    return rgb + colors[quarters(height, width)].movedim(-1, 0) * 0.98


def quarters(height: int = 48, width: int = 64) -> torch.Tensor:
    return 2 * (torch.arange(height) >= height // 2).long()[:, None] + (torch.arange(width) >= width // 2).long()


def same_partition(one: torch.Tensor, other: torch.Tensor) -> bool:
    pairs = torch.stack([one.flatten(), other.flatten()]).unique(dim=1).shape[1]
    return pairs == len(one.unique()) == len(other.unique())


def covers(regions: Regions, size: tuple[int, int]) -> bool:
    return regions.labels.shape == size and regions.labels.unique().tolist() == list(range(regions.count))
