"""What belongs together in a picture: label maps, from the colors or from a network, their partners, soft borders.

A method that treats sky like sky and grass like grass takes four steps:

    source, reference = (drop_small(segment(rgb)) for rgb in (source_rgb, reference_rgb))
    source_labels, reference_labels = match(source, reference, source_rgb, reference_rgb)
    weights = soften(source_labels, source_rgb, int(source_labels.max()) + 1)

and mixes what it does in each region by `weights`; the last of them is for what has no partner. The default needs no
network and no download. `given` takes label maps that were made elsewhere.
"""

from ctlib.segment.backends import BACKENDS, SegmentError, segment
from ctlib.segment.partners import match
from ctlib.segment.regions import UNLABELED, Regions, disk, drop_small, given, label_colors
from ctlib.segment.soft import soften

__all__ = [
    "BACKENDS",
    "UNLABELED",
    "Regions",
    "SegmentError",
    "disk",
    "drop_small",
    "given",
    "label_colors",
    "match",
    "segment",
    "soften",
]
