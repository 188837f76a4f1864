"""How Histogram Analogy is trained: the terms of each recipe, worked out by hand, and a whole run of two steps."""

import json

import pytest
import torch
from PIL import Image
from torch.nn import functional

from ctlib.checkpoints import CheckpointError
from ctlib.data import cache, pairs, photos
from ctlib.data.registry import DataError
from ctlib.losses import histogram_loss, multi_scale_loss
from ctlib.models.histogram_analogy import HistogramAnalogy, to_unit
from ctlib.recipes import histogram_analogy as recipe
from ctlib.recipes.histogram_analogy import Objective

SIDE = 64


def network(**options) -> HistogramAnalogy:
    torch.manual_seed(0)
    return HistogramAnalogy("tile", "tiny", init="kaiming", **options)


@pytest.fixture(scope="module")
def batch() -> dict:
    squares = [torch.from_numpy(cache.resize(photos.load(name), (SIDE, SIDE)).copy()) for name in ("coffee", "china")]
    return {"rgb": torch.stack(squares), "seed": torch.tensor([3, 2**62])}


def by_hand(model, source, target, reference, form: str) -> dict[str, float]:
    out, sides = model.transfer(source, reference)
    wanted = to_unit(target)
    return {
        "image": (out - wanted).square().mean().item(),
        "histogram": histogram_loss(out, wanted).item(),
        "multi_scale": multi_scale_loss(sides, wanted, form).item(),
    }


def plain(terms: dict) -> dict:
    return {name: pytest.approx(term.item(), rel=1e-5) for name, term in terms.items()}


def test_terms_of_the_paper(batch):
    objective = Objective(network(), side=SIDE)
    loss, terms = objective(batch)
    with torch.no_grad():
        expected = by_hand(objective.model, *pairs.photo_pairs(batch["rgb"], [3, 2**62], SIDE), "paper")
    assert expected == plain(terms) and all(term > 0 for term in expected.values())
    total = expected["image"] + 1.5 * expected["histogram"] + 0.5 * expected["multi_scale"]
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert not any(term.requires_grad for term in terms.values())
    loss.backward()
    assert all(weights.grad.isfinite().all() for weights in objective.parameters())


def test_weights_and_centers_are_options(batch):
    model = network()
    objective = Objective(model, side=SIDE, histogram=1000.0, multi_scale=0.0, centers="unity", shares=(0, 1, 0, 0))
    with torch.no_grad():
        loss, terms = objective(batch)
        pair = pairs.photo_pairs(batch["rgb"], [3, 2**62], SIDE, shares=(0, 1, 0, 0))
        out, _ = model.transfer(pair.source, pair.reference)
    assert terms["histogram"].item() == pytest.approx(
        histogram_loss(out, to_unit(pair.target), centers="unity").item(), rel=1e-5
    )
    assert loss.item() == pytest.approx(terms["image"].item() + 1000 * terms["histogram"].item(), rel=1e-5)


def test_terms_of_the_authors_code(batch):
    """Both directions, for each an identity pass, and the sum of three side outputs."""
    objective = Objective(network(), side=SIDE, recipe="official-history")
    with torch.no_grad():
        loss, terms = objective(batch)
        source, target, reference = pairs.photo_pairs(batch["rgb"], [3, 2**62], SIDE)
        there = by_hand(objective.model, source, target, reference, "official-history")
        back = by_hand(objective.model, target, source, source, "official-history")
        same = [functional.mse_loss(objective.model.transfer(lab, lab)[0], to_unit(lab)) for lab in (source, target)]
    expected = {name: there[name] + back[name] for name in there} | {"identity": sum(same).item()}
    assert expected == plain(terms)
    assert there["image"] != pytest.approx(back["image"], rel=0.01)  # the directions differ
    total = expected["image"] + 1.5 * expected["histogram"] + 0.5 * expected["multi_scale"] + expected["identity"]
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_identity_pairs_cost_a_residual_network_nothing(batch):
    for form in recipe.RECIPES:
        objective = Objective(network(residual=True), side=SIDE, recipe=form, shares=(0, 0, 1, 0), multi_scale=0.0)
        assert objective(batch)[0].item() == 0


def test_renditions_are_taken_as_they_come(batch):
    objective = Objective(network(), side=SIDE, hue=False)
    pair = objective.pair(batch | {"other": batch["rgb"] // 2})
    expected = pairs.rendition_pairs(batch["rgb"], batch["rgb"] // 2, [3, 2**62], SIDE, hue=False)
    assert all(torch.equal(*both) for both in zip(pair, expected, strict=True))
    objective.hue = True
    changed = objective.pair(batch | {"other": batch["rgb"] // 2})
    assert (changed.source[:, 0] - pair.source[:, 0]).abs().max() < 1e-4
    assert (changed.source - pair.source).abs().max() > 1


def test_pairs_keep_full_precision_under_autocast(batch):
    objective = Objective(network(), side=SIDE)
    expected = objective.pair(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.pair(batch)
        loss, terms = objective(batch)
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))
    assert {term.dtype for term in terms.values()} == {loss.dtype} == {torch.float32}
    assert loss.item() == pytest.approx(objective(batch)[0].item(), rel=0.1)


def test_tables_go_with_the_objective_but_not_into_weights(batch):
    luts = torch.rand(3, 3, 5, 5, 5, generator=torch.Generator().manual_seed(0))
    objective = Objective(network(), side=SIDE, shares=(1, 0, 0, 0), luts=luts)
    batch = {"rgb": batch["rgb"][:1].expand(12, -1, -1, -1), "seed": torch.arange(12)}
    objective.model = torch.nn.Identity()
    found = objective.pair(batch)
    objective.luts = None
    off = (objective.pair(batch).target - found.target).abs().amax((1, 2, 3))
    assert 0 < (off > 1).sum() < 12  # two of five go through the tables
    assert not Objective(torch.nn.Identity(), luts=luts).state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "mine"}, "recipe: expected one of paper, official-history, got 'mine'"),
        ({"side": 32}, "side: five halvings need squares of at least 64 pixels, got 32"),
    ],
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Objective(torch.nn.Identity(), **options)


SMALL = {"data": "photos", "sets": ["photos"], "size": 72, "side": SIDE, "width": "tiny", "batch": 2, "log_every": 1}
SMALL |= {"sample_every": 1}  # TensorBoard gets pictures


def test_a_run_leaves_weights(tmp_path, caches):
    model, history = recipe.run(tmp_path / "run", conditioning="film", curves=True, steps=2, seed=3, **SMALL)
    assert [row["step"] for row in history] == [1, 2]
    assert all(row[name] > 0 for row in history for name in ("loss", "image", "histogram", "multi_scale"))
    assert [path.name for path in caches.iterdir()] == ["photos-72"]
    loaded = HistogramAnalogy.from_pretrained(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config.items() >= {"conditioning": "film", "width": "tiny", "curves": True}.items()
    assert not model.training
    torch.manual_seed(3)
    begun = HistogramAnalogy("film", "tiny", curves=True).state_dict()
    for (name, weights), kept in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(kept, weights.half().float()), name
    assert any(not torch.equal(begun[name], weights) for name, weights in model.state_dict().items())

    again, same = recipe.run(tmp_path / "run", conditioning="film", curves=True, steps=2, seed=3, **SMALL)
    assert same == history  # it was done
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))
    with pytest.raises(CheckpointError, match=r"histogram was 1\.5 and is 10\.0"):
        recipe.run(tmp_path / "run", conditioning="film", curves=True, steps=2, seed=3, histogram=10.0, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1.0}, "unknown option 'learning_rate'; known are .*, lr, .*width"),
        ({"data": "coco"}, "data: expected fivek or photos, got 'coco'"),
        ({"recipe": "mine"}, "recipe: expected one of"),
        ({"width": "huge"}, "width: expected one of paper, small, tiny"),
        ({"side": 32}, "side: five halvings"),
        ({"size": 63}, "size, side: squares of 64 pixels cannot be cut out of 63"),
        ({"shares": [0.5, 0.5]}, "shares: expected one for each of retouch, hue, identity, palette"),
        ({"shares": [1, 1, -1, 0]}, "shares: expected a number from 0 on, got -1"),
        ({"shares": 0.5}, "shares: expected one for each"),
        ({"size": "big"}, "size: expected a whole number, got 'big'"),
        ({"curves": "nope"}, "curves: expected true or false, got 'nope'"),
        ({"sets": 3}, r"sets: expected a list of names, e\.g\. sets=\[photos\], got 3"),
        ({"histogram": "much"}, "histogram: expected a number from 0 on, got 'much'"),
        ({"steps": 0}, "steps: expected at least 1"),
    ],
)
def test_a_run_with_wrong_options_writes_nothing(tmp_path, caches, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.run(tmp_path / "run", **{"steps": 1} | SMALL | options)
    assert not list(tmp_path.iterdir())


def test_missing_data_is_named(tmp_path, caches):
    with pytest.raises(DataError, match=f"nowhere: no pictures in {tmp_path}/data/nowhere; set CTLIB_DATA"):
        recipe.run(tmp_path / "run", steps=1, **SMALL | {"sets": ["nowhere"]})
    with pytest.raises(DataError, match=r"fivek: .*CTLIB_DATA"):
        recipe.run(tmp_path / "run", steps=1, **SMALL | {"data": "fivek"})
    assert not list(tmp_path.iterdir())


def test_photographs_of_folders(tmp_path, caches):
    """`images` of a folder if there is one, else all of it; nothing but pictures."""
    for name, count in (("first/images/a", 1), ("first/other", 2), ("second/deep", 3)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for n in range(count):
            (tmp_path / "data" / name / f"{n}.png").write_bytes(photos.path("chelsea").read_bytes())
            (tmp_path / "data" / name / f"{n}.txt").write_text("no picture")
    data = recipe.photographs(["first", "second"], 16)
    assert len(data) == 1 + 3 and data[0, 0]["rgb"].shape == (16, 16, 3)
    assert list(data.manifest) == ["first-16/00000 0.png", *(f"second-16/{n:05d} {n}.png" for n in range(3))]
    assert recipe.photographs("first", 16).manifest.items() < data.manifest.items()


def test_official_layouts_are_named_with_their_part(tmp_path, caches):
    """ImageNet as a folder a class, COCO as a folder a split; what is gray is left out."""
    names = ("imagenet/train/n01440764/n01440764_18.JPEG", "imagenet/train/n01443537/n01443537_2.JPEG",
             "imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG", "coco/train2017/000000000009.jpg",
             "coco/val2017/000000000139.jpg")  # fmt: skip
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.open(photos.path("chelsea"))
        (picture.convert("L") if "n01443537" in name else picture).save(path, "JPEG")
    data = recipe.photographs(["imagenet/train", "coco/train2017"], 16)
    assert [name.rpartition(" ")[2] for name in data.manifest] == ["n01440764_18.JPEG", "000000000009.jpg"]


def test_caches_stay_in_the_repository():
    assert recipe.cache_dir("/elsewhere/set-64").parent == recipe.cache_dir("photos-64").parent


def test_samples_are_the_same_pairs_each_time(caches):
    data, model = recipe.photographs(["photos"], 72), network(residual=True)
    picture = recipe.grid(Objective(model, side=SIDE), data, count=3)
    out = picture(model)
    assert out.shape == (3, 3 * SIDE, 3 * SIDE) and out.min() >= 0 and out.max() <= 1
    source, result, target = out.split(SIDE, dim=1)
    assert (result - source).abs().max() < 1e-3 < (target - source).abs().mean()  # it begins as the identity
    assert torch.equal(out, picture(model))


def test_tables_are_an_option_of_the_data_folder(caches):
    assert recipe.fivek_luts() is None
