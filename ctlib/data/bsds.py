"""BSDS500: photographs segmented by several people each (Arbelaez et al., TPAMI 2011; Martin et al., ICCV 2001)."""

from pathlib import Path

import numpy as np

from ctlib import images
from ctlib.data import files, registry

SPLITS = ("train", "val", "test")


class Bsds:
    """Pictures of one split with their segmentations.

    Reads `images/<split>/X.jpg` with `groundTruth/<split>/X.mat` (the official archive: 4 to 9 segmentations each), or
    with `segments/<split>/X.png` (samples with one).

    Args:
        root: the folder `bsds500`; default: its place in the data folder.
        split: train, val or test.

    An item is `{"name", "image": uint8 (H, W, 3), "segments": list of (H, W) uint16 region ids, one an annotator}`.

    Raises:
        DataError: pictures or segmentations are missing, broken or of another size.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train"):
        self.dataset = registry.get("bsds500")
        self.root, self.split = self.dataset.root(root), files.choose("bsds500", "split", split, SPLITS)
        self.paths = files.find("bsds500", self.root / "images" / split, "*.jpg")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        image = images.read(path)
        drawn = self.root / "segments" / self.split / f"{path.stem}.png"
        if drawn.exists():
            segments = [files.read_labels("bsds500", drawn).astype(np.uint16)]
        else:
            truth = self.root / "groundTruth" / self.split / f"{path.stem}.mat"
            segments = self._annotators(files.need("bsds500", truth))
        if any(regions.shape != image.shape[:2] for regions in segments):
            raise self.dataset.error(f"{path.stem}: a segmentation has another size than the picture")
        return {"name": path.stem, "image": image, "segments": segments}

    def _annotators(self, path: Path) -> list[np.ndarray]:
        from scipy.io import loadmat

        try:
            people = loadmat(path)["groundTruth"].ravel()
            return [np.asarray(person["Segmentation"][0, 0], dtype=np.uint16) for person in people]
        except Exception as error:  # loadmat raises whatever the damage leads to
            raise self.dataset.error(f"{path} is not a BSDS ground truth ({type(error).__name__}: {error})") from error
