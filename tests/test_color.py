"""Color spaces against published numbers, against other libraries, and against their own laws."""

import colour
import kornia
import numpy as np
import pytest
import torch
from skimage import color as peer

from ctlib import color

GENERATOR = torch.Generator().manual_seed(0)
CORNERS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
GRAYS = torch.linspace(0, 1, 52, dtype=torch.float64)[:, None].expand(-1, 3)
KNEES = torch.tensor([[0.04045, 0.0404, 0.0405], [1e-9, 1e-4, 0.01], [0.003, 0.0031308, 0.0032]], dtype=torch.float64)
RANDOM = torch.rand(400, 3, generator=GENERATOR, dtype=torch.float64)
#: (1, 3, N): black, white, primaries, grays, both sides of every knee, and colors at random
COLORS = torch.cat([CORNERS, GRAYS, KNEES, RANDOM]).T[None].contiguous()
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

SPACES = {
    "linear": (color.srgb_to_linear, color.linear_to_srgb),
    "xyz": (
        lambda rgb: color.linear_to_xyz(color.srgb_to_linear(rgb)),
        lambda xyz: color.linear_to_srgb(color.xyz_to_linear(xyz)),
    ),
    "lab": (color.rgb_to_lab, lambda lab: color.lab_to_rgb(lab, clip=False)),
    "lalphabeta": (color.rgb_to_lalphabeta, lambda lab: color.lalphabeta_to_rgb(lab, clip=False)),
    "lalphabeta_linear": (
        lambda rgb: color.rgb_to_lalphabeta(rgb, linear=True),
        lambda lab: color.lalphabeta_to_rgb(lab, clip=False, linear=True),
    ),
    "hsv": (color.rgb_to_hsv, color.hsv_to_rgb),
}
EACH_SPACE = pytest.mark.parametrize(("forward", "backward"), SPACES.values(), ids=SPACES)


def with_peer(function, values):
    """Call a scikit-image function, whose channels come last, in float64."""
    return torch.from_numpy(function(values[0].T.double().numpy()[None]))[0].T[None]


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1)


# ---- published numbers


@pytest.mark.parametrize(
    ("rgb", "scaled"),
    [
        ((1, 0, 0), (0.532406, 0.901631, 0.865197)),
        ((0, 1, 0), (0.877351, 0.0, 0.94416)),
        ((0, 0, 1), (0.322957, 0.896715, 0.0)),
    ],
)
def test_lab_of_primaries_scaled_as_in_histogram_analogy(rgb, scaled):
    lightness, a, b = color.rgb_to_lab(column(*rgb)).flatten().tolist()
    (a_low, a_high), (b_low, b_high) = color.A_RANGE, color.B_RANGE
    found = (lightness / 100, (a - a_low) / (a_high - a_low), (b - b_low) / (b_high - b_low))
    assert found == pytest.approx(scaled, abs=2e-6)


def test_gray_is_neutral():
    (a_low, a_high), (b_low, b_high) = color.A_RANGE, color.B_RANGE
    assert (-a_low / (a_high - a_low), -b_low / (b_high - b_low)) == pytest.approx((0.467329, 0.533062), abs=1e-6)
    lab = color.rgb_to_lab(GRAYS.T[None])
    assert lab[0, 1:].abs().max() < 0.01  # the six-digit matrix of the standard leaves this much
    assert (lab[0, 0].diff() > 0).all()


def test_the_ranges_of_a_and_b_are_the_extremes_over_the_cube():
    steps = torch.linspace(0, 1, 65, dtype=torch.float64)
    a, b = color.rgb_to_lab(torch.cartesian_prod(steps, steps, steps).T[None])[0, 1:]
    assert (a.min().item(), a.max().item()) == pytest.approx(color.A_RANGE, abs=1e-5)
    assert (b.min().item(), b.max().item()) == pytest.approx(color.B_RANGE, abs=1e-5)


@pytest.mark.parametrize(
    ("rgb", "lalphabeta"),
    [
        ((1.0, 1.0, 1.0), (-0.000954, 0.000764, 0.000092)),
        ((0.5, 0.5, 0.5), (-0.522353, 0.000764, 0.000092)),
        ((0.8, 0.4, 0.2), (-0.703918, 0.262048, 0.049805)),
    ],
)
def test_lalphabeta_of_three_colors(rgb, lalphabeta):
    assert color.rgb_to_lalphabeta(column(*rgb)).flatten().tolist() == pytest.approx(lalphabeta, abs=1e-6)


def test_the_printed_inverse_of_reinhard_is_rounded():
    forward = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
    printed = np.array([[4.4679, -3.5873, 0.1193], [-1.2186, 2.3809, -0.1624], [0.0497, -0.2439, 1.2045]])
    deviation = np.abs(forward @ printed - np.eye(3))
    assert deviation.max() == pytest.approx(0.0143, abs=5e-5)
    assert np.unravel_index(deviation.argmax(), (3, 3)) == (2, 1)  # row of S, column of G
    # what the library uses instead: through it, the same steps undo each other
    lms = 10 ** (color._LOGLMS_FROM_LAB @ color.rgb_to_lalphabeta(RANDOM.clamp(min=0.01).T[None])[0])
    torch.testing.assert_close(torch.from_numpy(forward) @ RANDOM.clamp(min=0.01).T, lms, rtol=0, atol=1e-12)


def test_black_has_a_logarithm():
    black, floor = color.rgb_to_lalphabeta(column(0, 0, 0)), color.rgb_to_lalphabeta(column(1, 1, 1) / 255)
    assert torch.equal(black, floor) and torch.isfinite(black).all()


# ---- other libraries


@PRECISIONS
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SPACES["xyz"][0], peer.rgb2xyz),
        (color.rgb_to_lab, peer.rgb2lab),
        (color.rgb_to_hsv, peer.rgb2hsv),
        (lambda rgb: color.xyz_to_lab(SPACES["xyz"][0](rgb)), lambda rgb: peer.xyz2lab(peer.rgb2xyz(rgb))),
    ],
    ids=["xyz", "lab", "hsv", "xyz-lab"],
)
def test_from_rgb_as_scikit_image(ours, theirs, dtype):
    values = COLORS.to(dtype)
    found = ours(values)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), with_peer(theirs, values), rtol=0, atol=1e-4)


@PRECISIONS
@pytest.mark.parametrize(
    ("forward", "ours", "theirs"),
    [
        (peer.rgb2xyz, SPACES["xyz"][1], peer.xyz2rgb),
        (peer.rgb2lab, color.lab_to_rgb, peer.lab2rgb),
        (peer.rgb2hsv, color.hsv_to_rgb, peer.hsv2rgb),
        (peer.rgb2lab, color.lab_to_xyz, peer.lab2xyz),
    ],
    ids=["xyz", "lab", "hsv", "lab-xyz"],
)
def test_back_to_rgb_as_scikit_image(forward, ours, theirs, dtype):
    values = with_peer(forward, COLORS).to(dtype)
    found = ours(values)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), with_peer(theirs, values), rtol=0, atol=1e-4)


def test_colors_out_of_gamut_clip_as_in_scikit_image():
    lab = torch.rand(300, 3, generator=GENERATOR, dtype=torch.float64) * column(100, 250, 250)[0, :, 0]
    lab = (lab - column(0, 125, 125)[0, :, 0]).T[None]
    with pytest.warns(UserWarning, match="negative Z"):
        theirs = with_peer(peer.lab2rgb, lab)
    torch.testing.assert_close(color.lab_to_rgb(lab), theirs, rtol=0, atol=1e-6)


def test_kornia_agrees():
    picture = COLORS[..., None].float()
    torch.testing.assert_close(color.rgb_to_lab(picture), kornia.color.rgb_to_lab(picture), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        color.srgb_to_linear(picture), kornia.color.rgb_to_linear_rgb(picture), rtol=0, atol=1e-5
    )
    theirs = kornia.color.rgb_to_hsv(picture)
    turn = (color.rgb_to_hsv(picture)[:, 0] - theirs[:, 0] / (2 * torch.pi) + 0.5) % 1 - 0.5  # theirs is in radians
    assert turn.abs().max() < 1e-5
    torch.testing.assert_close(color.rgb_to_hsv(picture)[:, 1:], theirs[:, 1:], rtol=0, atol=1e-5)


def test_colour_science_agrees_on_the_transfer_curve():
    values = COLORS.flatten().numpy()
    np.testing.assert_allclose(color.srgb_to_linear(COLORS).flatten(), colour.models.eotf_sRGB(values), atol=1e-6)
    np.testing.assert_allclose(
        color.linear_to_srgb(COLORS).flatten(), colour.models.eotf_inverse_sRGB(values), atol=1e-6
    )


# ---- laws


@EACH_SPACE
def test_there_and_back(forward, backward):
    # below 1/255 of linear light l-alpha-beta is not one to one
    values = COLORS.clamp(min=0.06) if forward is SPACES["lalphabeta_linear"][0] else COLORS.clamp(min=1 / 255)
    torch.testing.assert_close(backward(forward(values)), values, rtol=0, atol=2e-6)  # the knees meet to 1e-7 only


def test_there_and_back_in_lalphabeta_is_exact():
    values = COLORS.clamp(min=1 / 255)
    back = color.lalphabeta_to_rgb(color.rgb_to_lalphabeta(values), clip=False)
    assert (back - values).abs().max() < 1e-10


@EACH_SPACE
@PRECISIONS
def test_trailing_axes_batch_and_dtype_are_kept(forward, backward, dtype):
    values = torch.rand(2, 3, 4, 5, generator=GENERATOR).to(dtype)
    for function in (forward, backward):
        whole = function(values)
        assert whole.shape == values.shape and whole.dtype == dtype
        torch.testing.assert_close(function(values.flatten(2)).reshape(values.shape), whole, rtol=0, atol=1e-4)
        torch.testing.assert_close(function(values[:, :, 1, 2]), whole[:, :, 1, 2], rtol=0, atol=1e-4)
        torch.testing.assert_close(torch.cat([function(one[None]) for one in values]), whole, rtol=0, atol=1e-4)


@EACH_SPACE
@PRECISIONS
@pytest.mark.parametrize("level", [0.0, 1.0, 0.5])
def test_gradients_are_finite_at_black_gray_and_white(forward, backward, dtype, level):
    values = torch.full((1, 3, 2, 2), level, dtype=dtype, requires_grad=True)
    middle = forward(values)
    (slope,) = torch.autograd.grad(middle.sum(), values, retain_graph=True)
    assert torch.isfinite(slope).all()
    (slope,) = torch.autograd.grad(backward(middle).sum(), values)
    assert torch.isfinite(slope).all()


@EACH_SPACE
def test_gradients_are_finite_at_saturated_corners(forward, backward):
    values = CORNERS.T[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(backward(forward(values)).sum(), values)
    assert torch.isfinite(slope).all()


@EACH_SPACE
def test_gradients_equal_finite_differences(forward, backward):
    values = (0.15 + 0.7 * torch.rand(1, 3, 6, generator=GENERATOR, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(forward, (values,))
    assert torch.autograd.gradcheck(backward, (forward(values).detach().requires_grad_(),))


def test_hue_of_gray_is_zero_and_hue_wraps():
    gray = color.rgb_to_hsv(GRAYS.T[None].float())
    assert (gray[:, :2] == 0).all()
    hsv = torch.rand(1, 3, 50, generator=GENERATOR)
    shifted = hsv + torch.tensor([1.0, 0, 0]).reshape(1, 3, 1)
    torch.testing.assert_close(color.hsv_to_rgb(shifted), color.hsv_to_rgb(hsv), atol=2e-6, rtol=0)
    assert (color.rgb_to_hsv(torch.rand(1, 3, 10_000, generator=GENERATOR))[:, 0] < 1).all()


def test_an_extreme_lalphabeta_stays_finite():
    extreme = torch.tensor([1e4, -1e4, 1e4]).reshape(1, 3, 1)
    assert torch.isfinite(color.lalphabeta_to_rgb(extreme, clip=False)).all()
    assert torch.isfinite(color.lalphabeta_to_rgb(extreme, clip=False, linear=True)).all()


@pytest.mark.parametrize(
    "function", [color.rgb_to_lab, color.rgb_to_lalphabeta, color.linear_to_xyz, color.xyz_to_linear]
)
@pytest.mark.parametrize("shape", [(3,), (1, 4, 2, 2), (2, 2, 3)])
def test_three_channels_or_an_error(function, shape):
    with pytest.raises(ValueError, match="expected 3 color channels on axis 1"):
        function(torch.zeros(shape))


# ---- gamut


def test_what_srgb_shows_is_in_gamut():
    lab = color.rgb_to_lab(COLORS)
    assert color.in_gamut(lab, 1e-6).all()
    assert color.in_gamut(lab[..., None], 1e-6).shape == (1, COLORS.shape[2], 1)
    outside = torch.tensor([[50.0, 120, 0], [101, 0, 0], [-1, 0, 0], [50, 0, -120]], dtype=torch.float64).T[None]
    assert not color.in_gamut(outside).any()


def test_tolerance_is_in_units_of_the_encoded_channels():
    too_bright = color.rgb_to_lab(column(1.001, 0.5, 0.5))
    assert not color.in_gamut(too_bright, 0.5 / 255 / 4).item()
    assert color.in_gamut(too_bright, 0.5 / 255).item()


def test_the_boundary_is_in_gamut_and_a_step_further_is_not():
    start = color.rgb_to_lab(0.02 + 0.96 * RANDOM.T[None])
    direction = torch.randn(start.shape, generator=GENERATOR, dtype=torch.float64)
    end = color.gamut_boundary(start, direction, tolerance=1e-4)
    assert color.in_gamut(end, 1e-4).all()
    unit = direction / direction.norm(dim=1, keepdim=True)
    step = 300 / 2**20
    assert not color.in_gamut(end + 1.001 * step * unit, 1e-4).any()
    along = end - start  # on the ray, forwards
    length = along.norm(dim=1, keepdim=True)
    torch.testing.assert_close(along, unit * length, rtol=0, atol=1e-9)


def test_the_length_of_the_direction_does_not_matter():
    start = color.rgb_to_lab(0.1 + 0.8 * RANDOM[:50].T[None])
    direction = torch.randn(start.shape, generator=GENERATOR, dtype=torch.float64)
    torch.testing.assert_close(
        color.gamut_boundary(start, direction), color.gamut_boundary(start, direction * 1e-3), rtol=0, atol=1e-9
    )


def test_no_direction_means_no_move():
    start = color.rgb_to_lab(RANDOM[:20].T[None])
    assert torch.equal(color.gamut_boundary(start, torch.zeros_like(start)), start)


def test_up_the_gray_axis_the_gamut_ends_at_white():
    end = color.gamut_boundary(column(50, 0, 0), column(1, 0, 0), tolerance=0)
    assert end.flatten().tolist() == pytest.approx([100, 0, 0], abs=2e-2)


def test_a_start_out_of_gamut_is_its_own_boundary():
    start = column(50, 150, 0)
    for direction in (column(0, 1, 0), column(0, -1, 0)):
        assert torch.equal(color.gamut_boundary(start, direction), start)
