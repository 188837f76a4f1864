"""Splits that stay: by the hash of the image's id, and the few named ones of the literature."""

import hashlib
import math
from collections.abc import Hashable, Iterable, Mapping

CAMVID_UNSEEN = ("Seq05VD",)  # the one test sequence that shares no street with train: 171 of 233 frames
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def place(image_id: Hashable, seed: int = 0) -> float:
    """A number in [0, 1) that depends on nothing but the id and the seed: SHA-256 of `"seed:id"`."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split(
    ids: Iterable[Hashable], fractions: Mapping[str, float] | None = None, seed: int = 0
) -> dict[str, list[Hashable]]:
    """Divide ids into named parts; an id's part never changes when others come or go.

    Each id falls where its hash falls, so the sizes follow the fractions only on average. Give ids of photographs, not
    of renditions or crops: all versions of one photograph must land in one part.

    Args:
        ids: unique ids, in any order; the order inside a part is theirs.
        fractions: part -> share, adding up to 1; default 80 / 10 / 10.
        seed: another seed gives another split.

    Raises:
        ValueError: shares negative or not adding up to 1, or an id twice.

    Taught in: notebooks/01_prepare_data
    """
    fractions = dict(FRACTIONS if fractions is None else fractions)
    shares = list(fractions.values())
    if not shares or min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
        raise ValueError(f"split: shares must be >= 0 and add up to 1, got {fractions}")
    parts: dict[str, list[Hashable]] = {name: [] for name in fractions}
    ends = [math.fsum(shares[: n + 1]) for n in range(len(shares))]
    last = max(n for n, share in enumerate(shares) if share > 0)
    names, seen = list(fractions), set()
    for image_id in ids:
        if image_id in seen:
            raise ValueError(f"split: id {image_id!r} comes twice; pass each photograph once")
        seen.add(image_id)
        where = place(image_id, seed)
        parts[names[next((n for n, end in enumerate(ends) if where < end), last)]].append(image_id)
    return parts


def every_fifth(ids: Iterable[str]) -> dict[str, list[str]]:
    """FiveK as in Wp-Zhang/Deep-Color-Transfer: of the sorted ids, number 0, 5, 10, ... validate (1,000 of 5,000).

    The same photographs are held out for every rendition. Meant for all 5,000: on a part of them the choice shifts.
    """
    ordered = sorted(ids)
    return {"train": [key for n, key in enumerate(ordered) if n % 5], "val": ordered[::5]}


def first_thousand(names: Iterable[str]) -> list[str]:
    """ImageNet validation pictures 1 to 1,000, on which Zhang et al. 2016 / 2017 validate.

    Args:
        names: stems `ILSVRC2012_val_00000001` ...
    """
    return sorted(name for name in names if 1 <= int(name.rpartition("_")[2]) <= 1000)
