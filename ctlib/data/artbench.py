"""ArtBench-10: 60,000 artworks of ten styles, at 256 and at 32 pixels (Liao et al., arXiv 2206.11404)."""

import csv
import io
import pickle
from pathlib import Path

import numpy as np

from ctlib import images
from ctlib.data import files, registry

STYLES = (
    "art_nouveau", "baroque", "expressionism", "impressionism", "post_impressionism", "realism", "renaissance",
    "romanticism", "surrealism", "ukiyo_e",
)  # fmt: skip
SPLITS = ("train", "test")


class ArtBench:
    """The 256-pixel edition, `<split>/<style>/<name>.jpg`.

    Args:
        root: the folder `artbench10`; default: its place in the data folder.
        split: train or test.
        styles: which of `STYLES`.

    An item is `{"name", "style", "label": place of the style in STYLES, "image": uint8 (H, W, 3)}`.

    Raises:
        DataError: no pictures of a style.  ValueError: unknown split or style.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train", styles: tuple[str, ...] = STYLES):
        self.root = registry.get("artbench10").root(root)
        files.choose("artbench10", "split", split, SPLITS)
        self.paths: list[Path] = []
        for style in styles:
            files.choose("artbench10", "style", style, STYLES)
            self.paths += files.find("artbench10", self.root / split / style, "*.jpg")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        style = path.parent.name
        return {"name": path.stem, "style": style, "label": STYLES.index(style), "image": images.read(path)}

    def table(self) -> list[dict[str, str]]:
        """Rows of `ArtBench-10.csv`: name, artist, url, is_public_domain, label, split, ... as text.

        Raises:
            DataError: the file is missing or lacks the columns every copy has.
        """
        path = files.need("artbench10", self.root / "ArtBench-10.csv")
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or not {"name", "label", "split"} <= rows[0].keys():
            raise registry.get("artbench10").error(f"{path} has no rows with name, label and split")
        return rows


class ArtBench32:
    """The 32-pixel edition, `artbench-10-batches-py/{data_batch_1..5,test_batch,meta}`, all in memory (150 MB).

    An item is `{"name", "style", "label", "image": uint8 (32, 32, 3)}`; `images` is the whole `(N, 32, 32, 3)` array.

    Args:
        root: the folder `artbench10_32px`; default: its place in the data folder.
        split: train or test.

    Raises:
        DataError: a batch is missing, damaged, or holds anything but arrays and lists.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train"):
        dataset = registry.get("artbench10_32px")
        folder = dataset.root(root) / "artbench-10-batches-py"
        files.choose(dataset.name, "split", split, SPLITS)
        self.styles = tuple(load_pickle(folder / "meta").get("styles", ()))
        names = [f"data_batch_{n}" for n in range(1, 6)] if split == "train" else ["test_batch"]
        pixels, self.labels, self.names = [], [], []
        for name in names:
            batch = load_pickle(folder / name)
            data, labels = batch.get("data"), batch.get("labels")
            if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
                raise dataset.error(f"{folder / name}: no uint8 array (N, 3072) under 'data'")
            known = range(len(self.styles))
            if not isinstance(labels, list) or len(labels) != len(data) or any(label not in known for label in labels):
                raise dataset.error(f"{folder / name}: 'labels' do not fit the pictures or the styles in meta")
            pixels.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            self.labels += labels
            self.names += batch.get("filenames") or [f"{name}_{i:05d}" for i in range(len(data))]
        self.images = np.concatenate(pixels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        label = self.labels[index]
        return {"name": self.names[index], "style": self.styles[label], "label": label, "image": self.images[index]}


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand-in for `_codecs.encode`, through which old protocols write bytes; a real codec could do more."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Knows what a CIFAR-style batch is made of; a pickle that asks for anything else is refused, not run."""

    def find_class(self, module: str, name: str) -> object:
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar")}:
            return getattr(np._core.multiarray, name)
        if (module, name) == ("numpy.core.numeric", "_frombuffer"):
            return np._core.numeric._frombuffer
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_pickle(path: Path) -> dict:
    """Read a CIFAR-style pickle without running code: a dict of arrays, lists and text, keys as `str`.

    Raises:
        DataError: missing, damaged, or made of anything else.
    """
    dataset = registry.get("artbench10_32px")
    data = files.need(dataset.name, path).read_bytes()
    try:
        content = _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise dataset.error(f"{path} is refused or damaged ({error})") from error
    if not isinstance(content, dict):
        raise dataset.error(f"{path} holds a {type(content).__name__}, not a dict")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
