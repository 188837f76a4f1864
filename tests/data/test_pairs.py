"""Training pairs: a function of picture and seed, what each kind keeps, and what the loaders leave out."""

import hashlib

import numpy as np
import pytest
import torch
from layouts import picture

from ctlib import color, ops
from ctlib.data import augment, cache, fivek, pairs, photos
from ctlib.data.registry import DataError
from ctlib.recipes import histogram_analogy as recipe

SIDE = 40
ROUNDING = 5e-4  # in CIELAB: a matrix product on one picture adds up in another order than one on a batch


def pictures(count: int = 8, size: int = 48) -> torch.Tensor:
    """Photographs as a loader stacks them, `(count, size, size, 3)` uint8."""
    names = photos.names()
    squares = [cache.resize(photos.load(names[n % len(names)]), (size, size)) for n in range(count)]
    return torch.from_numpy(np.stack(squares))


@pytest.fixture(scope="module")
def rgb() -> torch.Tensor:
    return pictures()


def only(kind: str) -> list[float]:
    return [float(kind == one) for one in pairs.KINDS]


def cached(folder, names, size=(12, 16), **options) -> cache.Cache:
    """A cache of noise pictures of these names."""
    return cache.build([picture(folder / f"{name}.png", **options) for name in names], folder / "cache", size)


@pytest.mark.parametrize("luts", [None, torch.rand(3, 3, 5, 5, 5)], ids=["plain", "luts"])
def test_a_pair_is_a_function_of_picture_and_seed(rgb, luts):
    seeds = list(range(8))
    batch = pairs.photo_pairs(rgb, seeds, SIDE, luts=luts)
    turned = pairs.photo_pairs(rgb.flip(0), seeds[::-1], SIDE, luts=luts)
    alone = [pairs.photo_pairs(rgb[n : n + 1], seeds[n : n + 1], SIDE, luts=luts) for n in range(8)]
    for name in pairs.Pair._fields:
        whole, others = getattr(batch, name), torch.cat([getattr(one, name) for one in alone])
        for found in (others, getattr(turned, name).flip(0)):
            off = (found - whole).abs()
            # a pixel between two colors of a palette may go to either
            assert off.max() < ROUNDING or (name == "reference" and (off > ROUNDING).double().mean() < 0.01)
    other = pairs.photo_pairs(rgb, [seed + 100 for seed in seeds], SIDE, luts=luts)
    assert ((other.source - batch.source).abs().amax((1, 2, 3)) > 1).all()


def test_renditions_pairs_are_a_function_of_pictures_and_seed(rgb):
    other, seeds = rgb.flip(3), list(range(8))  # blue for red
    for hue in (True, False):
        batch = pairs.rendition_pairs(rgb, other, seeds, SIDE, hue=hue)
        for n in (0, 5):
            alone = pairs.rendition_pairs(rgb[n : n + 1], other[n : n + 1], seeds[n : n + 1], SIDE, hue=hue)
            for one, many in zip(alone, batch, strict=True):
                assert (one[0] - many[n]).abs().max() < ROUNDING


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_pairs_are_colors(rgb, kind):
    pair = pairs.photo_pairs(rgb, range(8), SIDE, shares=only(kind))
    assert pair.source.shape == pair.target.shape == (8, 3, SIDE, SIDE)
    assert pair.reference.flatten(2).shape == (8, 3, SIDE * SIDE)
    for lab in pair:
        assert lab.dtype == torch.float32 and lab.isfinite().all()
        assert lab[:, 0].min() >= 0 and lab[:, 0].max() <= 100.01 and lab[:, 1:].abs().max() < 200
        assert (lab[:, 1:].flatten(2).std(2) > 0.5).all()


def test_retouch_pairs(rgb):
    pair = pairs.photo_pairs(rgb, range(8), SIDE, shares=only("retouch"))
    assert torch.equal(pair.reference.view_as(pair.target), pair.target)
    assert ((pair.source - pair.target).abs().mean((1, 2, 3)) > 0.3).all()
    for lab in pair[:2]:
        assert color.in_gamut(lab, tolerance=0.01).all()


def test_a_quarter_of_the_sources_is_the_photograph_itself(rgb):
    seeds = range(200)
    uniform, _ = pairs.draw(seeds)
    few = rgb[torch.arange(200) % 8]
    source = pairs.photo_pairs(few, seeds, 16, shares=only("retouch")).source
    plain = ops.rgb_to_lab(pairs.crop(few, uniform, 16))
    same = (source - plain).abs().amax((1, 2, 3)) < 0.05
    assert 0.15 < same.double().mean() < 0.35


def test_hue_pairs_keep_lightness(rgb):
    pair = pairs.photo_pairs(rgb, range(8), SIDE, shares=only("hue"))
    assert (pair.source[:, 0] - pair.target[:, 0]).abs().max() < 1e-4
    assert ((pair.source - pair.target)[:, 1:].abs().mean((1, 2, 3)) > 1).all()
    assert torch.equal(pair.reference.view_as(pair.target), pair.target)


def test_identity_pairs(rgb):
    pair = pairs.photo_pairs(rgb, range(8), SIDE, shares=only("identity"))
    assert torch.equal(pair.source, pair.target)
    assert torch.equal(pair.reference.view_as(pair.target), pair.target)
    retouched = pairs.photo_pairs(rgb, range(8), SIDE, shares=only("retouch"))
    assert torch.equal(pair.source, retouched.source)  # of a retouching, not of the photograph


def test_palette_pairs(rgb):
    pair = pairs.photo_pairs(rgb, range(8), SIDE, shares=only("palette"))
    retouched = pairs.photo_pairs(rgb, range(8), SIDE, shares=only("retouch"))
    assert torch.equal(pair.source, retouched.source) and torch.equal(pair.target, retouched.target)
    colors = [len(one.T.unique(dim=0)) for one in pair.reference]
    assert all(2 <= count <= 8 for count in colors) and len(set(colors)) > 2
    off = (pair.reference - pair.target.flatten(2)).norm(dim=1).mean(1)
    spread = (pair.target.flatten(2) - pair.target.flatten(2).mean(2, keepdim=True)).norm(dim=1).mean(1)
    assert (off < 0.7 * spread).all() and (off > 0).all()


def test_kinds_come_in_their_shares():
    """By the number alone that decides, for the default shares."""
    uniform, _ = pairs.draw(range(2000))
    counts = torch.histc(uniform[:, 4], 20, 0, 1) / 2000
    assert counts.sum() == 1 and counts == pytest.approx(torch.full((20,), 0.05), abs=0.02)
    few = pictures(1).expand(400, -1, -1, -1)
    pair = pairs.photo_pairs(few, range(400), 8)
    same = (pair.source - pair.target).abs().amax((1, 2, 3)) == 0
    painted = torch.tensor([len(one.T.unique(dim=0)) <= 8 for one in pair.reference])
    level = (pair.source[:, 0] - pair.target[:, 0]).abs().amax((1, 2)) < 1e-4
    found = [share.double().mean().item() for share in (level & ~same & ~painted, same & ~painted, painted)]
    assert found == pytest.approx([0.2, 0.1, 0.15], abs=0.06)


def test_draws_are_those_of_the_seeds():
    uniform, normal = pairs.draw([3, 2**62, 3])
    assert uniform.shape == (3, pairs.DRAWS) and normal.shape == (3, 2, augment.KNOBS)
    assert torch.equal(uniform[0], uniform[2]) and torch.equal(normal[0], normal[2])
    assert not torch.equal(uniform[0], uniform[1]) and not torch.equal(normal[0, 0], normal[0, 1])
    assert torch.equal(pairs.draw(torch.tensor([3]).tolist())[0][0], uniform[0])


def test_crops_lie_inside_and_are_mirrored():
    """A ramp tells where each square was taken and which way round."""
    ramp = torch.arange(200, dtype=torch.uint8)
    rows, columns = ramp[:, None].expand(200, 200), ramp.expand(200, 200)
    uniform, _ = pairs.draw(range(64))
    crops = 255 * pairs.crop(torch.stack([columns, rows, rows], -1).expand(64, -1, -1, -1), uniform, 50)
    assert crops.shape == (64, 3, 50, 50) and torch.equal(crops[:, 1], crops[:, 2])
    across, down = crops[:, 0, 25, -1] - crops[:, 0, 25, 0], crops[:, 1, -1, 25] - crops[:, 1, 0, 25]
    assert across.abs() == pytest.approx(down, abs=2)  # square
    assert (down > 0).all() and 0.25 < (across < 0).double().mean() < 0.75
    parts = (down + 4) / 200  # the pixels' own width is not between their middles
    assert parts.min() > 0.58 and parts.max() < 1.02 and parts.max() - parts.min() > 0.25
    assert crops[:, 1, 0, 25].std() > 5 and crops[:, 0, 25, 25].std() > 5


def test_renditions_are_cropped_alike(rgb):
    half = rgb // 2
    pair = pairs.rendition_pairs(rgb, half, range(8), SIDE, hue=False)
    source, target = (color.lab_to_rgb(lab) for lab in pair[:2])
    assert (target - source / 2).abs().max() < 1 / 255
    assert torch.equal(pair.reference, pair.target.flatten(2))
    assert (pair.source - ops.rgb_to_lab(pairs.crop(rgb, pairs.draw(range(8))[0], SIDE))).abs().max() == 0


def test_each_rendition_has_its_own_hue(rgb):
    other = rgb // 8 * 8  # as good as equal
    plain = pairs.rendition_pairs(rgb, other, range(8), SIDE, hue=False)
    pair = pairs.rendition_pairs(rgb, other, range(8), SIDE)
    for before, after in zip(plain[:2], pair[:2], strict=True):
        assert (before[:, 0] - after[:, 0]).abs().max() < 1e-4
        assert ((before - after)[:, 1:].abs().mean((1, 2, 3)) > 0.5).all()
    assert ((pair.source - pair.target)[:, 1:].abs().mean((1, 2, 3)) > 0.5).all()
    assert torch.equal(pair.reference, pair.target.flatten(2))


def test_equal_renditions_stay_an_identity_pair(rgb):
    other = rgb.clone()
    other[1, 0, 0, 0] ^= 1
    pair = pairs.rendition_pairs(rgb, other, range(8), SIDE)
    same = (pair.source == pair.target).flatten(1).all(1)
    assert same.tolist() == [True, False, *[True] * 6]
    assert (pair.source - pairs.rendition_pairs(rgb, other, range(8), SIDE, hue=False).source).abs().max() > 1


def test_as_palette_finds_the_colors_of_a_palette():
    colors = torch.tensor([[20.0, 5, 5], [40, -30, 9], [70, 30, -40], [90, 0, 60]]).T
    lab = colors[:, torch.randint(4, (3000,), generator=torch.Generator().manual_seed(0))]
    assert (pairs.as_palette(lab, 4) - lab).abs().max() < 1e-3
    fewer = pairs.as_palette(lab, 3)
    assert len(fewer.T.unique(dim=0)) == 3
    assert fewer.mean(1) == pytest.approx(lab.mean(1), abs=2)  # each color is the mean of its cluster, on a sample


def test_as_palette_looks_everywhere():
    """Equal steps through a picture as wide as a power of two meet four of its columns."""
    lab = torch.tensor([20.0, 5, 5])[:, None, None].repeat(1, 256, 256)
    lab[:, :, 70:120] = torch.tensor([70.0, 30, -40])[:, None, None]
    assert len(pairs.as_palette(lab.flatten(1), 3).T.unique(dim=0)) == 2


@pytest.mark.parametrize("pixels", [1, 2, 5, 5000])
def test_as_palette_of_a_constant_picture(pixels):
    lab = torch.tensor([50.0, -20, 30])[:, None].expand(3, pixels)
    for k in (3, 8):
        assert (pairs.as_palette(lab, k) - lab).abs().max() < 1e-4


def test_photos_leave_gray_pictures_out(tmp_path):
    colored = cached(tmp_path / "one", ["a", "b"])
    gray = cached(tmp_path / "two", ["c", "d"], gray=True)
    data = pairs.Photos(gray, colored)
    assert len(data) == 2
    with pytest.raises(DataError, match="all 2 pictures are gray"):
        pairs.Photos(gray)
    item = data[1, 77]
    assert item["seed"] == 77 and item["rgb"].dtype == torch.uint8 and item["rgb"].shape == (12, 16, 3)
    assert np.array_equal(item["rgb"], colored.images[1])
    item["rgb"].zero_()  # a copy: the cache is not touched
    assert np.array_equal(data[1, 77]["rgb"], colored.images[1]) and colored.images[1].any()


def test_a_tint_of_two_levels_is_gray():
    """A scan of a gray picture is never gray to the last level."""
    scan = np.full((12, 16, 3), 100, np.uint8)
    for step in (0, 2, 3, 155):
        scan[..., 2] = 100 + step
        assert pairs._is_colored(scan) == (step > 2)


def test_manifest_of_photos_names_files_and_hashes(tmp_path):
    colored, gray = cached(tmp_path / "one", ["a", "b"]), cached(tmp_path / "two", ["c"], gray=True)
    wanted = {
        f"cache/{row:05d} {name}.png": hashlib.sha256((tmp_path / "one" / f"{name}.png").read_bytes()).hexdigest()
        for row, name in enumerate("ab")
    }
    assert pairs.Photos(colored, gray).manifest == wanted


def test_caches_of_different_sizes_are_refused(tmp_path):
    caches = [cached(tmp_path / str(size[0]), ["a"], size) for size in ((12, 16), (16, 16))]
    with pytest.raises(DataError, match="different sizes"):
        pairs.Photos(*caches)
    with pytest.raises(DataError, match="at one size"):
        pairs.Renditions(*caches)
    with pytest.raises(DataError, match="the same photographs"):
        pairs.Renditions(caches[0], cached(tmp_path / "more", ["a", "b"]))


class Numbered:
    """Stands for the cache of a rendition: each picture tells its rendition's number and its own."""

    def __init__(self, number: int):
        self.images = np.zeros((2, 2, 2, 3), np.uint8)
        self.images[..., 0], self.images[1, ..., 1] = number, 1

    def __len__(self) -> int:
        return len(self.images)


def test_renditions_are_drawn_independently():
    data = pairs.Renditions(*map(Numbered, range(6)))
    assert len(data) == 2
    drawn = [data[seed % 2, seed] for seed in range(3000)]
    assert all(item["rgb"][0, 0, 1] == item["other"][0, 0, 1] == item["seed"] % 2 for item in drawn)  # one photograph
    ordered = [(item["rgb"][0, 0, 0].item(), item["other"][0, 0, 0].item()) for item in drawn]
    counts = {pair: ordered.count(pair) for pair in set(ordered)}
    assert len(counts) == 36 and min(counts.values()) > 3000 / 36 / 2 and max(counts.values()) < 3000 / 36 * 2
    assert sum(one == other for one, other in ordered) / 3000 == pytest.approx(1 / 6, abs=0.025)
    again = data[1, 17]
    assert torch.equal(again["rgb"], drawn[17]["rgb"]) and torch.equal(again["other"], drawn[17]["other"])


def test_the_draw_of_renditions_says_nothing_about_the_crop():
    """Both come from the same seed."""
    data = pairs.Renditions(*map(Numbered, range(6)))
    number = torch.tensor([data[0, seed]["rgb"][0, 0, 0].item() for seed in range(2000)]).double()
    uniform, _ = pairs.draw(range(2000))
    for column in (0, 1, 3, 8):
        assert torch.corrcoef(torch.stack([number, uniform[:, column].double()]))[0, 1].abs() < 0.08


def test_fivek_through_the_recipe(tmp_path, monkeypatch):
    for rendition in fivek.RENDITIONS:
        for name in ("a0001-jmac_DSC1459", "a0002-dgw_005", "a0003-NKIM_MG_8178", "a0004-jmac_DSC1460"):
            picture(tmp_path / "fivek" / rendition / f"{name}.jpg", (80, 70))
    (tmp_path / "fivek" / "b" / "a0002-dgw_005.jpg").unlink()
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    monkeypatch.setattr(recipe, "cache_dir", lambda name: tmp_path / "caches" / name)
    with pytest.warns(UserWarning, match="fivek: 2 photographs to train on, of thousands: is this a sample?"):
        data = recipe.renditions(64)
    assert len(data) == 2 and len(data.caches) == 6, "one has not all renditions, and every fifth is held out"
    assert sorted(path.name for path in (tmp_path / "caches").iterdir()) == [
        f"fivek-{name}-64" for name in ("a", "b", "c", "d", "e", "raw")
    ]
    item = data[1, 5]
    assert item["rgb"].shape == item["other"].shape == (64, 64, 3)
    assert any(np.array_equal(item["rgb"], one.images[1]) for one in data.caches)
    manifest = data.manifest
    assert len(manifest) == 12
    file = tmp_path / "fivek" / "c" / "a0003-NKIM_MG_8178.jpg"
    assert manifest["fivek-c-64/a0003-NKIM_MG_8178.jpg"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_without_fivek_the_recipe_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"fivek: .*CTLIB_DATA"):
        recipe.renditions(64)
