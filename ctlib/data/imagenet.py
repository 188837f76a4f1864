"""ImageNet (Russakovsky et al., IJCV 2015): a folder a class, or a flat sample with the class in the file's name."""

import csv
import re
from pathlib import Path

from ctlib import images
from ctlib.data import registry
from ctlib.data.registry import IMAGES

WNID = re.compile(r"n\d{8}")
CLASSES = 1000


class ImageNet:
    """Pictures of `<split>/<wnid>/*.JPEG`, or of a flat sample `nNNNNNNNN[_name].jpg` (in the root or in `images/`).

    Args:
        root: the folder `imagenet`; default: its place in the data folder.
        split: name of the folder, `val` or `train`.

    An item is `{"name", "wnid", "class_index", "image": uint8 (H, W, 3)}`. The class index is the place among all
    1,000 sorted wnids (torchvision's order). It is known if all 1,000 are present or if an `index.csv` with columns
    `wnid, class_index` lies in the root; else it is `None`, never a number counted from a part of the classes.

    Raises:
        DataError: no pictures.
    """

    def __init__(self, root: str | Path | None = None, split: str = "val"):
        self.dataset = registry.get("imagenet")
        self.root = self.dataset.root(root)
        sorted_folders = [path for path in (self.root / split).glob("n*/*") if WNID.fullmatch(path.parent.name)]
        flat = [path for pattern in ("n*", "images/n*") for path in self.root.glob(pattern) if WNID.match(path.name)]
        found = sorted_folders or flat
        self.paths = sorted(path for path in found if path.is_file() and path.suffix.lower() in IMAGES)
        if not self.paths:
            raise self.dataset.error(f"no pictures in {self.root / split} (a folder a class) nor flat in {self.root}")
        self.class_index = self._class_index()

    def _class_index(self) -> dict[str, int]:
        table = self.root / "index.csv"
        if table.exists():
            with open(table, newline="", encoding="utf-8") as file:
                return {row["wnid"]: int(row["class_index"]) for row in csv.DictReader(file)}
        wnids = sorted({self.wnid(path) for path in self.paths})
        return {wnid: n for n, wnid in enumerate(wnids)} if len(wnids) == CLASSES else {}

    @staticmethod
    def wnid(path: Path) -> str:
        """WordNet id of a picture: its folder's name, else the beginning of its own."""
        return path.parent.name if WNID.fullmatch(path.parent.name) else path.name[:9]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        wnid = self.wnid(path)
        return {"name": path.stem, "wnid": wnid, "class_index": self.class_index.get(wnid), "image": images.read(path)}
