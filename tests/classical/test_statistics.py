"""Moments and the maps made from them: published matrices, the laws they obey, and pictures that try to break them."""

import pytest
import torch
from skimage import data

from ctlib import color
from ctlib.classical import statistics

KINDS = ("cholesky", "square_root", "monge_kantorovich", "xiao_ma")
SOURCE_COV = torch.tensor([[[0.04, 0.01, 0], [0.01, 0.03, 0.005], [0, 0.005, 0.02]]], dtype=torch.float64)
REFERENCE_COV = torch.tensor([[[0.02, -0.004, 0.001], [-0.004, 0.05, 0.01], [0.001, 0.01, 0.03]]], dtype=torch.float64)


def picture(name, step=8):
    """A small photograph `(1, 3, H, W)` float64, squeezed into [0.2, 0.8] so that no map of it leaves the gamut far."""
    image = torch.from_numpy(getattr(data, name)()[::step, ::step].copy())
    return 0.2 + 0.6 * image.permute(2, 0, 1)[None].double() / 255


SOURCE, REFERENCE = picture("astronaut"), picture("coffee")


def covariances(count=6, seed=0):
    factor = torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.mT + 0.05 * torch.eye(3)


def rotation(seed=0):
    return torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q


# ---- matrices


def test_published_matrices():
    matrix = {kind: statistics.transport_matrix(SOURCE_COV, REFERENCE_COV, kind)[0] for kind in KINDS}
    expected = [[0.738785, -0.209560, 0.043240], [-0.209560, 1.335001, 0.026776], [0.043240, 0.026776, 1.215628]]
    torch.testing.assert_close(matrix["monge_kantorovich"], torch.tensor(expected).double(), rtol=0, atol=1e-6)
    assert matrix["square_root"][0].tolist() == pytest.approx([0.737597, -0.189808, 0.058123], abs=1e-6)
    assert matrix["cholesky"][0].tolist() == pytest.approx([0.707107, 0, 0], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_covariance_of_the_reference_is_reached(kind):
    source, reference = covariances(seed=1), covariances(seed=2)
    matrix = statistics.transport_matrix(source, reference, kind)
    torch.testing.assert_close(matrix @ source @ matrix.mT, reference, rtol=0, atol=1e-9)
    alike = statistics.transport_matrix(source, source, kind)
    torch.testing.assert_close(alike, torch.eye(3).double().expand_as(alike), rtol=0, atol=1e-8)


def test_independent_scaling_reaches_the_variances_and_only_them():
    matrix = statistics.transport_matrix(SOURCE_COV, REFERENCE_COV, "independent")
    reached = matrix @ SOURCE_COV @ matrix.mT
    torch.testing.assert_close(reached.diagonal(dim1=1, dim2=2), REFERENCE_COV.diagonal(dim1=1, dim2=2))
    assert (reached - REFERENCE_COV).abs().max() > 1e-3
    assert torch.equal(matrix, torch.diag_embed(matrix.diagonal(dim1=1, dim2=2)))


def test_monge_kantorovich_is_symmetric_positive_and_moves_colors_least():
    source, reference = covariances(seed=3), covariances(seed=4)
    cost = {}
    for kind in KINDS:
        move = statistics.transport_matrix(source, reference, kind) - torch.eye(3)
        cost[kind] = (move @ source @ move.mT).diagonal(dim1=1, dim2=2).sum(1)
    matrix = statistics.transport_matrix(source, reference, "monge_kantorovich")
    torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-10)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()
    assert all((cost["monge_kantorovich"] <= other + 1e-10).all() for other in cost.values())


@pytest.mark.parametrize(
    ("kind", "invariant"), [("square_root", True), ("monge_kantorovich", True), ("cholesky", False)]
)
def test_which_maps_do_not_care_for_the_axes(kind, invariant):
    turn = rotation()
    plain = statistics.transport_matrix(SOURCE_COV, REFERENCE_COV, kind)
    turned = statistics.transport_matrix(turn @ SOURCE_COV @ turn.mT, turn @ REFERENCE_COV @ turn.mT, kind)
    difference = (turn @ plain @ turn.mT - turned).abs().max()
    assert (difference < 1e-10) == invariant


def test_xiao_ma_does_not_flip_an_axis():
    # eigenvectors come with arbitrary signs; a map near the identity must stay near it
    for seed in range(20):
        turn = rotation(seed)
        spread = torch.diag(torch.tensor([0.01, 0.04, 0.09], dtype=torch.float64))
        cov = (turn @ spread @ turn.mT)[None]
        matrix = statistics.transport_matrix(cov, cov * 1.21, "xiao_ma")[0]
        torch.testing.assert_close(matrix, 1.1 * torch.eye(3).double(), rtol=0, atol=1e-8)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown linear map 'magic'; known: independent, cholesky, square_root"):
        statistics.linear(SOURCE, REFERENCE, kind="magic")
    with pytest.raises(ValueError, match="unknown color space 'luv'; known: rgb, lab, lalphabeta"):
        statistics.reinhard(SOURCE, REFERENCE, space="luv")


# ---- moments


def test_moments_are_the_population_moments():
    mean, cov = statistics.moments(SOURCE.flatten(2))
    torch.testing.assert_close(mean[0, :, 0], SOURCE.flatten(2)[0].mean(1))
    torch.testing.assert_close(cov[0], torch.cov(SOURCE.flatten(2)[0], correction=0))


def test_weights_count_pixels_in_the_moments():
    colors = torch.rand(2, 3, 5, dtype=torch.float64)
    counts = torch.tensor([[1, 2, 3, 1, 4], [5, 1, 1, 2, 2]], dtype=torch.float64)
    weighted = statistics.moments(colors, counts)
    repeated = [
        statistics.moments(one[None].repeat_interleave(n.long(), dim=2)) for one, n in zip(colors, counts, strict=True)
    ]
    for found, expected in zip(weighted, zip(*repeated, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(expected))


@pytest.mark.parametrize("space", ["rgb", "lab", "lalphabeta"])
def test_reinhard_reaches_mean_and_deviation(space):
    forward = statistics.SPACES[space][0]
    result = statistics.reinhard(SOURCE, REFERENCE, space=space)(SOURCE)
    reached, wanted = forward(result).flatten(2), forward(REFERENCE).flatten(2)
    unit = statistics.SPACES[space][2]
    torch.testing.assert_close(reached.mean(2), wanted.mean(2), rtol=0, atol=1e-3 * unit)
    torch.testing.assert_close(reached.std(2), wanted.std(2), rtol=0, atol=1e-3 * unit)


@pytest.mark.parametrize("space", ["rgb", "lab"])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_maps_reach_mean_and_covariance(kind, space):
    forward, _, unit = statistics.SPACES[space]
    result = statistics.linear(SOURCE, REFERENCE, kind=kind, space=space)(SOURCE)
    reached, wanted = (statistics.moments(forward(rgb).flatten(2)) for rgb in (result, REFERENCE))
    torch.testing.assert_close(reached[0], wanted[0], rtol=0, atol=1e-3 * unit)
    torch.testing.assert_close(reached[1], wanted[1], rtol=0, atol=1e-4 * unit**2)


# ---- color maps


def every_map(source, reference, **options):
    for space in statistics.SPACES:
        yield statistics.reinhard(source, reference, space=space, **options)
        for kind in KINDS:
            yield statistics.linear(source, reference, kind=kind, space=space, **options)


def test_weights_equal_repeated_pixels():
    few, other = SOURCE.flatten(2)[..., ::200], REFERENCE.flatten(2)[..., ::300]
    counts = torch.arange(few.shape[2]) % 3 + 1, torch.arange(other.shape[2]) % 4 + 1
    repeated = few.repeat_interleave(counts[0], dim=2), other.repeat_interleave(counts[1], dim=2)
    weights = counts[0][None].double(), counts[1][None].double()
    for weighted, plain in zip(every_map(few, other, weights=weights), every_map(*repeated), strict=True):
        torch.testing.assert_close(weighted(few), plain(few), rtol=0, atol=1e-9)


def test_weights_of_one_picture_only():
    few = SOURCE.flatten(2)[..., ::200]
    counts = (torch.arange(few.shape[2]) % 3 + 1)[None]
    weighted = statistics.linear(few, REFERENCE, weights=(counts.double(), None))
    plain = statistics.linear(few.repeat_interleave(counts[0], dim=2), REFERENCE)
    torch.testing.assert_close(weighted(few), plain(few), rtol=0, atol=1e-9)


def test_a_batch_is_a_loop():
    sources = torch.cat([SOURCE, SOURCE.flip(1), 1 - SOURCE])
    references = torch.cat([REFERENCE, 1 - REFERENCE, REFERENCE.flip(1)])
    singles = [list(every_map(s[None], r[None])) for s, r in zip(sources, references, strict=True)]
    for index, color_map in enumerate(every_map(sources, references)):
        loop = torch.cat([maps[index](s[None]) for maps, s in zip(singles, sources, strict=True)])
        torch.testing.assert_close(color_map(sources), loop, rtol=0, atol=1e-9)


def test_a_map_takes_any_trailing_axes_and_keeps_the_dtype():
    for color_map in every_map(SOURCE, REFERENCE):
        whole = color_map(SOURCE)
        assert whole.shape == SOURCE.shape
        torch.testing.assert_close(color_map(SOURCE.flatten(2)), whole.flatten(2))
        torch.testing.assert_close(color_map(SOURCE[..., None]), whole[..., None])
        single = color_map(SOURCE.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), whole, rtol=0, atol=1e-4)


def test_a_map_takes_a_single_color():
    for color_map in every_map(SOURCE, REFERENCE):
        torch.testing.assert_close(color_map(SOURCE[:, :, 3, 4]), color_map(SOURCE)[:, :, 3, 4])


def test_a_picture_recolored_by_itself_stays():
    for color_map in every_map(SOURCE, SOURCE):
        torch.testing.assert_close(color_map(SOURCE), SOURCE, rtol=0, atol=1e-4)


@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_a_flat_source_becomes_the_mean_and_noise_is_not_blown_up(flat):
    source = torch.full((1, 3, 4, 4), flat, dtype=torch.float64)
    for color_map in every_map(source, REFERENCE):
        assert torch.isfinite(color_map(source)).all()
    mean = REFERENCE.mean(dim=(2, 3))
    result = statistics.linear(source, REFERENCE)(source)
    torch.testing.assert_close(result, mean[..., None, None].expand_as(result))
    # rounding of float32 must not grow into color noise
    noisy = (source.float() + 1e-7 * torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    spread = statistics.linear(noisy, REFERENCE.float())(noisy).flatten(2).std(2)
    assert (spread < 0.01).all()


@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_a_flat_reference_makes_a_flat_result(flat):
    reference = torch.full((1, 3, 1, 1), flat, dtype=torch.float64)
    for color_map in every_map(SOURCE, reference):
        result = color_map(SOURCE)
        assert torch.isfinite(result).all()
        torch.testing.assert_close(result.mean(dim=(2, 3)), reference[..., 0, 0], rtol=0, atol=5e-3)
        assert (result.flatten(2).std(2) < 0.02).all()


def test_gradients_flow_through_fit_and_map():
    source = SOURCE[..., ::8, ::8].clone().requires_grad_()
    reference = REFERENCE[..., ::8, ::8].clone().requires_grad_()
    for color_map in every_map(source, reference):
        slopes = torch.autograd.grad(color_map(source).square().sum(), (source, reference))
        assert all(torch.isfinite(slope).all() and slope.abs().max() > 0 for slope in slopes)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (torch.full((1, 3, 2, 2), torch.nan), "reference: holds NaN"),
        (torch.zeros(1, 4, 2, 2), "reference: expected 3 color channels"),
        (torch.zeros(1, 3, 0, 2), "reference: the picture is empty"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "reference: expected a float tensor"),
    ],
)
def test_wrong_pictures_are_named(broken, says):
    with pytest.raises(ValueError, match=says):
        statistics.reinhard(SOURCE, broken)
    with pytest.raises(ValueError, match=says.replace("reference", "source")):
        statistics.linear(broken, REFERENCE)


def test_gray_pictures_stay_gray_in_rgb():
    gray = SOURCE.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    wanted = REFERENCE.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    for kind in ("square_root", "monge_kantorovich", "xiao_ma"):
        result = statistics.linear(gray, wanted, kind=kind)(gray)
        assert (result.amax(1) - result.amin(1)).max() < 1e-3
        assert color.rgb_to_lab(result.clamp(0, 1))[:, 0].std() > 1
