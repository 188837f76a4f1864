"""Region by region: one region is no region, partners get each other's colors, borders show no seam, hard maps."""

import warnings

import pytest
import torch

from ctlib import methods, metrics, regionwise
from ctlib.data import photos
from ctlib.models.histogram_analogy import Film, HistogramAnalogy
from ctlib.segment import drop_small, match, segment

CLASSICAL = ["reinhard_lab", "mkl_lab", "histogram_rgb", "idt", "chang"]


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def halves(height: int, width: int) -> torch.Tensor:
    """0 on the left, 1 on the right."""
    return (torch.arange(width) >= width // 2).long().expand(height, width)


def two_colors(left: tuple, right: tuple, height: int = 40, width: int = 60, seed: int = 0) -> torch.Tensor:
    colors = torch.tensor([left, right]).T[:, halves(height, width)][None]
    return (colors + 0.05 * (picture(height, width, seed) - 0.5)).clamp(0, 1)


def network(conditioning: str, **options) -> HistogramAnalogy:
    torch.manual_seed(0)
    net = HistogramAnalogy(conditioning, "tiny", init="kaiming", **options).eval()
    for part in net.modules():
        if isinstance(part, Film):
            torch.nn.init.normal_(part.linear.weight, 0.0, 0.1)
    return net


@pytest.mark.parametrize("name", CLASSICAL)
def test_one_label_is_the_whole_picture(name):
    source, reference = picture(24, 30), picture(20, 28, 1) ** 2
    labels = torch.zeros(24, 30, dtype=torch.long), torch.zeros(20, 28, dtype=torch.long)
    torch.manual_seed(0)
    whole = methods.recolor(name, source, reference)
    torch.manual_seed(0)
    assert methods.recolor(name, source, reference, labels=labels) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(
    ("conditioning", "options"),
    [("tile", {}), ("tile_no_norm", {}), ("film", {}), ("film", {"curves": True})],
    ids=["tile", "tile_no_norm", "film", "curves"],
)
def test_one_label_is_the_whole_picture_for_a_network(conditioning, options):
    net, source, reference = network(conditioning, **options), picture(64, 96), picture(50, 40, 1) ** 2
    labels = torch.full((64, 96), 7), torch.full((50, 40), 7)
    whole, part = net.recolor(source, reference), net.recolor(source, reference, labels=labels)
    assert part == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("conditioning", ["tile", "tile_no_norm", "film"])
def test_equal_codes_everywhere_are_one_code(conditioning):
    """The regional path itself: three regions with the histogram of the whole, in double precision."""
    net, seed = network(conditioning).double(), torch.Generator().manual_seed(1)
    unit = 2 * torch.rand(1, 3, 64, 96, generator=seed, dtype=torch.float64) - 1
    histograms = torch.rand(2, 1, 9, 64, 64, generator=seed, dtype=torch.float64).unbind(0)
    weights = torch.rand(1, 3, 64, 96, generator=seed, dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    with torch.no_grad():
        whole, _ = net(unit, *histograms)
        part, _ = net(unit, histograms[0], histograms[1][:, None].expand(-1, 3, -1, -1, -1), regions=weights)
    assert part == pytest.approx(whole, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "slack"), [("mkl_lab", 0.03), ("histogram_rgb", 0.03), ("idt", 0.03), ("analogy", 0.2)]
)
def test_partners_get_the_colors_of_their_partners(name, slack):
    """Swapped labels swap the colors: left becomes what is right in the reference."""
    source = two_colors((0.3, 0.5, 0.3), (0.5, 0.5, 0.6))
    reference = two_colors((0.8, 0.3, 0.2), (0.2, 0.3, 0.8), seed=1)
    left, right = torch.tensor([0.8, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.8])
    for labels, wanted in ((halves(40, 60), (left, right)), (1 - halves(40, 60), (right, left))):
        result = methods.recolor(name, source, reference, labels=(halves(40, 60), labels))
        means = result[0, :, :, :20].mean((1, 2)), result[0, :, :, 40:].mean((1, 2))
        for mean, color in zip(means, wanted, strict=True):
            assert mean == pytest.approx(color, abs=slack)


def test_without_a_partner_the_whole_counts():
    source, reference = picture(24, 30), picture(24, 30, 1) ** 2
    whole = methods.recolor("mkl_lab", source, reference)
    labels = halves(24, 30), torch.where(halves(24, 30) == 1, 5, 0)
    part = methods.recolor("mkl_lab", source, reference, labels=labels)
    assert part[..., 25:] == pytest.approx(whole[..., 25:], abs=0.02)  # the filter's windows reach a little way
    assert not torch.allclose(part[..., :10], whole[..., :10], atol=0.02)


def test_no_shared_label_is_said_and_global():
    source, reference = picture(24, 30), picture(24, 30, 1) ** 2
    labels = torch.zeros(24, 30, dtype=torch.long), torch.ones(24, 30, dtype=torch.long)
    for recolor in (network("film").recolor, lambda *pair, **more: methods.recolor("mkl_lab", *pair, **more)):
        with pytest.warns(UserWarning, match="share none"):
            part = recolor(source, reference, labels=labels)
        assert part == pytest.approx(recolor(source, reference), abs=1e-6)


def test_a_map_of_another_size_is_scaled_and_said():
    source, reference = picture(24, 30), picture(24, 30, 1)
    with pytest.warns(UserWarning, match=r"source's map of \(12, 15\) is scaled to \(24, 30\)"):
        methods.recolor("mkl_lab", source, reference, labels=(halves(12, 15), halves(24, 30)))


def test_distance_is_within_partners():
    reference = two_colors((0.8, 0.3, 0.2), (0.2, 0.3, 0.8))
    swapped = reference.flip(3)
    same, other = (halves(40, 60), halves(40, 60)), (halves(40, 60), 1 - halves(40, 60))
    assert regionwise.distance(reference, reference, same) == 0
    assert regionwise.distance(swapped, reference, same) > 0.9  # the whole histograms are equal
    assert regionwise.distance(swapped, reference, other) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="share none"):
        regionwise.distance(reference, reference, (halves(40, 60), halves(40, 60) + 2))


def test_a_speck_is_no_partner():
    """A region of one pixel would paint its partner in one color."""
    generator = torch.Generator().manual_seed(0)
    source, reference = (torch.rand(1, 3, 64, 64, generator=generator) for _ in range(2))
    own, other = torch.zeros(64, 64, dtype=torch.long), torch.zeros(64, 64, dtype=torch.long)
    own[:, 32:] = 1
    other[5, 5] = 1
    with pytest.warns(UserWarning, match="1 of 2 shared labels cover less than 0.1% of a picture"):
        result = methods.recolor("mkl_rgb", source, reference, labels=(own, other))
    assert result[..., 40:].std() > 0.1
    other[5:8, 5:8] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.recolor("mkl_rgb", source, reference, labels=(own, other))


def test_a_distance_wants_maps_of_its_pictures():
    picture = torch.rand(1, 3, 8, 8)
    maps = torch.zeros(8, 8, dtype=torch.long), torch.zeros(8, 9, dtype=torch.long)
    with pytest.raises(ValueError, match=r"labels: reference is \(8, 8\), its map \(8, 9\)"):
        regionwise.distance(picture, picture, maps)


def test_weights_add_up():
    source = two_colors((0.1,) * 3, (0.9,) * 3)
    pair = regionwise.partners((halves(40, 60), halves(30, 30)), source, picture(30, 30))
    weights = pair.weights(source)
    assert pair.count == 2 and weights.shape == (1, 3, 40, 60)
    assert weights.sum(1) == pytest.approx(torch.ones(1, 40, 60), abs=1e-6)
    assert weights[0, 2].max() == 0 and weights[0, 0, :, 0].min() > 0.99


def test_weights_that_are_all_faint_are_still_numbers():
    """In a large picture one window may see more than a thousand regions, none of which has a share of 1e-3."""
    pair = regionwise.partners((halves(8, 8), halves(8, 8)), picture(8, 8), picture(8, 8))
    pair.soft.weights = lambda *rows: torch.full((1, 2000, 8, 8), 1 / 2000)
    assert pair.weights(picture(8, 8)).sum(1) == pytest.approx(torch.ones(1, 8, 8), abs=1e-5)


def test_more_regions_than_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr("ctlib.segment.soft._MOST", 100_000)
    labels = torch.arange(40 * 60).view(40, 60) // 200  # 12 regions
    message = r"labels: the weights of 1[12] regions of 40 x 60 pixels take 0.0 GB, .*ctlib.segment.drop_small"
    for name in ("mkl_lab", "analogy"):
        with pytest.raises(ValueError, match=message):
            methods.recolor(name, picture(40, 60), picture(40, 60, 1), labels=(labels, labels))


@pytest.mark.parametrize("name", [*CLASSICAL, "analogy"])
def test_regions_of_one_pixel_and_hundreds(name):
    source, reference = picture(32, 32), picture(32, 32, 1)
    one = torch.zeros(32, 32, dtype=torch.long)
    one[5, 7] = 1
    options = {"idt": {"iterations": 2}, "chang": {"k": 2}}.get(name, {})  # a fit for each region: brief ones
    many = torch.arange(32 * 32).view(32, 32) // 8
    for labels in (one, many):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # palettes of one color say so
            result = methods.recolor(name, source, reference, labels=(labels, labels), **options)
        assert result.isfinite().all() and result.min() >= 0 and result.max() <= 1


# what is left is the network's own: on the picked pixels alone it is as far from itself
@pytest.mark.parametrize(("name", "limit"), [("film", 2.0), ("film-curves", 0.7), ("distilled", 1.1)])
def test_a_large_picture_with_labels_is_near_the_network_on_all_its_pixels(name, limit):
    net = HistogramAnalogy.from_pretrained(f"histogram-analogy-{name}-tiny")
    source, reference = (photos.tensor(photo, 512) for photo in ("china", "rocket"))
    labels = match(*(drop_small(segment(rgb, k=4)) for rgb in (source, reference)), source, reference, limit=10)
    whole, part = (net.recolor(source, reference, labels=labels, long_side=side) for side in (512, 200))
    assert metrics.ciede2000(part, whole).item() < limit
    without = net.recolor(source, reference, long_side=200)
    assert metrics.ciede2000(without, whole).item() > 5


def test_eight_bits_take_labels():
    from ctlib import images

    source, reference = (images.to_uint8(picture(24, 30, seed)) for seed in (0, 1))
    labels = halves(24, 30), halves(24, 30)
    result = methods.recolor_uint8("mkl_lab", source, reference, labels=labels)
    exact = methods.recolor("mkl_lab", images.to_tensor(source), images.to_tensor(reference), labels=labels)
    assert (result == images.to_uint8(exact)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            (torch.zeros(24, 30), torch.zeros(24, 30).long()),
            r"labels\[0\]: expected whole numbers \(H, W\), got torch.f",
        ),
        ((torch.zeros(24, 30).long(), [[0]]), r"labels\[1\]: expected whole numbers \(H, W\), got list"),
        ((torch.zeros(24, 30).long(),) * 3, "labels: expected two maps, of source and reference, got 3"),
        (torch.zeros(24, 30).long(), "labels: expected two maps, of source and reference, got Tensor"),
        ((torch.zeros(1, 24, 30).long(), torch.zeros(24, 30).long()), r"labels\[0\]: .*\(1, 24, 30\)"),
    ],
)
def test_maps_that_are_none(labels, message):
    for name in ("mkl_lab", "analogy", "stylization"):
        with pytest.raises(ValueError, match=message):
            methods.recolor(name, picture(24, 30), picture(24, 30, 1), labels=labels)


def test_large_numbers_are_labels_too():
    """Where a table of all numbers up to them would not fit in memory."""
    source, reference = picture(24, 30), picture(24, 30, 1)
    plain = methods.recolor("mkl_lab", source, reference, labels=(halves(24, 30), halves(24, 30)))
    large = halves(24, 30) * ((1 << 40) - 5) + 5
    assert torch.equal(methods.recolor("mkl_lab", source, reference, labels=(large, large)), plain)


def test_a_batch_and_a_palette_have_no_regions():
    source, labels = picture(24, 30), (halves(24, 30), halves(24, 30))
    with pytest.raises(ValueError, match="regions belong to one picture, got a batch of 2"):
        methods.recolor("mkl_lab", source.expand(2, -1, -1, -1), source.expand(2, -1, -1, -1), labels=labels)
    with pytest.raises(ValueError, match="labels: a palette has no regions"):
        methods.recolor("analogy", source, palette=["#ff0000"], labels=labels)
