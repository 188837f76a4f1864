"""One function, `segment`, and what can stand behind it: two ways without a network, two with one."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctlib import check, images, ops
from ctlib.color import rgb_to_lab
from ctlib.segment.regions import UNLABELED, Regions, numbered, resized

_LONGEST = 16  # long by short side, beyond which networks get pictures that fill the memory or vanish
_OFFLINE = 'backend="slic" needs no network'
_INSTALL = "in the checkout, `make env` or pip install -e '.[segmentation]'"


class SegmentError(RuntimeError):
    """A network for segmentation that cannot be had; the message names it and the remedy."""


def segment(rgb: Tensor, backend: str = "slic", **options) -> Regions:
    """Divide a picture into regions.

    Args:
        rgb: `(1, 3, H, W)` sRGB in [0, 1].
        backend: `"slic"` or `"kmeans"`, from the colors, the same in every run; `"torchvision"` or `"transformers"`,
            by a network that is downloaded once, with the names of what it sees.
        options: of the backend, see `by_slic`, `by_kmeans`, `by_torchvision` and `by_transformers`.

    Returns:
        regions that cover all pixels, on the device of `rgb`; small ones too, see `drop_small`.

    Raises:
        ValueError: a bad picture, an unknown backend or option, or a bad value of one.
        SegmentError: a network or its package that is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if len(check.rgb(rgb, "rgb")) != 1:
        raise ValueError(f"rgb: expected one picture, got a batch of {len(rgb)}; segment them one by one")
    known = list(inspect.signature(BACKENDS[backend]).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{unknown[0]}: no option of {backend}; known are {', '.join(known)}")
    return BACKENDS[backend](rgb.detach().float().clamp(0, 1), **options)


def by_kmeans(rgb: Tensor, *, k: int = 5, position: float = 0.0, seed: int = 0, long_side: int = 256) -> Regions:
    """k-means in CIELAB: pixels of similar color, wherever they are. Numbered from dark to light.

    Args:
        rgb: as in `segment`.
        k: regions at most; fewer if the picture has fewer colors.
        position: how many Lab units the long side of the picture counts as; 0: only colors count.
        seed: of k-means.
        long_side: the clusters are found in the picture shrunk to it; then each pixel takes the nearest one.
    """
    from sklearn.cluster import KMeans  # a second to import

    _positive(k=k, long_side=long_side)
    _number("position", position, above=False)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 32:
        raise ValueError(f"seed: expected a whole number from 0 to 2**32 - 1, got {seed!r}")
    # rounded: the last digits of one color depend on its place in a vector, and a constant picture has one color
    points = _points(_shrunk(rgb, long_side).double(), position).round(3).astype(np.float32)
    model = KMeans(min(k, len(np.unique(points, axis=0))), n_init=4, random_state=seed).fit(points)
    rank = np.argsort(np.argsort(model.cluster_centers_[:, 0], kind="stable"))
    labels = rank[model.predict(_points(rgb, position))].reshape(rgb.shape[2:])
    return numbered(torch.from_numpy(labels).to(rgb.device, torch.int64))


def by_slic(
    rgb: Tensor,
    *,
    k: int = 5,
    superpixels: int = 400,
    compactness: float = 10.0,
    position: float = 20.0,
    long_side: int = 512,
) -> Regions:
    """SLIC superpixels (Achanta et al., TPAMI 2012), merged by Ward's method: regions that hold together.

    Superpixels that are alike in mean Lab, and weakly in place, are merged one by one, always those two groups that
    add least to the variance within groups (Ward 1963), whether they touch or not: the sky on both sides of a tower is
    one region. Nothing in it is random.

    Args:
        rgb: as in `segment`.
        k: regions at most.
        superpixels: about so many before they are merged.
        compactness: of superpixels: color distance, in Lab units, that counts as much as their width.
        position: how many Lab units the long side of the picture counts as when they are merged.
        long_side: superpixels are found in the picture shrunk to it; `soften` brings borders back to the full one.
    """
    from skimage.segmentation import slic
    from sklearn.cluster import AgglomerativeClustering

    _positive(k=k, superpixels=superpixels, long_side=long_side)
    _number("compactness", compactness, above=True)
    _number("position", position, above=False)
    small = _shrunk(rgb, long_side)
    pixels = np.ascontiguousarray(small[0].movedim(0, -1).cpu().numpy())
    cells = slic(pixels, min(superpixels, pixels[..., 0].size), compactness, start_label=0, channel_axis=-1)
    cells = numbered(torch.from_numpy(cells))
    if cells.count > k:
        points = torch.from_numpy(_points(small, position)).T[None]
        _, mean, _ = ops.regional_stats(points, cells.labels.reshape(1, -1), cells.count)
        groups = torch.from_numpy(AgglomerativeClustering(k).fit_predict(mean[0].numpy()))
        cells = numbered(groups[cells.labels])
    return numbered(resized(cells.labels, tuple(rgb.shape[2:])).to(rgb.device))


def by_torchvision(
    rgb: Tensor,
    *,
    model: str = "lraspp_mobilenet_v3_large",
    weights: str = "default",
    network: nn.Module | None = None,
) -> Regions:
    """A network of torchvision: by default 20 kinds of things and animals of Pascal VOC, and `__background__`.

    Args:
        rgb: as in `segment`, at most 16 times as long as wide.
        model: `"lraspp_mobilenet_v3_large"` (12 MB), `"deeplabv3_mobilenet_v3_large"`, `"deeplabv3_resnet50"`, ...
        weights: of torchvision, by name; how pictures are scaled and normalized comes with them, and the names.
        network: a ready one in place of the downloaded, put into evaluation mode; with another number of classes
            than `weights` its regions are called `class 0`, `class 1`, ...

    Raises:
        ValueError: an unknown model or unknown weights; lists the known.
        SegmentError: torchvision is not installed, or the weights cannot be downloaded.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise SegmentError(f"torchvision is not installed: {_INSTALL}; {_OFFLINE}") from error
    if model not in (known := models.list_models(models.segmentation)):
        raise ValueError(f"model: expected one of {', '.join(known)}, got {model!r}")
    zoo = models.get_model_weights(model)
    if weights.upper() not in zoo.__members__:
        raise ValueError(f"weights: expected one of {', '.join(zoo.__members__)}, got {weights!r}")
    chosen = zoo[weights.upper()]
    _check_proportions(rgb)
    network = _torchvision_network(model, chosen) if network is None else network
    with torch.inference_mode():
        logits = network.to(rgb.device).eval()(chosen.transforms()(rgb))["out"]
        logits = functional.interpolate(logits, rgb.shape[2:], mode="bilinear", align_corners=False)
        labels = logits[0].argmax(0)
    names = chosen.meta["categories"]
    return numbered(labels.clone(), names if len(names) == logits.shape[1] else _Classes())


@functools.lru_cache(maxsize=2)
def _torchvision_network(model: str, weights) -> nn.Module:
    from torchvision import models

    try:
        return models.get_model(model, weights=weights)
    except (OSError, RuntimeError) as error:
        remedy = f"go online once, pass network=..., or do without: {_OFFLINE}"
        raise SegmentError(
            f"{model}: the weights {weights.name} are not here, and their download failed ({_line(error)}); {remedy}"
        ) from error


def by_transformers(
    rgb: Tensor,
    *,
    model: str = "nvidia/segformer-b0-finetuned-ade-512-512",
    task: str = "semantic",
    network: nn.Module | None = None,
    processor: Callable | None = None,
) -> Regions:
    """A network of the Hugging Face hub: SegFormer, BEiT, UPerNet (Swin), MaskFormer, Mask2Former (Swin), ...

    Args:
        rgb: as in `segment`, at most 16 times as long as wide.
        model: id on the hub, or a folder. The default is small and names 150 kinds of places and things (ADE20K).
        task: `"semantic"`, or `"panoptic"` for MaskFormer and Mask2Former: there all things of a kind are one region,
            and what no mask claims is `UNLABELED`.
        network, processor: ready ones in place of those of `model`, e.g. `SegformerForSemanticSegmentation` and
            `SegformerImageProcessor`; the network is put into evaluation mode.

    Raises:
        ValueError: an unknown task, one that the network does not know, or a network without its processor.
        SegmentError: transformers is not installed, or the network is neither here nor on the hub.
    """
    if task not in ("semantic", "panoptic"):
        raise ValueError(f"task: expected semantic or panoptic, got {task!r}")
    if (network is None) != (processor is None):
        raise ValueError("network and processor: expected both or neither; a network needs its own processor")
    _check_proportions(rgb)
    if network is None:
        network, processor = _transformers_network(model)
    if (finish := getattr(processor, f"post_process_{task}_segmentation", None)) is None:
        raise ValueError(f"task: {type(network).__name__} knows no {task} segmentation; use another network or task")
    # the axes are told, or a picture three pixels wide would be taken for one with its channels there
    inputs = processor(images=images.to_uint8(rgb), input_data_format="channels_last", return_tensors="pt")
    size, kinds = tuple(rgb.shape[2:]), _Classes(network.config.id2label)
    with torch.inference_mode():
        outputs = network.to(rgb.device).eval()(**inputs.to(rgb.device))
        if task == "semantic":
            return numbered(finish(outputs, target_sizes=[size])[0].long().clone(), kinds)
        found = finish(outputs, target_sizes=[size], label_ids_to_fuse=set(network.config.id2label))[0]
        segments = found["segmentation"].long().clone()
    names = {entry["id"]: kinds[entry["label_id"]] for entry in found["segments_info"]}
    return numbered(segments, {number: names.get(number, UNLABELED) for number in torch.unique(segments).tolist()})


@functools.lru_cache(maxsize=2)
def _transformers_network(model: str) -> tuple[nn.Module, Callable]:
    try:
        from huggingface_hub import HfApi
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation
        from transformers import AutoModelForUniversalSegmentation as Universal
    except ImportError as error:
        raise SegmentError(f"transformers is not installed: {_INSTALL}; {_OFFLINE}") from error

    def load(**where: bool) -> tuple[nn.Module, Callable]:
        config = AutoConfig.from_pretrained(model, **where)
        kind = Universal if type(config) in Universal._model_mapping else AutoModelForSemanticSegmentation
        return kind.from_pretrained(model, config=config, **where), AutoImageProcessor.from_pretrained(model, **where)

    try:
        try:
            return load(local_files_only=True)
        except Exception:
            if Path(model).exists():
                raise
        HfApi().model_info(model, timeout=2)  # where there is no way to the hub, loading would try for 23 seconds
        return load()
    except Exception as error:  # network, rights, a wrong id, another kind of network: the hub has many ways to say no
        remedy = f"go online once, pass network=... and processor=..., or do without: {_OFFLINE}"
        raise SegmentError(
            f"{model}: not a network for segmentation on this machine, and the hub gave none ({_line(error)}); {remedy}"
        ) from error


#: What stands behind each name of `segment`.
BACKENDS: dict[str, Callable[..., Regions]] = {
    "slic": by_slic,
    "kmeans": by_kmeans,
    "torchvision": by_torchvision,
    "transformers": by_transformers,
}


class _Classes(dict):
    """Names by number; what has none is called by its number."""

    def __missing__(self, number: int) -> str:
        return f"class {number}"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _positive(**counts: int) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name}: expected a whole number of at least 1, got {count!r}")


def _number(name: str, value: float, above: bool) -> None:
    """A finite number, above 0 or at least 0."""
    fits = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not fits or not (value > 0 if above else value >= 0) or value == float("inf"):
        raise ValueError(f"{name}: expected a number {'above' if above else 'of at least'} 0, got {value!r}")


def _check_proportions(rgb: Tensor) -> None:
    short, long = sorted(rgb.shape[2:])
    if long > _LONGEST * short:
        raise ValueError(f"rgb: {short} x {long} pixels are too narrow for a network; {_OFFLINE}")


def _shrunk(rgb: Tensor, long_side: int) -> Tensor:
    """Scaled down by averaging until the long side is at most this."""
    size: Sequence[int] = rgb.shape[2:]
    if max(size) <= long_side:
        return rgb
    return functional.interpolate(rgb, [max(1, round(side * long_side / max(size))) for side in size], mode="area")


def _points(rgb: Tensor, position: float) -> np.ndarray:
    """Lab of every pixel, and where it is, `(H * W, 3 or 5)`; the long side counts as `position` Lab units."""
    points = rgb_to_lab(rgb)[0]
    if position:
        longest = max(rgb.shape[2:])
        places = [
            (torch.arange(side, dtype=rgb.dtype, device=rgb.device) + 0.5) * position / longest
            for side in rgb.shape[2:]
        ]
        points = torch.cat([points, torch.stack(torch.meshgrid(*places, indexing="ij"))])
    return points.flatten(1).T.contiguous().cpu().numpy()
