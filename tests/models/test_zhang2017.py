"""Zhang 2017: counts and names of the released network, who gets which gradient, its two traps, hints of both kinds."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from ctlib import hints, ops
from ctlib.checkpoints import CheckpointError
from ctlib.data import photos
from ctlib.hints import Hints, from_points, global_hints
from ctlib.images import to_tensor
from ctlib.models.zhang2017 import CLASSES, Zhang2017, ab_of, class_of
from models.repeater import repeater


def network(kind: str = "local", seed: int = 0, **options) -> Zhang2017:
    torch.manual_seed(seed)
    return Zhang2017(kind, **{"width": 0.06, "init": "he"} | options).eval()


def levels(*shape: int, seed: int = 0) -> torch.Tensor:
    return 100 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pointed(size: int = 16, batch: int = 1) -> Hints:
    one = from_points([(3, 4, (60, -40)), (12, 9, (-20, 70))], (size, size), 1)
    return Hints(*(part.expand(batch, -1, -1, -1).contiguous() for part in one))


def count(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


@pytest.fixture(scope="module")
def published() -> Zhang2017:
    with torch.device("meta"):
        return Zhang2017()


def test_the_released_network_has_these_parameters(published):
    assert count(published) == 34_187_027
    assert count(published) - count(published.model_class) == 34_051_074


def test_names_and_shapes_of_the_released_weights(published):
    shapes = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    expected = {}
    plan = {1: (4, 64, 64), 2: (64, 128, 128), 3: (128, 256, 256, 256), 4: (256, 512, 512, 512)}
    plan |= {number: (512, 512, 512, 512) for number in (5, 6, 7)}
    convs, norms = {}, {}
    for number, widths in plan.items():
        for place, (inputs, outputs) in enumerate(pairwise(widths)):
            convs[f"model{number}.{2 * place}"] = (outputs, inputs, 3, 3)
        norms[f"model{number}.{2 * (len(widths) - 1)}"] = widths[-1]
    convs |= {"model8up.0": (512, 256, 4, 4), "model9up.0": (256, 128, 4, 4), "model10up.0": (128, 128, 4, 4)}
    convs |= {"model3short8.0": (256, 256, 3, 3), "model2short9.0": (128, 128, 3, 3)}
    convs |= {"model1short10.0": (128, 64, 3, 3), "model8.1": (256, 256, 3, 3), "model8.3": (256, 256, 3, 3)}
    convs |= {"model9.1": (128, 128, 3, 3), "model10.1": (128, 128, 3, 3)}
    convs |= {"model_out.0": (2, 128, 1, 1), "model_class.0": (529, 256, 1, 1)}
    norms |= {"model8.5": 256, "model9.3": 128}
    for name, shape in convs.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": (shape[1] if "up" in name else shape[0],)}
    for name, width in norms.items():
        expected |= {f"{name}.{one}": (width,) for one in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.num_batches_tracked"] = ()
    assert shapes == expected


def test_strides_slopes_and_shapes(published):
    convs = {name: one for name, one in published.named_modules() if isinstance(one, nn.Conv2d)}
    assert all(one.stride == (1, 1) for one in convs.values())
    dilated = {name for name, one in convs.items() if one.dilation == (2, 2)}
    assert dilated == {f"model{number}.{place}" for number in (5, 6) for place in (0, 2, 4)}
    slopes = {one: two.negative_slope for one, two in published.named_modules() if isinstance(two, nn.LeakyReLU)}
    assert slopes == {"model10.2": 0.2}
    ab, logits = published(torch.empty(2, 1, 64, 104, device="meta"))
    assert ab.shape == (2, 2, 64, 104) and logits.shape == (2, 529, 16, 26)
    with torch.device("meta"):
        whole = Zhang2017("global")
    assert whole.model1[0].weight.shape == (64, 1, 3, 3)
    assert whole.glob_conv1.weight.shape == (512, 314, 1, 1) and whole.s_conv1.weight.shape == (512, 2, 1, 1)
    norms = 4 * 2 * 512
    added = 512 * (314 + 1) + 512 * (2 + 1) + 3 * (512 * 512 + 512) + norms
    assert count(whole) == 34_187_027 - 3 * 64 * 9 + added
    assert whole(torch.empty(2, 1, 32, 32, device="meta"))[0].shape == (2, 2, 32, 32)


@torch.no_grad()
def test_every_second_pixel_is_taken():
    """Not a mean of four, not the greatest: pixels in odd rows and columns of conv1 are not seen by conv2."""
    net, seen = network(), {}
    for name in ("model1", "model2", "model3", "model4"):
        getattr(net, name).register_forward_hook(lambda _, args, out, name=name: seen.update({name: (args[0], out)}))
    net(levels(1, 1, 32, 48))
    for fine, coarse in (("model1", "model2"), ("model2", "model3"), ("model3", "model4")):
        assert torch.equal(seen[coarse][0], seen[fine][1][:, :, ::2, ::2])


@torch.no_grad()
def test_shortcuts_are_added_before_the_activation():
    net, seen = network(), {}
    names = ("model8up", "model3short8", "model8", "model9up", "model2short9", "model9", "model10up", "model1short10")
    for name in (*names, "model10"):
        getattr(net, name).register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: (args[0].clone(), out.clone())})
        )
        getattr(net, name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({f"into {name}": args[0].clone()})
        )
    net(levels(1, 1, 16, 16))
    for up, short, into in (names[:3], names[3:6], (*names[6:], "model10")):
        torch.testing.assert_close(seen[f"into {into}"], seen[up][1] + seen[short][1])
        assert seen[f"into {into}"].min() < 0


TRUNK = ("model1.0", "model4.0", "model7.0", "model8up.0", "model3short8.0", "model8.1")
AB_HEAD = ("model9up.0", "model2short9.0", "model9.1", "model10up.0", "model1short10.0", "model10.1", "model_out.0")


def graded(net: Zhang2017, loss: torch.Tensor) -> set[str]:
    net.zero_grad()
    loss.backward(retain_graph=True)
    found = {name for name, weight in net.named_parameters() if weight.grad is not None and weight.grad.abs().sum() > 0}
    return {name.removesuffix(".weight") for name in found if name.endswith(".weight")}


@pytest.mark.parametrize("kind", ["local", "global"])
def test_gradients_go_where_the_stage_sends_them(kind):
    net = network(kind)
    given = pointed(batch=2) if kind == "local" else global_hints(torch.rand(2, 3, 16, 16))
    for stage in (True, False, None):
        ab, logits = net(levels(2, 1, 16, 16), given, classification=stage)
        of_ab, of_classes = (graded(net, loss) for loss in (ab.square().mean(), logits.square().mean()))
        assert of_ab >= set(AB_HEAD) and "model_class.0" not in of_ab
        assert "model_class.0" in of_classes and not of_classes & set(AB_HEAD)
        assert (of_ab >= set(TRUNK)) == (stage is not True)
        assert (of_classes >= set(TRUNK)) == (stage is not False)
        assert bool(of_ab & set(TRUNK)) == (stage is not True)  # all of it or nothing
        assert bool(of_classes & set(TRUNK)) == (stage is not False)
        if kind == "global":
            assert ("glob_conv1" in of_ab) == (stage is not True)
    with torch.no_grad():
        values = [net(levels(2, 1, 16, 16), given, classification=stage)[0] for stage in (True, False, None)]
    assert torch.equal(values[0], values[1]) and torch.equal(values[1], values[2])


def test_bins_are_numbered_with_a_in_front():
    """The first trap: index 1 is a = -110, b = -100, where a mesh grid that runs the other way says (-100, -110)."""
    assert CLASSES.shape == (529, 2) and CLASSES[1].tolist() == [-110, -100] and CLASSES[23].tolist() == [-100, -110]
    wrong = torch.stack(torch.meshgrid(CLASSES[:23, 1], CLASSES[:23, 1], indexing="xy"), -1).view(-1, 2)
    assert wrong[1].tolist() == [-100, -110]
    index = torch.arange(529).view(1, 23, 23)
    assert torch.equal(ab_of(index)[0].flatten(1).T, CLASSES)
    assert torch.equal(class_of(ab_of(index)), index)
    assert torch.equal(class_of(ab_of(index) + 4.9), index) and torch.equal(class_of(ab_of(index) - 4.9), index)
    known = torch.tensor([[-110.0, -100], [0, 0], [104, -3], [-106, 86]]).T[None, :, None]
    assert class_of(known).flatten().tolist() == [1, 11 * 23 + 11, 21 * 23 + 11, 0 * 23 + 20]
    assert class_of(torch.tensor([-500.0, 500]).view(1, 2, 1, 1)).item() == 22
    assert ab_of(torch.tensor([[[24]]])).flatten().tolist() == [-100, -100]  # floor division: 24 = 1 * 23 + 1


@torch.no_grad()
def test_inputs_are_scaled_and_the_mask_shifted():
    """The second trap: what the mask is shifted by."""
    for cent in (0.0, 0.5):
        net, seen = network(mask_cent=cent), []
        net.model1.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        net(torch.full((1, 1, 16, 16), 75.0), pointed())
        assert seen[0][0, :, 4, 3].tolist() == pytest.approx([0.25, 60 / 110, -40 / 110, 1 - cent])
        assert seen[0][0, :, 15, 15].tolist() == pytest.approx([0.25, 0, 0, -cent])
        net(torch.full((1, 1, 16, 16), 75.0))
        assert seen[1][:, 3].unique().tolist() == [-cent] and seen[1][:, 1:3].abs().max() == 0
    assert Zhang2017(width=0.06).mask_cent == 0.5  # of networks that are trained here, as in the re-implementation


@torch.no_grad()
def test_the_wrong_mask_cent_ruins_the_result():
    lightness, given = torch.full((1, 1, 16, 16), 50.0), pointed()
    right = repeater(0.0).ab(lightness, given)
    wanted = 110 * torch.tanh(given.ab / 110)
    torch.testing.assert_close(right, wanted, atol=1e-2, rtol=0)
    torch.testing.assert_close(repeater(0.5, told=0.5).ab(lightness, given), wanted, atol=1e-2, rtol=0)
    wrong = repeater(0.5).ab(lightness, given)
    assert (wrong - wanted).abs().max() > 30


@torch.no_grad()
def test_the_output_stays_within_its_range():
    net = network()
    nn.init.normal_(net.model_out[0].weight, 0.0, 50.0)
    ab = net.ab(levels(1, 1, 16, 16))
    assert ab.abs().max() <= 110 and ab.abs().max() > 109


@pytest.mark.parametrize("size", [(30, 37), (1, 1), (8, 9), (64, 3)])
@torch.no_grad()
def test_any_size(size):
    net = network()
    given = hints.fixed(levels(2, 2, *size) - 50, 3, [0, 1], 2)
    for some in (None, given):
        found = net.ab(levels(2, 1, *size), some)
        assert found.shape == (2, 2, *size) and found.isfinite().all()
    assert not torch.equal(net.ab(levels(2, 1, *size), given), net.ab(levels(2, 1, *size)))
    torch.testing.assert_close(net.ab(levels(2, 1, *size), *given), net.ab(levels(2, 1, *size), given))


def test_a_hint_colors_its_place_in_a_picture_of_any_size():
    rgb = to_tensor(photos.load("coffee", 120))
    height, width = rgb.shape[2:]
    given = from_points([(100, 20, (50, 40))], (height, width), 4)
    found = repeater().colorize(rgb, hints=given, side=64)
    assert found.shape == rgb.shape
    lab = ops.rgb_to_lab(found)
    at, away = lab[0, 1:, 20, 100], lab[0, 1:, 20, 10]
    assert (at - torch.tensor([50.0, 40])).norm() < 25 and away.norm() < 0.5 * at.norm()
    with pytest.raises(ValueError, match=r"hints: their size is not that of the picture, \(64, 64\) and"):
        repeater().colorize(rgb, hints=from_points([], (64, 64)), side=64)


@torch.no_grad()
def test_global_hints_reach_every_pixel():
    net = network("global")
    lightness = levels(2, 1, 24, 16)
    vector = global_hints(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    plain, told = net.ab(lightness), net.ab(lightness, vector)
    assert ((plain - told).abs().sum(1) > 0).all()
    assert torch.equal(plain, net.ab(lightness, torch.zeros(2, 316)))
    one = net.ab(lightness, vector[:1])
    torch.testing.assert_close(one[0], told[0])
    picture = to_tensor(photos.load("coffee", 60))
    assert net.colorize(picture, hints=vector[:1], side=32).shape == picture.shape


def test_suggestions_are_a_flattened_distribution():
    net, lightness = network(), levels(1, 1, 16, 16)
    with torch.no_grad():
        logits = net(lightness, pointed())[1]
    torch.testing.assert_close(net.suggest(lightness, pointed()), (0.2 * logits).softmax(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Zhang2017("lokal"), "hints: expected one of local, global, got 'lokal'"),
        (lambda: Zhang2017(mask_cent=0.3), "mask_cent: 0 for the converted original weights, 0.5 for .*; got 0.3"),
        (lambda: network()(levels(1, 1, 12, 16)), "lightness: 8 must divide its sides"),
        (lambda: network().ab(levels(1, 3, 8, 8)), r"lightness: expected L\*"),
        (lambda: network().ab(levels(1, 1, 8, 8), pointed()), r"hints: expected \(8, 8\) for 1 pictures, got"),
        (lambda: network().ab(levels(2, 1, 16, 16), pointed(batch=3)), "hints: expected .* for 2 pictures"),
        (lambda: network().ab(levels(1, 1, 16, 16), pointed().ab), "hints: this network takes local ones"),
        (lambda: network().ab(levels(1, 1, 16, 16), torch.zeros(1, 316)), "hints: this network takes local ones"),
        (lambda: network().ab(levels(1, 1, 16, 16), None, pointed().mask), "hints: this network takes local ones"),
        (lambda: network().ab(levels(1, 1, 16, 16), pointed().mask, pointed().mask), "hints: expected"),
        (lambda: network("global").ab(levels(1, 1, 16, 16), pointed()), r"this network takes global ones, \(B, 316\)"),
        (lambda: network("global").ab(levels(1, 1, 8, 8), torch.zeros(1, 313)), r"\(B, 316\), got \(1, 313\)"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_come_back(tmp_path):
    for kind in ("local", "global"):
        net = network(kind, mask_cent=0)
        net.save_pretrained(tmp_path / kind, dtype=torch.float32)
        back = Zhang2017.from_pretrained(tmp_path / kind)
        assert back.hints == kind and back.mask_cent == 0
        assert all(map(torch.equal, net.state_dict().values(), back.state_dict().values()))
    with pytest.raises(CheckpointError, match="no such weights"):
        Zhang2017.from_pretrained("no-such-name")
