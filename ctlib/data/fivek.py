"""MIT-Adobe FiveK: a photograph in six renditions, raw and by five experts (Bychkovsky et al., CVPR 2011)."""

from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np

from ctlib import images
from ctlib.data import registry
from ctlib.data.registry import IMAGES

RENDITIONS = ("raw", "a", "b", "c", "d", "e")


class FiveK:
    """The photographs that have all the renditions asked for.

    Two layouts are read: one folder a rendition, `{raw,a,b,c,d,e}/aNNNN-<camera name>.jpg`, and small samples whose
    names end in the rendition, `<any folder>/aNNNN_{input,A,B,C,D,E}.jpg` (input is raw).

    Args:
        root: the folder `fivek`; default: its place in the data folder.
        renditions: which of `raw a b c d e` each photograph must have.

    An item is `{"id", "name", <rendition>: uint8 (H, W, 3), ...}`, and `"labels"` (H, W) uint8 if `segs/aNNNN-*.npy`
    is there.

    Raises:
        DataError: no photograph has all of them; names the folder and the remedy.

    Taught in: notebooks/01_prepare_data
    """

    def __init__(self, root: str | Path | None = None, renditions: Iterable[str] = RENDITIONS):
        self.dataset = registry.get("fivek")
        self.root, self.renditions = self.dataset.root(root), tuple(renditions)
        if unknown := [name for name in self.renditions if name not in RENDITIONS]:
            raise ValueError(f"fivek: no rendition {unknown[0]!r}; known are {', '.join(RENDITIONS)}")
        every: dict[str, dict[str, Path]] = {}
        for path in sorted(self.root.glob("*/a[0-9][0-9][0-9][0-9][-_]*")):
            rendition = self._rendition(path)
            if rendition in RENDITIONS and path.suffix.lower() in IMAGES:
                every.setdefault(path.name[:5], {})[rendition] = path
        self.files = {key: found for key, found in every.items() if found.keys() >= set(self.renditions)}
        self.ids = list(self.files)
        if not self.ids:
            raise self.dataset.error(f"no photograph with renditions {', '.join(self.renditions)} in {self.root}")

    @staticmethod
    def _rendition(path: Path) -> str:
        if path.name[5] == "-":
            return path.parent.name
        return path.stem[6:].lower().replace("input", "raw")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        key = self.ids[index]
        item = {"id": key, "name": self.files[key][self.renditions[0]].stem}
        item |= {rendition: images.read(self.files[key][rendition]) for rendition in self.renditions}
        if labels := next(iter((self.root / "segs").glob(f"{key}-*.npy")), None):
            item["labels"] = np.load(labels, allow_pickle=False)
        return item

    def paths_of(self, rendition: str, ids: Iterable[str] | None = None) -> list[Path]:
        """Files of one rendition, in the order of `ids`, by default all; what `ctlib.data.cache.build` takes.

        Raises:
            ValueError: a rendition that this loader was not asked for.
        """
        if rendition not in self.renditions:
            raise ValueError(f"fivek: no rendition {rendition!r} here; loaded are {', '.join(self.renditions)}")
        return [self.files[key][rendition] for key in (self.ids if ids is None else ids)]

    def pairs(self, ids: Iterable[str] | None = None) -> Iterator[tuple[str, str, str]]:
        """Every ordered pair `(id, source rendition, reference rendition)`: 30 a photograph with six renditions."""
        for key in self.ids if ids is None else ids:
            for source, reference in permutations(self.renditions, 2):
                yield key, source, reference

    def pair(self, key: str, source: str, reference: str) -> dict:
        """Read one ordered pair: `{"id", "source", "reference"}`, uint8 `(H, W, 3)` of one size.

        Raises:
            DataError: the two renditions differ in size.
        """
        first, second = (images.read(self.files[key][rendition]) for rendition in (source, reference))
        if first.shape != second.shape:
            raise self.dataset.error(
                f"{key}: {source} is {first.shape[1]}x{first.shape[0]}, {reference} {second.shape[1]}x{second.shape[0]}"
            )
        return {"id": key, "source": first, "reference": second}


def convert(source: str | Path, target: str | Path, *, long_side: int = 512, progress: bool = True) -> list[Path]:
    """Turn a folder of renditions (TIFF in ProPhoto RGB, or any image) into small sRGB JPEGs of the same names.

    The profile in each file is applied by `ctlib.images.read`; a TIFF without one is taken for sRGB, which for an
    expert's file is wrong: take the originals. Files that are there already are kept, so an interrupted run goes on.

    Precision: 16 bits are rounded to 8 before the profile is applied. In ProPhoto's shadows, where its steps are wider
    than those of sRGB, a pixel may be off by 1.3 levels (rms 0.5), with a bias of at most 0.1; scaling down averages
    most of the rest away. What needs every bit must develop the TIFFs elsewhere.

    Args:
        source: folder with `aNNNN-*.tif`.
        target: e.g. `<data folder>/fivek/c`.
        long_side: pixels.

    Raises:
        DataError: no such files.  ImageReadError: one of them cannot be read.
    """
    from tqdm import tqdm

    from ctlib.data import files

    target, written = Path(target), []
    target.mkdir(parents=True, exist_ok=True)
    for path in tqdm(files.find("fivek", Path(source), "a[0-9][0-9][0-9][0-9]-*"), disable=not progress):
        out = target / f"{path.stem}.jpg"
        if not out.exists():
            images.write(out, images.resize(images.read(path), long_side))
        written.append(out)
    return written
