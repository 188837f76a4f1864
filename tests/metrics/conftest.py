"""Pictures that both files of tests share."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def golden() -> tuple[torch.Tensor, torch.Tensor]:
    """The pair A, B of the specification, each `(1, 3, 64, 64)` float64."""
    y, x = np.mgrid[:64, :64]
    first = np.stack([4 * x, 4 * y, 2 * (x + y)])
    second = np.clip(first + ((7 * x + 13 * y) % 17 - 8), 0, 255)
    return tuple(torch.from_numpy(picture)[None].double() / 255 for picture in (first, second))


@pytest.fixture(scope="session")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two random batches of smooth pictures, `(2, 3, 40, 48)`."""
    make = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 5, 6, generator=make, dtype=torch.float64)
    fine = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    return fine[:2].contiguous(), fine[2:].contiguous()
