"""Color transfer, palette recoloring and colorization: the library behind *Color Transfer, Reproduced*.

Rooms: `color` and `images` at the bottom, `classical` (methods without training), `data`, `metrics`, and `methods`,
where every method stands behind one call. Nothing here knows of the notebooks that use it.
"""

__version__ = "0.1.0"
