"""The chain: what goes from link to link, lightness that stays, no samples and all of them, labels, what it refuses."""

import warnings
from itertools import pairwise

import pytest
import torch

from ctlib import chroma, color, hints, ops
from ctlib.checkpoints import CheckpointError
from ctlib.data import photos
from ctlib.exemplars import chain
from ctlib.exemplars.chain import CELLS, DOUBT, KNOWN, PAPERS, Exemplar, sample, trusted
from ctlib.exemplars.matching import compared, matched, weighed
from ctlib.models.refinement import Refinement
from ctlib.models.stylization import Stylization
from ctlib.models.stylization_once import StylizationOnce

SIDE = 64
PLAIN = {name: value for name, value in PAPERS.items() if name != "trust"}  # options of a chain at its own size


def network(once: bool = False, seed: int = 0) -> Exemplar:
    torch.manual_seed(seed)
    transfer = (StylizationOnce if once else Stylization)("compact").load_encoder()
    refine = Refinement(0.06, init="he")
    with torch.no_grad():
        refine.model_out[0].weight.mul_(30)  # a new head says next to nothing
    return Exemplar(transfer, refine).eval()


@pytest.fixture(scope="module")
def net() -> Exemplar:
    return network()


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return photos.tensor("coffee", 120), photos.tensor("china", 100)


@torch.no_grad()
def test_the_links_by_hand(net):
    lightness = chroma.lightness(photos.tensor("coffee", 96)[..., :64, :96])
    reference = photos.tensor("china", 96)[..., :48, :96]
    made = net(lightness, reference, samples=12, seeds=[5], **PLAIN)
    torch.testing.assert_close(made.precolored, net.refine.ab(lightness))
    picture = ops.lab_to_rgb(torch.cat([lightness, made.precolored], dim=1)).clamp(0, 1)
    coarse = ops.rgb_to_lab(net.transfer(picture, reference).clamp(0, 1))[:, 1:]
    torch.testing.assert_close(made.coarse, coarse, rtol=1e-4, atol=1e-3)
    given = made.hints
    assert 0 < given.mask.sum() <= 12 * 81 and ((given.ab != 0).any(1, keepdim=True) <= (given.mask > 0)).all()
    assert torch.equal(made.refined, net.refine.ab(lightness, given))
    loud = net(lightness, reference, samples=12, seeds=[5], **PLAIN | {"spread": True})
    wanted = hints.spread(lightness, made.refined, given, doubt=DOUBT)
    assert torch.equal(loud.hints.ab, given.ab) and torch.equal(loud.refined, wanted)
    assert ((loud.refined - given.ab) * given.mask).norm() < ((made.refined - given.ab) * given.mask).norm()
    fine = net(lightness, reference, samples=12, seeds=[5], **PLAIN | {"detail": True})
    smooth = chroma.resize(chroma.resize(made.coarse, (20, 29)), (64, 96))  # sides of 24 x 24 cells of this shape
    assert CELLS == 24 and chroma.network_size(64, 96, CELLS, 1) == (20, 29)
    torch.testing.assert_close(fine.refined, made.refined + made.coarse - smooth)
    half = net(lightness, reference, samples=12, seeds=[5], **PLAIN | {"shrink": 2})
    assert torch.equal(half.precolored, made.precolored) and half.coarse.shape == made.coarse.shape
    seen = net.transfer(*(chroma.resize(one, (32, 48)).clamp(0, 1) for one in (picture, reference)))
    torch.testing.assert_close(half.coarse, chroma.resize(ops.rgb_to_lab(seen.clamp(0, 1))[:, 1:], (64, 96)))
    assert torch.equal(given.mask, sample(made.coarse, 12, [5]).mask)
    assert not torch.equal(given.mask, sample(made.coarse, 12, [6]).mask)


@torch.no_grad()
def test_without_samples_the_target_stays_as_it_was_pre_colored(net, pictures):
    lightness = chroma.lightness(pictures[0][..., :64, :96])
    made = net(lightness, pictures[1][..., :48, :96], samples=0)  # no detail either
    assert torch.equal(made.refined, made.precolored) and made.hints.mask.sum() == 0
    shown = net.steps(*pictures, samples=0, trust=None, side=SIDE)
    assert not torch.equal(shown["coarse"], shown["precolored"])
    assert torch.equal(shown["refined"], shown["precolored"])


def test_a_reference_is_heard_unless_it_is_not_trusted(net, pictures):
    target, other = pictures[0], pictures[1].flip(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        followed = [net.colorize(target, one, trust=None, side=SIDE) for one in (pictures[1], other)]
        net.colorize(target, target, side=SIDE)
    with pytest.warns(UserWarning, match="reference: it looks unlike the picture and is not followed; choose another"):
        refused = [net.colorize(target, one, trust=(0.8, 0.9), side=SIDE) for one in (pictures[1], other)]
    assert torch.equal(*refused) and not torch.allclose(*followed, atol=0.01)


@torch.no_grad()
def test_all_samples_are_the_coarse_map(net, pictures):
    coarse = 50 * torch.rand(2, 2, 16, 24)
    every = sample(coarse, "all", [0])
    assert torch.equal(every.ab, coarse) and (every.mask == 1).all()
    few, many = (sample(coarse, count, [3]) for count in (4, 9))
    assert (few.mask <= many.mask).all() and few.mask.sum() < many.mask.sum()
    assert torch.equal(few.mask[0], few.mask[1])  # one seed for all
    assert not torch.equal(*sample(coarse, 4, [3, 4]).mask)
    results = [net.colorize(*pictures, samples=count, trust=None, side=SIDE) for count in (0, 1, 100, "all")]
    for one, other in pairwise(results):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("size", [(80, 120), (33, 47), (20, 400)])
def test_lightness_is_never_altered(once, size, pictures):
    rgb = chroma.resize(pictures[0], size).clamp(0, 1)
    before = color.rgb_to_lab(rgb.double())[:, 0]
    for name, found in network(once).steps(rgb, pictures[1], samples=30, trust=None, side=SIDE).items():
        assert found.shape == rgb.shape, name
        assert (color.rgb_to_lab(found.double())[:, 0] - before).abs().max() < 0.02, name


def test_color_of_the_target_is_not_looked_at(net, pictures):
    rgb = pictures[0]
    gray = chroma.join(chroma.lightness(rgb), 0 * rgb[:, :2])
    ones, others = (net.colorize(one, pictures[1], samples=20, trust=None, side=SIDE) for one in (rgb, gray))
    torch.testing.assert_close(ones, others, rtol=0, atol=0.02)


def test_labels_and_batches(net, pictures):
    rgb, reference = pictures
    sizes = [one.shape[2:] for one in pictures]
    ones = [torch.ones(size, dtype=torch.int64) for size in sizes]
    plain = net.steps(rgb, reference, trust=None, side=SIDE)["coarse"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = net.steps(rgb, reference, labels=tuple(ones), side=SIDE)["coarse"]
        torch.testing.assert_close(same, plain, rtol=0, atol=1e-3)
        halves = [(torch.arange(size[1]) > size[1] // 2).long().expand(size) for size in sizes]
        apart = net.steps(rgb, reference, labels=tuple(halves), side=SIDE)["coarse"]
    assert (apart - plain).abs().max() > 0.01
    with pytest.warns(UserWarning, match="share none"):
        other = net.steps(rgb, reference, labels=(ones[0], 5 + ones[1]), trust=None, side=SIDE)["coarse"]
    assert torch.equal(other, plain)
    with pytest.warns(UserWarning, match="reference's map of .* is scaled to"):
        net.colorize(rgb, reference, labels=(ones[0], ones[0]), side=SIDE)
    refused = net.steps(rgb, reference, trust=(2, 3), side=SIDE)["refined"]
    with pytest.warns(UserWarning, match="share none"):  # and trust is asked as without
        stray = net.steps(rgb, reference, labels=(ones[0], 5 + ones[1]), trust=(2, 3), side=SIDE)["refined"]
    assert torch.equal(stray, refused)
    batch = torch.cat([rgb, rgb.flip(3)])
    first = net.colorize(batch, reference, samples=5, trust=None, side=SIDE)[:1]
    alone = net.colorize(rgb, reference, samples=5, trust=None, side=SIDE)
    torch.testing.assert_close(first, alone, rtol=0, atol=1e-3)


@torch.no_grad()
def test_coarse_colors_by_matching(net, pictures):
    lightness, reference = chroma.lightness(pictures[0][..., :64, :96]), pictures[1][..., :48, :96]
    made = net(lightness, reference, samples=9, by="matching", **PLAIN)
    wanted = chroma.resize(matched(compared(net.transfer.encoder, lightness, reference), reference), (64, 96))
    torch.testing.assert_close(made.coarse, wanted)
    assert torch.equal(made.hints.mask, net(lightness, reference, samples=9).hints.mask)
    soft = net.steps(*pictures, by="matching", temperature=9.0, trust=None, side=SIDE)["coarse"]
    assert not torch.equal(soft, net.steps(*pictures, by="matching", trust=None, side=SIDE)["coarse"])
    with pytest.raises(ValueError, match="by: expected one of adain, matching, got 'magic'"):
        net.colorize(*pictures, by="magic", side=SIDE)


@torch.no_grad()
def test_trust_by_hand(net, pictures):
    lightness, reference = chroma.lightness(pictures[0][..., :64, :96]), pictures[1][..., :48, :96]
    likeness = weighed(net.transfer.encoder, lightness, reference)
    like = likeness.item()
    assert trusted(likeness, (like - 0.3, like + 0.1)).item() == pytest.approx(0.75, abs=1e-3)
    assert trusted(likeness, (like - 0.2, like - 0.1)).item() == 1 == trusted(torch.ones(1)).item()
    shares = [
        net.followed(lightness, reference, trust)
        for trust in (None, (like - 0.1, like + 0.1), (like + 0.1, like + 0.2), KNOWN)
    ]
    assert shares[0] is None and torch.equal(shares[3], trusted(likeness, chain.TRUST["compact"]))
    followed, doubted, refused = (net(lightness, reference, samples=9, share=share) for share in shares[:3])
    half = (followed.coarse + followed.precolored) / 2
    torch.testing.assert_close(doubted.coarse, half, rtol=1e-3, atol=1e-2)
    assert torch.equal(refused.coarse, refused.precolored) and torch.equal(refused.refined, refused.precolored)
    # in a batch each picture as far as its own reference is followed
    two = [torch.cat([one, one]) for one in (lightness, reference)]
    mixed = net(*two, samples=9, share=torch.cat([shares[1], shares[2]]))
    for row, alone in enumerate((doubted, refused)):
        torch.testing.assert_close(mixed.refined[row : row + 1], alone.refined, rtol=1e-3, atol=1e-2)
    smooth = net(lightness, reference, samples=9, share=shares[1], detail=False)
    own = doubted.coarse - chroma.resize(chroma.resize(doubted.coarse, (20, 29)), (64, 96))
    torch.testing.assert_close(doubted.refined - smooth.refined, shares[1].view(1, 1, 1, 1) * own, rtol=1e-3, atol=1e-3)


def test_trust_does_not_depend_on_what_the_networks_see(net, pictures, monkeypatch):
    shares, followed = [], Exemplar.followed
    monkeypatch.setattr(Exemplar, "followed", lambda *given: shares.append(followed(*given)) or shares[-1])
    for side in (64, 128, 160):
        net.steps(*pictures, side=side, trust=(0.3, 0.9))
    assert 0 < shares[0].item() < 1 and all(torch.equal(one, shares[0]) for one in shares)


@torch.no_grad()
def test_other_encoders_have_no_known_bounds(pictures):
    """Likeness is on a scale of its own for each encoder; one with three scales makes a chain, too."""
    torch.manual_seed(0)
    net = Exemplar(Stylization("vgg19-conv3_1"), Refinement(0.06, init="he")).eval()
    with pytest.raises(ValueError, match="trust: bounds are known for encoder compact, not for vgg19"):
        net.colorize(*pictures, side=SIDE)
    for by in chain.WAYS:
        assert net.steps(*pictures, by=by, trust=(0.1, 0.2), side=SIDE)["refined"].shape == pictures[0].shape


@torch.no_grad()
def test_sites_and_alpha_reach_the_transfer(net, pictures):
    rgb, reference = pictures
    plain = net.steps(rgb, reference, trust=None, side=SIDE)["coarse"]
    for options in ({"sites": ("encoder",)}, {"alpha": 0.3}):
        assert not torch.equal(net.steps(rgb, reference, trust=None, side=SIDE, **options)["coarse"], plain)


def test_the_gradient_of_the_coarse_map_reaches_the_decoder():
    net = network()
    lightness = chroma.lightness(photos.tensor("coffee", 64)[..., :32, :64])
    net.coarse(
        lightness, 0 * lightness.expand(-1, 2, -1, -1), torch.rand(1, 3, 32, 32), shrink=1
    ).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.transfer.decoder.parameters())
    assert all(weight.grad is None for weight in net.transfer.encoder.parameters())


GRAY = torch.full((1, 3, 64, 64), 0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": -1}, "samples: expected a whole number of at least 0, or 'all', got -1"),
        ({"samples": "many"}, "samples: expected .*got 'many'"),
        ({"samples": True}, "samples: expected"),
        ({"reference": torch.rand(1, 3, 31, 64)}, r"reference: expected at least 32 x 32 pixels, got \(31, 64\)"),
        ({"reference": GRAY}, "reference: is gray and has no color to lend; choose"),
        ({"reference": torch.rand(2, 3, 64, 64)}, "reference: expected 1 or 1 pictures, got 2"),
        ({"side": 16}, "side: expected a whole number of at least 32"),
        ({"side": "64"}, "side: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number of at least 0"),
        ({"seed": "x"}, "seed: expected"),
        ({"shrink": 0}, "shrink: expected a whole number of at least 1"),
        ({"spread": "x"}, "spread: expected true or false"),
        ({"detail": 1}, "detail: expected true or false"),
        ({"alpha": 5}, "alpha: expected a number from 0 to 1"),
        ({"alpha": "x"}, "alpha: expected"),
        ({"sites": 3}, "sites: expected some of"),
        ({"by": "matching", "sites": ("skip",)}, "matching has no option 'sites'; it takes temperature"),
        ({"temperature": 1.0}, "adain has no option 'temperature'; it takes sites, alpha"),
        ({"by": "matching", "temperature": "x"}, "temperature: expected a number above 0"),
        ({"trust": 0.6}, "trust: expected two rising numbers, got 0.6"),
        ({"trust": (0.5, 0.5)}, r"trust: expected two rising numbers, got \(0.5, 0.5\)"),
        ({"trust": "always"}, "trust: expected two rising numbers"),
        ({"sites": ("middle",)}, "sites: expected some of"),
        ({"labels": (torch.zeros(4, 4), torch.zeros(4, 4))}, r"labels\[0\]: expected whole numbers"),
    ],
)
def test_bad_input_is_one_clear_line(net, pictures, options, message):
    options = dict(options)
    with pytest.raises(ValueError, match=message) as error:
        net.colorize(pictures[0], options.pop("reference", pictures[1]), **{"side": SIDE} | options)
    assert "\n" not in str(error.value)


def test_the_students_chain_has_no_sites(pictures):
    with pytest.raises(ValueError, match="adain has no option 'sites'; it takes alpha"):
        network(once=True).colorize(*pictures, sites=("skip",), side=SIDE)


@pytest.mark.parametrize("once", [False, True])
def test_a_chain_is_two_folders(tmp_path, pictures, once):
    net = network(once)
    net.save_pretrained(tmp_path, dtype=torch.float32)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(chain.PARTS)
    followed = {"samples": 9, "trust": None, "side": SIDE}
    expected = net.colorize(*pictures, **followed)
    assert not torch.equal(network(once, seed=1).colorize(*pictures, **followed), expected)
    again = Exemplar.from_pretrained(tmp_path, once=once)
    parts = Exemplar.from_pretrained(tmp_path / "transfer", tmp_path / "refine", once=once)
    assert torch.equal(again.colorize(*pictures, **followed), expected) and not again.training
    assert torch.equal(parts.colorize(*pictures, **followed), expected)
    with pytest.raises(CheckpointError, match="no such"):
        Exemplar.from_pretrained(tmp_path / "none")
