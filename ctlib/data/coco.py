"""COCO: everyday photographs with outlined objects of 80 categories (Lin et al., ECCV 2014).

Outlines are drawn by pycocotools, as everybody's are. Run-length masks are decoded here: pycocotools returns what
happened to be in memory where a mask does not fill its picture.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ctlib import images
from ctlib.data import files, registry


class Coco:
    """Pictures of one split with their object label maps.

    Args:
        root: the folder `coco`; default: its place in the data folder.
        split: `val2017`, `train2017` (its annotations take about 3 GB of memory), or those of 2014.
        categories: keep only pictures that show at least one of these, by name or by id; one or several.
        drop_gray: leave out gray pictures; decodes each picture once, about 10 ms each.

    An item is `{"id", "name", "image": uint8 (H, W, 3), "labels": uint8 (H, W) category ids with 0 unlabeled,
    "categories": sorted names, "license": name of its license}`.

    Raises:
        DataError: annotations or a picture are missing or broken.  ValueError: unknown category; lists the known.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "val2017",
        categories: Iterable[str | int] | str | int | None = None,
        drop_gray: bool = False,
    ):
        self.dataset, self.split = registry.get("coco"), split
        self.root = self.dataset.root(root)
        path = files.need("coco", self.root / "annotations" / f"instances_{split}.json")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            self.categories = {entry["id"]: entry["name"] for entry in record["categories"]}
            self.licenses = {entry["id"]: entry["name"] for entry in record.get("licenses", ())}
            self.annotations: dict[int, list[dict]] = {}
            for annotation in record["annotations"]:
                self.annotations.setdefault(annotation["image_id"], []).append(annotation)
            self.records = sorted(record["images"], key=lambda entry: entry["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise self.dataset.error(f"{path} is not a COCO annotation file ({error!r})") from error
        if categories is not None:
            some = [categories] if isinstance(categories, str | int) else categories
            wanted = {self.category_id(category) for category in some}
            self.records = [entry for entry in self.records if wanted & self._shown(entry["id"])]
        if drop_gray:
            self.records = [entry for entry in self.records if not is_gray(self._read(entry))]
        self.paths = [self.root / split / entry["file_name"] for entry in self.records]

    def category_id(self, category: str | int) -> int:
        """Id (1 to 90, with gaps) of a category given by name or id.

        Raises:
            ValueError: unknown category; lists the known.
        """
        for key, name in self.categories.items():
            if category in (key, str(key), name):
                return key
        known = ", ".join(f"{name} {key}" for key, name in self.categories.items())
        raise ValueError(f"coco: no category {category!r}; known are {known}")

    def classes(self) -> dict[str, frozenset[str]]:
        """Of each picture, by its file's stem, the categories that it shows."""
        return {
            Path(entry["file_name"]).stem: frozenset(self.categories[key] for key in self._shown(entry["id"]))
            for entry in self.records
        }

    def _shown(self, image_id: int) -> set[int]:
        return {annotation["category_id"] for annotation in self.annotations.get(image_id, ())}

    def _read(self, entry: dict) -> np.ndarray:
        return images.read(files.need("coco", self.root / self.split / entry["file_name"]))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        entry = self.records[index]
        return {
            "id": entry["id"],
            "name": Path(entry["file_name"]).stem,
            "image": self._read(entry),
            "labels": label_map(self.annotations.get(entry["id"], ()), entry["height"], entry["width"]),
            "categories": sorted(self.categories[key] for key in self._shown(entry["id"])),
            "license": self.licenses.get(entry.get("license"), "unknown"),
        }


def labelled(root: str | Path | None = None) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str]]]:
    """Pictures in color with a label for each pixel, in a fixed order.

    Where a folder `masks` lies beside `images` (gray PNG of category ids, panoptic ones as well, named by
    `semantic_classes.json`), it is taken; else the objects of the official `val2017`.

    Yields:
        Name, picture uint8 `(H, W, 3)`, labels uint8 `(h, w)`, and the name of each label from 0, which is
        `"unlabeled"`.

    Raises:
        DataError: neither layout is there.
    """
    folder = registry.get("coco").root(root)
    if not (folder / "masks").is_dir():
        objects = Coco(root, drop_gray=True)
        names = [objects.categories.get(number, "unlabeled") for number in range(256)]
        for item in objects:
            yield item["name"], item["image"], item["labels"], names
        return
    path = files.need("coco", folder / "semantic_classes.json")
    try:
        known = {int(key): str(name) for key, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise registry.get("coco").error(f"{path} does not name category ids ({error})") from error
    names = [known.get(number, "unlabeled") for number in range(256)]
    for mask in sorted((folder / "masks").rglob("*.png")):
        picture = folder / "images" / mask.relative_to(folder / "masks").with_suffix(".jpg")
        image = images.read(files.need("coco", picture))
        if not is_gray(image):
            yield mask.stem, image, np.asarray(Image.open(mask)), names


def label_map(annotations: Iterable[dict], height: int, width: int) -> np.ndarray:
    """Draw the objects of one picture as category ids, `(H, W)` uint8; 0 is unlabeled.

    The largest object is drawn first, so small ones stay on top.

    Raises:
        DataError: a broken outline or run-length mask, or a mask of another size than the picture.
    """
    labels = np.zeros((height, width), np.uint8)
    for annotation in sorted(annotations, key=lambda entry: -(entry.get("area") or 0)):
        try:
            _draw(labels, annotation["segmentation"], annotation["category_id"])
        except (ValueError, KeyError, TypeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).removeprefix("coco: ")
            which = f"annotation {annotation.get('id', 'without id')} of picture {annotation.get('image_id', '?')}"
            raise registry.get("coco").error(f"{which} is broken ({reason})") from error
    return labels


def _draw(labels: np.ndarray, shape: dict | list, key: int) -> None:
    """Draw one object, a run-length mask or a list of polygons, into a label map `(H, W)`."""
    from pycocotools import mask as outlines

    if isinstance(shape, dict):
        height, width = shape["size"]
        if (height, width) != labels.shape:  # before decoding: a wild size could fill the memory
            raise ValueError(f"its mask is {width}x{height}, the picture {labels.shape[1]}x{labels.shape[0]}")
        labels[decode_rle(shape)] = key
        return
    for polygon in shape:
        corners = np.array(polygon, float)
        if len(polygon) % 2 or not (np.abs(corners) <= 2 * max(labels.shape)).all():  # pycocotools crashes on wild ones
            raise ValueError("an outline has an odd number of coordinates, or one far outside of the picture")
        if len(polygon) >= 6:
            (drawn,) = outlines.frPyObjects([polygon], *labels.shape)
            labels[outlines.decode(drawn) > 0] = key


def decode_rle(rle: dict) -> np.ndarray:
    """Decode a run-length mask to `(H, W)` bool: runs go down the columns and begin with zeros.

    `counts` is a list of run lengths, or COCO's string: 5 bits a character (code minus 48), bit 5 says that more
    follow, bit 4 of the last is the sign; from the fourth run on, the run two places earlier is added.

    Raises:
        ValueError: a run is negative, or they do not fill the picture.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    runs = _unpack(counts) if isinstance(counts, str) else list(counts)
    if any(run < 0 for run in runs):
        raise ValueError("coco: a run-length mask has a run under 0; broken annotation")
    if sum(runs) != height * width:
        raise ValueError(f"coco: a run-length mask covers {sum(runs)} of {height * width} pixels; broken annotation")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _unpack(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def is_gray(image: np.ndarray, threshold: float = 5.0, side: int = 256) -> bool:
    """Whether a picture has no color: |a| and |b| of CIELAB stay under `threshold` at every pixel looked at.

    Args:
        image: uint8 `(H, W, 3)`; long sides over `side` are sampled without averaging, which would hide small spots.
    """
    from ctlib import color

    step = max(1, -(-max(image.shape[:2]) // side))
    lab = color.rgb_to_lab(images.to_tensor(np.ascontiguousarray(image[::step, ::step])))
    return bool(lab[:, 1:].abs().max() < threshold)
