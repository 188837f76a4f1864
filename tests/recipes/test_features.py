"""How the compact encoder learns: the loss by hand, the maps, what is saved, and no teacher."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ctlib import paths
from ctlib.checkpoints import load_weights
from ctlib.data.registry import DataError
from ctlib.models.features import Features
from ctlib.recipes import features as recipe
from ctlib.recipes.features import LEVELS, Imitator, Objective, Teacher, missed

WIDTHS = [4, 6, 8, 10, 12]
HAND = {"11": (64, 3), "12": (64, 64), "21": (128, 64), "22": (128, 128), "31": (256, 128)}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def toy_teacher() -> Teacher:
    """Random weights under the names of both files."""
    torch.manual_seed(1)
    large = {"preprocess": (3, 3, 1)} | {f"features.{n}": (*HAND[key], 3) for key, n in
                                         zip(HAND, (0, 2, 5, 7, 10), strict=True)}  # fmt: skip
    small, channels = {"conv0": (3, 3, 1)}, 3
    for level, (width, count, wide) in enumerate([(4, 2, 64), (6, 2, 128), (8, 4, 256), (10, 4, 512), (12, 1, 512)], 1):
        for number in range(1, count + 1):
            small[f"conv{level}{number}"], channels = (width, channels, 3), width
        small[f"conv{level}1_aux"] = (wide, width, 1)

    def tensors(shapes: dict, head: str = "") -> dict:
        made = {}
        for name, (out, into, side) in shapes.items():
            made[f"{head}{name}.weight"] = torch.randn(out, into, side, side) * (2 / (into * side * side)) ** 0.5
            made[f"{head}{name}.bias"] = torch.zeros(out)
        return made

    return Teacher(tensors(large), tensors(small, "enc5."))


def imitator(seed: int = 0) -> Imitator:
    torch.manual_seed(seed)
    return Imitator(Features(WIDTHS))


def test_what_is_missed_by_hand():
    taught = torch.tensor([[[[1.0, 3.0]], [[2.0, 6.0]]]])  # energy about the means: (1 + 1 + 4 + 4) / 4
    assert missed(taught, taught).item() == 0
    assert missed(taught.mean((0, 2, 3), keepdim=True).expand_as(taught), taught).item() == pytest.approx(1)
    assert missed(taught + 1, taught).item() == pytest.approx(1 / 2.5)


def test_the_loss_is_the_mean_over_layers():
    objective = Objective(imitator(), toy_teacher(), side=32)
    batch = {"rgb": (noise(2, 40, 40, 3) * 255).byte(), "seed": torch.tensor([3, 2**62])}
    loss, terms = objective(batch)
    assert tuple(terms) == LEVELS
    rgb = objective.pictures(batch)
    with torch.no_grad():
        own, taught = objective.model(rgb), objective.teacher(rgb)
    shares = [((a - b) ** 2).mean() / ((b - b.mean((0, 2, 3), keepdim=True)) ** 2).mean()
              for a, b in zip(own, taught, strict=True)]  # fmt: skip
    assert loss.item() == pytest.approx(torch.stack(shares).mean().item(), rel=1e-5)
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in objective.model.parameters())
    assert all(weight.grad is None for weight in objective.teacher.parameters())


def test_the_teacher_is_vgg_with_reflection_and_maxima():
    teacher, rgb = toy_teacher(), noise(1, 3, 32, 32)
    net = nn.Sequential(nn.Conv2d(3, 3, 1))
    for key, (out, into) in HAND.items():
        net += nn.Sequential(nn.Conv2d(into, out, 3, padding=1, padding_mode="reflect"), nn.ReLU())
        if key[1] == "2":
            net.append(nn.MaxPool2d(2))
    for layer, name in zip([one for one in net if isinstance(one, nn.Conv2d)], ("0", *HAND), strict=True):
        layer.load_state_dict({kind: teacher.large[f"{name}_{kind}"] for kind in ("weight", "bias")})
    found = teacher(rgb)
    with torch.no_grad():
        torch.testing.assert_close(found[2], net(rgb))
    assert [tuple(one.shape[1:]) for one in found] == [
        (64, 16, 16),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]


def test_the_maps_begin_as_the_least_squares_solution():
    model, teacher, rgb = imitator(), toy_teacher(), noise(4, 3, 64, 64)
    model.begin(rgb, teacher)
    with torch.no_grad():
        before = [missed(*one).item() for one in zip(model(rgb), teacher(rgb), strict=True)]
        assert all(0 < share < 1 for share in before)
        for one in model.maps:  # any other map is worse, the pull to 0 aside
            one.weight.mul_(1.3)
        after = [missed(*one).item() for one in zip(model(rgb), teacher(rgb), strict=True)]
    assert all(a > b for a, b in zip(after, before, strict=True))


def test_balanced_channels_have_the_scale_of_their_maps():
    model, rgb = imitator(), noise(2, 3, 32, 32)
    encoder = model.balanced()
    with torch.no_grad():
        own, scaled = model.encoder(rgb, [*LEVELS, "relu3_2"]), encoder(rgb, [*LEVELS, "relu3_2"])
    for layer, one in zip(LEVELS, model.maps, strict=True):
        length = one.weight[:, :, 0, 0].norm(dim=0)[:, None, None]
        torch.testing.assert_close(scaled[layer], own[layer] * length, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled["relu3_2"], own["relu3_2"], rtol=1e-4, atol=1e-5)


def test_a_run_goes_from_photographs_to_an_encoder(caches, monkeypatch):
    monkeypatch.setattr(recipe, "teacher", toy_teacher)
    folder = paths.data_dir() / "pictures"
    folder.mkdir(parents=True)
    for number in range(4):
        rgb = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(folder / f"{number}.png")
    options = {"sets": ["pictures"], "part": "all", "size": 40, "side": 32, "widths": WIDTHS, "batch": 2}
    net, history = recipe.run(caches / "run", steps=3, log_every=1, **options)
    assert history[-1]["step"] == 3 and history[-1].keys() > set(LEVELS)
    saved = load_weights(caches / "run" / "model.safetensors")
    assert saved.keys() == net.state_dict().keys()  # no maps, no teacher
    assert json.loads((caches / "run" / "config.json").read_text()) == {"widths": WIDTHS}
    again = Features.from_pretrained(caches / "run")
    torch.testing.assert_close(
        again(noise(1, 3, 32, 32))["relu3_1"], net(noise(1, 3, 32, 32))["relu3_1"], rtol=0.01, atol=0.01
    )
    with pytest.raises(ValueError, match="unknown option 'width'"):
        recipe.run(caches / "run", steps=3, width=3)
    with pytest.raises(ValueError, match="squares of 64"):
        recipe.run(caches / "run", steps=3, size=40, side=64)


def test_no_teacher_is_one_clear_line(caches):
    with pytest.raises(DataError, match=r"vgg19.*no such teacher.*set CTLIB_DATA") as error:
        recipe.run(caches / "run", steps=1)
    assert "\n" not in str(error.value) and not caches.exists()
