"""Pairs for palette networks: a function of picture and seed, lightness kept, palettes that go with their pictures."""

import numpy as np
import pytest
import torch
from layouts import picture

from ctlib import color, metrics, ops
from ctlib.data import cache, pairs, palettes, photos
from ctlib.data.palettes import PalettePhotos, hue_pairs, palette_of
from ctlib.data.registry import DataError

SIDE = 48


@pytest.fixture(scope="module")
def rgb() -> torch.Tensor:
    names = ("coffee", "china", "flower", "astronaut")
    return torch.from_numpy(np.stack([cache.resize(photos.load(name), (SIDE, SIDE)) for name in names]))


@pytest.fixture(scope="module")
def wanted(rgb) -> torch.Tensor:
    return torch.stack([palette_of(one.numpy(), 5) for one in rgb]).float()


def cached(folder, count=3, size=(12, 16), **options) -> cache.Cache:
    return cache.build([picture(folder / f"{n}.png", **options) for n in range(count)], folder / "cache", size)


@pytest.mark.parametrize("saturation", [False, True])
def test_a_pair_is_a_function_of_picture_and_seed(rgb, wanted, saturation):
    seeds, options = [5, 6, 7, 2**62], {"crop": 1.0, "saturation": saturation}
    batch = hue_pairs(rgb, wanted, seeds, 32, **options)
    again = hue_pairs(rgb, wanted, seeds, 32, **options)
    turned = hue_pairs(rgb.flip(0), wanted.flip(0), seeds[::-1], 32, **options)
    for whole, same, other in zip(batch, again, turned, strict=True):
        assert torch.equal(whole, same)
        assert (whole - other.flip(0)).abs().max() < 5e-4  # rounding
    assert (hue_pairs(rgb, wanted, [1, 2, 3, 4], 32, **options).target - batch.target).abs().max() > 1


def test_lightness_is_kept_and_the_palette_moves_with_the_picture(rgb, wanted):
    pair = hue_pairs(rgb, wanted, range(4), SIDE)
    assert pair.source.shape == pair.target.shape == (4, 3, SIDE, SIDE)
    assert pair.own.shape == pair.palette.shape == (4, 3, 5)
    assert (pair.source[:, 0] - pair.target[:, 0]).abs().max() < 1e-3
    assert torch.equal(pair.own[:, 0], pair.palette[:, 0]) and torch.equal(pair.own[:, 0], wanted[:, :, 0])
    assert (pair.palette[:, 0].diff(dim=1) >= 0).all()
    assert (pair.target - pair.source)[:, 1:].abs().mean() > 3
    near, far = [], []
    for one, moved, other in zip(pair.target, pair.palette, pair.own, strict=True):
        shown = (color.lab_to_rgb(one[None])[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        fresh = palette_of(shown, 5)
        near.append(metrics.palette_distance(fresh, moved.T).item())
        far.append(metrics.palette_distance(fresh, other.T).item())
    assert sum(near) < 0.5 * sum(far)  # found in the turned picture, or turned: about the same colors


def test_a_palette_of_single_colors_moves_as_the_pixels_do():
    """Where each color of the palette is a color of the picture, both have the same one after."""
    colors = torch.randint(0, 256, (3, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rgb = colors[:, None].expand(-1, 4, -1, -1)
    lab = ops.rgb_to_lab(colors.transpose(1, 2)).transpose(1, 2)
    for saturation in (False, True):
        pair = hue_pairs(rgb, lab, range(3), 4, saturation=saturation)
        for picture_, moved in ((pair.source, pair.own), (pair.target, pair.palette)):
            near = torch.cdist(moved.transpose(1, 2), picture_.flatten(2).transpose(1, 2)).amin(2)
            assert near.max() < 0.1


def test_a_quarter_of_the_sources_is_the_photograph_itself(rgb, wanted):
    few, colors = rgb[:1, ::4, ::4].expand(200, -1, -1, -1), wanted[:1].expand(200, -1, -1)
    pair = hue_pairs(few, colors, range(200), 12, saturation=True)
    same = (pair.own.transpose(1, 2) - colors).abs().amax((1, 2)) < 0.05
    assert 0.15 < same.double().mean() < 0.35
    plain = ops.rgb_to_lab(few[0].permute(2, 0, 1)[None].float() / 255)
    off = torch.minimum((pair.source - plain).abs(), (pair.source - plain.flip(3)).abs()).amax((1, 2, 3))
    assert (off[same] < 0.05).all() and (off[~same] > 0.05).all()  # and nothing is cut off


@pytest.mark.parametrize("method", palettes.METHODS)
def test_palettes_are_dark_to_light_whatever_the_picture(method):
    for name in ("coffee", "china"):
        image = cache.resize(photos.load(name), (64, 64))
        for colors in (1, 4, 12):
            found = palette_of(image, colors, method)
            assert found.shape == (colors, 3) and found.dtype == torch.float64 and (found[:, 0].diff() >= 0).all()
            assert color.in_gamut(found.T[None], tolerance=0.02).all()
            assert torch.equal(found, palette_of(image, colors, method))
    red = np.zeros((8, 8, 3), np.uint8)
    red[:5, :, 0] = 255
    found = palette_of(red, 6, method)  # two colors, each several times
    assert found.shape == (6, 3)
    known = torch.tensor([[0.0, 0, 0], [53.24, 80.09, 67.20]], dtype=torch.float64)
    assert torch.cdist(found, known).amin(1).max() < 0.1 and torch.cdist(known, found).amin(1).max() < 0.1
    assert palette_of(red[:1, :1], 3, method).unique(dim=0).shape == (1, 3)


def test_wrong_palettes_are_named():
    image = np.zeros((2, 2, 3), np.uint8)
    for colors in (0, 13, 2.0):
        with pytest.raises(ValueError, match="colors: expected a whole number from 1 to 12"):
            palette_of(image, colors)
    with pytest.raises(ValueError, match="palettes: expected one of chang, kmeans, got 'median'"):
        palette_of(image, 3, "median")


def test_palettes_are_found_once(tmp_path, monkeypatch):
    kept = cached(tmp_path)
    first = palettes.palettes(kept, 4)
    assert first.shape == (3, 4, 3) and first.dtype == np.float32
    assert np.allclose(first[1], palette_of(np.asarray(kept.images[1]), 4), atol=1e-4)
    other = palettes.palettes(kept, 4, "kmeans")
    assert not np.array_equal(other, first)
    monkeypatch.setattr(palettes, "palette_of", lambda *_: pytest.fail("found again"))
    assert np.array_equal(palettes.palettes(cache.Cache(kept.folder), 4), first)


def test_stale_and_damaged_palettes_are_found_anew(tmp_path):
    first = palettes.palettes(cached(tmp_path), 4)
    second = cached(tmp_path, gray=True)  # other pictures in the same place
    found = palettes.palettes(second, 4)
    assert not np.array_equal(found, first)
    path = second.folder / "palettes-chang-4.npz"
    for damage in (b"", path.read_bytes()[:100], b"\x80\x05no array"):
        path.write_bytes(damage)
        assert np.array_equal(palettes.palettes(second, 4), found)


def test_palettes_that_cannot_be_kept(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(palettes, "replacing", full)
    with pytest.raises(DataError, match=r"cannot keep the palettes .No space left on device.; make room"):
        palettes.palettes(cached(tmp_path), 4)


def test_photos_come_with_their_palettes(tmp_path):
    gray, colored = cached(tmp_path / "gray", gray=True), cached(tmp_path / "colored")
    data = PalettePhotos(gray, colored, colors=3)
    assert len(data) == 3
    item = data[2, 77]
    assert item["seed"] == 77 and np.array_equal(item["rgb"], colored.images[2])
    assert item["palette"].dtype == torch.float32 and item["palette"].shape == (3, 3)
    assert item["palette"].numpy() == pytest.approx(palette_of(np.asarray(colored.images[2]), 3).numpy(), abs=1e-4)
    assert data.manifest == {"palettes": "chang-3"} | pairs.Photos(gray, colored).manifest
    with pytest.raises(ValueError, match="part: expected one of all, train, val, test, got 'dev'"):
        PalettePhotos(colored, part="dev")


def test_parts_share_no_picture(tmp_path):
    one = cached(tmp_path / "one", 30)
    twice = cache.build([tmp_path / "one" / f"{n}.png" for n in range(10)], tmp_path / "two" / "cache", (12, 16))
    parts = {name: PalettePhotos(one, twice, colors=2, part=name) for name in pairs.PARTS}
    hashes = {name: {data.caches[n].sha256[row] for n, row in data.places} for name, data in parts.items()}
    assert len(parts["all"]) == 40 == sum(len(parts[name]) for name in pairs.PARTS[1:])
    assert len(hashes["train"]) > len(hashes["val"]) > 0
    assert not hashes["train"] & hashes["val"] and not hashes["test"] & (hashes["train"] | hashes["val"])
    nine = PalettePhotos(one, colors=2, part="train", fractions={"train": 0.5, "val": 0.5})
    assert 5 < len(nine) < 25
    assert len(PalettePhotos(one, colors=2, part="test", fractions={"train": 0.5, "val": 0.5})) == 0
