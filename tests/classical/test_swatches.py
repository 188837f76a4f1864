"""Swatches: cluster statistics, one-to-one pairs, and the faults of the published version, shown on purpose."""

import pytest
import torch
from skimage import data

from ctlib import color
from ctlib.classical import statistics, swatches


def picture(name, step=8):
    image = torch.from_numpy(getattr(data, name)()[::step, ::step].copy())
    return 0.2 + 0.6 * image.permute(2, 0, 1)[None].double() / 255


def patches(*lab_colors, spread=1.0, count=200, seed=0):
    """A cloud `(1, 3, N)` of sRGB colors: `count` around each of some CIELAB colors."""
    noise = torch.randn(len(lab_colors), count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lab = torch.tensor(lab_colors, dtype=torch.float64)[:, None] + spread * noise
    return color.lab_to_rgb(lab.reshape(-1, 3).T[None])


SOURCE, REFERENCE = picture("astronaut"), picture("coffee")


# ---- clusters


def test_centers_are_found_and_sorted_by_lightness():
    lab = color.rgb_to_lab(patches((80, 0, 20), (20, 10, -20), (50, 40, 30)))[0]
    centers = swatches.clusters(lab, None, 3)
    expected = torch.tensor([[20, 10, -20], [50, 40, 30], [80, 0, 20]], dtype=torch.float64)
    torch.testing.assert_close(centers, expected, rtol=0, atol=0.3)


def test_counts_pull_the_center():
    lab = torch.tensor([[20.0, 20, 80, 90], [0, 10, 0, 0], [0, 0, 0, 0]])
    centers = swatches.clusters(lab, torch.tensor([3.0, 1, 1, 4]), 2)
    torch.testing.assert_close(centers, torch.tensor([[20.0, 2.5, 0], [88, 0, 0]]))


def test_few_colors_make_few_centers():
    lab = torch.tensor([[20.0, 20, 80], [0, 0, 0], [0, 0, 0]])
    assert swatches.clusters(lab, None, 8).tolist() == [[20, 0, 0], [80, 0, 0]]


def test_a_large_cloud_is_sampled_by_its_counts():
    lab = color.rgb_to_lab(patches((30, 0, 0), (70, 0, 0), count=15_000))[0]
    even, heavy = torch.ones(30_000), torch.ones(30_000)
    heavy[15_000:] = 1e-6  # the light half hardly counts, so both centers fall into the dark half
    torch.testing.assert_close(
        swatches.clusters(lab, even, 2)[:, 0], torch.tensor([30.0, 70]).double(), rtol=0, atol=0.3
    )
    assert (swatches.clusters(lab, heavy, 2)[:, 0] < 35).all()
    assert (swatches.clusters(lab, None, 2)[:, 0] - torch.tensor([30.0, 70])).abs().max() < 0.3


# ---- the corrected method


def test_each_cluster_takes_the_mean_and_spread_of_its_partner():
    source = patches((30, 10, 20), (75, -10, 0), spread=3.0)
    reference = patches((25, -15, -10), (70, 20, 30), spread=4.5, seed=1)
    result = color.rgb_to_lab(swatches.swatch(source, reference, k=2)(source))[0]
    wanted = color.rgb_to_lab(reference)[0]
    for part in (slice(0, 200), slice(200, 400)):
        torch.testing.assert_close(result[:, part].mean(1), wanted[:, part].mean(1), rtol=0, atol=0.5)
        torch.testing.assert_close(result[:, part].std(1), wanted[:, part].std(1), rtol=0.1, atol=0)


def test_clusters_are_paired_one_to_one():
    # both source clusters are nearest to the second reference cluster; each must get one of its own
    source = patches((45, 0, 0), (55, 0, 0), spread=0.2)
    reference = patches((20, 0, 0), (60, 0, 0), spread=0.2, count=100)
    result = color.rgb_to_lab(swatches.swatch(source, reference, k=2)(source))[0, 0]
    assert result[:200].mean().item() == pytest.approx(20, abs=1)
    assert result[200:].mean().item() == pytest.approx(60, abs=1)


@pytest.mark.parametrize(("source_colors", "reference_colors"), [(1, 4), (4, 1), (2, 3), (3, 2)])
def test_leftover_clusters_find_a_partner_too(source_colors, reference_colors):
    colors = [(20, 10, 10), (40, -10, 20), (60, 20, -20), (80, 0, 0)]
    source, reference = patches(*colors[:source_colors], spread=0), patches(*colors[:reference_colors], spread=0)
    result = color.rgb_to_lab(swatches.swatch(source, reference)(source))
    distance = torch.cdist(result[0].T, color.rgb_to_lab(reference)[0].T).amin(1)
    assert (distance < 1).all()


def test_a_picture_recolored_by_itself_stays():
    torch.testing.assert_close(swatches.swatch(SOURCE, SOURCE)(SOURCE), SOURCE, rtol=0, atol=1e-5)


def test_one_cluster_is_reinhard():
    one = swatches.swatch(SOURCE, REFERENCE, k=1)(SOURCE)
    torch.testing.assert_close(one, statistics.reinhard(SOURCE, REFERENCE)(SOURCE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fit", [swatches.swatch, swatches.swatch_seed])
def test_the_seed_fixes_the_result(fit):
    first, second = (fit(SOURCE, REFERENCE, seed=7)(SOURCE) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("fit", [swatches.swatch, swatches.swatch_seed])
def test_a_batch_is_a_loop(fit):
    sources, references = torch.cat([SOURCE, 1 - SOURCE]), torch.cat([REFERENCE, REFERENCE.flip(1)])
    loop = torch.cat([fit(s[None], r[None])(s[None]) for s, r in zip(sources, references, strict=True)])
    torch.testing.assert_close(fit(sources, references)(sources), loop, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fit", [swatches.swatch, swatches.swatch_seed])
def test_weights_equal_repeated_pixels(fit):
    source = patches((30, 10, 20), (75, -10, 0), spread=2.0, count=40)
    reference = patches((25, -15, -10), (70, 20, 30), spread=2.0, count=40, seed=1)
    options = {} if fit is swatches.swatch_seed else {"k": 2}
    counts = torch.arange(80) % 3 + 1
    weighted = fit(source, reference, weights=(counts[None].double(), counts[None].double()), **options)
    plain = fit(*(cloud.repeat_interleave(counts, dim=2) for cloud in (source, reference)), **options)
    torch.testing.assert_close(weighted(source), plain(source), rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [0, -1, 17])
def test_a_wrong_number_of_clusters_is_refused(k):
    with pytest.raises(ValueError, match=rf"k: expected 1\.\.16 clusters, got {k}"):
        swatches.swatch(SOURCE, REFERENCE, k=k)


@pytest.mark.parametrize("fit", [swatches.swatch, swatches.swatch_seed])
def test_wrong_pictures_are_named(fit):
    with pytest.raises(ValueError, match="source: holds NaN"):
        fit(SOURCE * torch.nan, REFERENCE)
    with pytest.raises(ValueError, match="reference: expected 3 color channels"):
        fit(SOURCE, REFERENCE[:, :2])


# ---- the published method, with its faults


def test_the_published_version_stretches_any_source_to_all_lightness():
    for dull in (SOURCE, 0.45 + 0.1 * SOURCE):
        lightness = color.rgb_to_lab(swatches.swatch_seed(dull, REFERENCE)(dull))[:, 0]
        assert (lightness.min().item(), lightness.max().item()) == pytest.approx((0, 100), abs=0.01)


def test_the_published_version_does_not_reproduce_its_own_picture():
    published = swatches.swatch_seed(SOURCE, SOURCE)(SOURCE).clamp(0, 1)
    corrected = swatches.swatch(SOURCE, SOURCE)(SOURCE).clamp(0, 1)
    assert (published - SOURCE).abs().mean() > 0.05 > (corrected - SOURCE).abs().mean()
