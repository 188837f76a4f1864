"""The chain with one thing changed, and nothing else."""

from functools import partial

import pytest
import torch

from ctlib import chroma, ops
from ctlib.data import photos
from ctlib.exemplars import variants
from ctlib.exemplars.chain import PAPERS, Exemplar
from ctlib.models.refinement import Refinement
from ctlib.models.stylization import Stylization, scaled
from ctlib.models.stylization_once import StylizationOnce

SIDE = 64


@pytest.fixture(scope="module")
def chain() -> Exemplar:
    torch.manual_seed(0)
    refine = Refinement(0.06, init="he")
    with torch.no_grad():
        refine.model_out[0].weight.mul_(30)  # a new head says next to nothing
    return Exemplar(Stylization("compact").load_encoder(), refine).eval()


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return photos.tensor("coffee", 120), photos.tensor("china", 100)


@pytest.fixture(scope="module")
def made(chain, pictures) -> dict:
    found = variants.variants(chain, StylizationOnce("compact").load_encoder(), side=SIDE)
    return {name: steps(*pictures) for name, steps in found.items()}


def test_each_variant_is_another_picture(made):
    assert list(made) == [*variants.SITES, variants.STUDENT, variants.GRAY]
    coarse = [steps["coarse"] for steps in made.values()]
    for number, one in enumerate(coarse):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in coarse[:number])


def test_all_but_one_begin_with_the_same_colors(made, chain, pictures):
    gray = made.pop(variants.GRAY)
    first = [steps["precolored"] for steps in made.values()]
    assert all(torch.equal(one, first[0]) for one in first)
    made[variants.GRAY] = gray
    lightness = chroma.lightness(pictures[0])
    bare = chroma.shown(lightness, torch.zeros_like(lightness).expand(-1, 2, -1, -1))
    torch.testing.assert_close(gray["precolored"], bare)


def test_gray_first_has_the_last_link_as_it_was(chain, pictures):
    gray = variants.GrayFirst(chain.transfer, chain.refine).eval()
    nothing = gray.steps(*pictures, side=SIDE, samples=0)["refined"]
    torch.testing.assert_close(nothing, chain.steps(*pictures, side=SIDE)["precolored"])


@torch.no_grad()
def test_once_changes_the_deepest_features_alone(chain, pictures):
    network = chain.transfer
    once = partial(network, sites=variants.SITES[variants.ONCE])
    rgb, reference = (scaled(picture, SIDE) for picture in pictures)
    torch.testing.assert_close(once(rgb, rgb), network.reconstruct(rgb), rtol=1e-3, atol=1e-4)  # toward itself: none
    torch.testing.assert_close(once(rgb, reference, alpha=0.0), network.reconstruct(rgb))
    encoded, wanted = network.encode(rgb), network.encode(reference).levels[-1]
    deepest = ops.adain(encoded.levels[-1], wanted)
    expected = network.decoder(encoded._replace(levels=(*encoded.levels[:-1], deepest)))[0]
    torch.testing.assert_close(once(rgb, reference), expected)
    assert not torch.allclose(expected, network.reconstruct(rgb), atol=1e-3)


def test_methods_share_what_was_run(chain, pictures):
    calls = []

    class Counting(Exemplar):
        def steps(self, *given, **options):
            calls.append(options)
            return super().steps(*given, **options)

    steps = variants.remembered(Counting(chain.transfer, chain.refine).eval(), side=SIDE, samples=5)
    methods = variants.by_link({"": steps, "twice": steps})
    assert list(methods) == ["transfer only", "full chain", "transfer only, twice", "full chain, twice"]
    found = [method(*pictures) for method in methods.values()]
    assert calls == [{"side": SIDE, "samples": 5}]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3]) and not torch.equal(found[0], found[1])
    steps(*pictures, samples=7)
    assert calls[1:] == [{"side": SIDE, "samples": 7}]


def test_samples_from_none_to_all(chain, pictures):
    methods = variants.with_samples(chain, (0, 20, "all"), side=SIDE)
    assert list(methods) == [f"full chain, {count} samples" for count in (0, 20, "all")]
    none, some, every = (method(*pictures) for method in methods.values())
    made = chain.steps(*pictures, side=SIDE, samples=20)
    assert torch.equal(none, made["precolored"]) and torch.equal(some, made["refined"])
    assert not torch.allclose(some, every, atol=1e-3)


def test_labels_go_through(chain, pictures):
    labels = tuple(torch.zeros(picture.shape[2:], dtype=torch.long) for picture in pictures)
    for one in labels:
        one[: len(one) // 2] = 1
    method = variants.by_link({"": variants.remembered(chain, side=SIDE)})["transfer only"]
    assert not torch.allclose(method(*pictures, labels), method(*pictures), atol=1e-3)
    follow = variants.by_link({"": variants.remembered(chain, side=SIDE, trust=None)})["transfer only"]
    torch.testing.assert_close(method(*pictures, labels), follow(*pictures, labels))
    assert not torch.allclose(follow(*pictures, labels), follow(*pictures), atol=1e-3)


def test_variants_are_as_the_paper_has_them(chain, pictures, made):
    blind = chain.steps(*pictures, side=SIDE, **PAPERS)
    for link in ("coarse", "refined"):
        torch.testing.assert_close(made[variants.BOTH][link], blind[link])
    deaf = variants.variants(chain, side=SIDE, trust=(2.0, 3.0))[variants.BOTH](*pictures)
    torch.testing.assert_close(deaf["coarse"], deaf["precolored"])


def test_norms_of_another_and_nothing_else(chain):
    other = Exemplar(chain.transfer, Refinement(0.06, init="he"))
    for name, value in other.refine.named_buffers():
        value.fill_(3) if "running" in name else None
    with pytest.raises(ValueError, match="other: its colorization sub-net has another width"):
        variants.with_norms(chain, Exemplar(chain.transfer, Refinement(0.125)))
    mixed = variants.with_norms(chain, other)
    own, found = chain.refine.state_dict(), mixed.refine.state_dict()
    assert all(
        (value == 3).all() if "running" in name else torch.equal(value, own[name]) for name, value in found.items()
    )
    assert any("running" in name for name in own) and not any((own[n] == 3).all() for n in own if "running" in n)
