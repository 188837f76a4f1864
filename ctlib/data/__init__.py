"""Where pictures come from: the registry, one loader a data set, splits, the uint8 cache, augmentation, references.

A loader reads an official layout as it is and gives a dict an item: uint8 sRGB arrays `(H, W, 3)`, label maps `(H, W)`,
names and ids. Loaders take the data set's own folder as `root`; without it they look in `ctlib.paths.data_dir()`.
"""

from ctlib.data.registry import DataError, fetch, get, load, verify

__all__ = ["DataError", "fetch", "get", "load", "verify"]
