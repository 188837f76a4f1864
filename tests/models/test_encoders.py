"""Other encoders: the counts of the spec, and that each width does all that the network does."""

import hashlib
import json
import sys

import pytest
import torch
from torch import nn

from ctlib import color
from ctlib.checkpoints import CheckpointError
from ctlib.models import encoders
from ctlib.models.encoders import Attention, Transformer
from ctlib.models.histogram_analogy import WIDTHS, Film, HistogramAnalogy, with_border
from ctlib.recipes.histogram_analogy import Objective

NEW = ("mobilenet_large", "mobilenet_small", "mobilenet_tiny", "transformer")
LIGHT = ("mobilenet_tiny", "transformer")  # those that a test can run often


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dull(*shape: int) -> torch.Tensor:
    return 0.3 * noise(*shape, seed=1) + 0.4


def network(width: str, conditioning: str = "film", **options) -> HistogramAnalogy:
    torch.manual_seed(0)
    net = HistogramAnalogy(conditioning, width, **{"init": "kaiming", "root": True} | options)
    for part in net.modules():
        if isinstance(part, Film):
            nn.init.normal_(part.linear.weight, 0.0, 0.1)
    return net.eval()


def on_meta(*args, **options) -> HistogramAnalogy:
    with torch.device("meta"):
        return HistogramAnalogy(*args, **options)


def count(part: nn.Module) -> int:
    return sum(weights.numel() for weights in part.parameters())


@pytest.mark.parametrize(
    ("width", "encoder", "whole"),
    [("mobilenet_large", 2_971_952, 53_159_935), ("mobilenet_small", 927_008, 19_129_615)],
)
def test_mobile_networks_have_the_parameters_of_the_spec(width, encoder, whole):
    net = on_meta("tile", width)
    assert count(net.ctn.encoder) == encoder and count(net.ctn) == whole and count(net.hen) == 1_604_608


def test_a_small_encoder_does_not_make_a_small_network():
    paper, large, small, tiny = (on_meta("tile", width).ctn for width in ("paper", *NEW[:3]))
    assert count(large.encoder) < count(paper.encoder) / 6 and count(large) > 1.3 * count(paper)
    assert sum(count(block) for block in large.decoder[:2]) > 30_000_000  # those that meet 960 channels
    assert count(small.encoder) == count(tiny.encoder) and count(tiny) < 2_500_000 < count(small) / 7


@pytest.mark.parametrize("width", NEW[:3])
def test_features_of_the_encoders(width):
    """Each block halves, and has the channels that the decoder expects; odd sizes are rounded up."""
    for colors, size, sides in ((3, (256, 256), [128, 64, 32, 16, 8]), (6, (70, 90), [(35, 45), (18, 23), (9, 12)])):
        features = torch.empty(1, colors, *size, device="meta")
        with torch.device("meta"):
            blocks = encoders.mobilenet(WIDTHS[width].backbone, colors)
        assert len(blocks) == 5
        for block, channels, side in zip(blocks, WIDTHS[width].encoder, sides, strict=False):
            features = block(features)
            assert features.shape[1:] == (channels, *(side if isinstance(side, tuple) else (side, side)))


@pytest.mark.parametrize("width", NEW)
def test_shapes_of_outputs(width):
    net, histogram = on_meta("tile", width), torch.empty(1, 9, 64, 64, device="meta")
    out, sides = net(torch.empty(1, 3, 256, 256, device="meta"), histogram, histogram)
    assert out.shape == (1, 3, 256, 256)
    assert [side.shape for side in sides] == [(1, 3, side, side) for side in (16, 32, 64, 128)]


@pytest.mark.parametrize("options", [{"conditioning": "tile"}, {}, {"curves": True}], ids=str)
@pytest.mark.parametrize("width", LIGHT)
def test_recolor_takes_pictures_of_any_size(width, options):
    net, reference = network(width, **options), dull(1, 3, 5, 7)
    for size in ((1, 1), (33, 65), (90, 50)):
        source = noise(1, 3, *size)
        result = net.recolor(source, reference, long_side=72)
        assert result.shape == source.shape and result.min() >= 0 and result.max() <= 1
        assert not torch.equal(result, source) and torch.equal(result, net.recolor(source, reference, long_side=72))


@pytest.mark.parametrize("width", LIGHT)
def test_recolor_region_by_region(width):
    net, source, reference = network(width, curves=True), noise(1, 3, 64, 96), dull(1, 3, 40, 40)
    left = (torch.arange(96) < 40).long().expand(64, 96)
    upper = (torch.arange(40) < 20).long()[:, None].expand(40, 40)
    whole = net.recolor(source, reference)
    result = net.recolor(source, reference, labels=(left, upper))
    assert result.shape == source.shape and result.isfinite().all() and (result - whole).abs().max() > 1e-3
    one = net.recolor(source, reference, labels=(torch.zeros(64, 96).long(), torch.zeros(40, 40).long()))
    assert torch.equal(one, whole)


@pytest.mark.parametrize("width", LIGHT)
def test_weights_come_back(tmp_path, width):
    net = network(width, curves=True)
    net.train()
    net.transfer(*(color.rgb_to_lab(noise(2, 3, 64, 64, seed=seed)) for seed in (2, 3)))  # batches leave statistics
    net.eval().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["width"] == width
    assert (tmp_path / "model.safetensors").stat().st_size < 5e6
    loaded = HistogramAnalogy.from_pretrained(tmp_path)
    source, reference = noise(1, 3, 40, 70), dull(1, 3, 9, 9)
    expected = net.half().float().recolor(source, reference)
    assert torch.equal(loaded.recolor(source, reference), expected)


@pytest.mark.parametrize("conditioning", ["tile", "film"])
@pytest.mark.parametrize("width", LIGHT)
def test_a_step_of_training_reaches_every_weight(width, conditioning):
    net = network(width, conditioning)
    objective = Objective(net.train(), side=64, shares=(0, 1, 0, 0))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    batch = {"rgb": (255 * noise(2, 80, 80, 3)).byte(), "seed": torch.tensor([1, 2])}
    losses = []
    for _ in range(4):
        loss, _ = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        for name, weights in net.named_parameters():
            assert weights.grad.isfinite().all(), name
            # a constant that is added to all keys changes no softmax, a norm takes away what is added before it
            assert weights.grad.abs().max() > 0 or name.endswith("bias"), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("width", NEW[:2])
def test_the_wide_ones_run_too(width):
    net = network(width, curves=True)
    labels = [(torch.arange(side) % 2).expand(side, side) for side in (40, 9)]
    assert net.recolor(noise(1, 3, 40, 40), dull(1, 3, 9, 9), labels=labels).isfinite().all()
    loss, _ = Objective(net.train(), side=64)({"rgb": (255 * noise(2, 80, 80, 3)).byte(), "seed": torch.tensor([1, 2])})
    loss.backward()
    assert all(weights.grad.isfinite().all() for weights in net.parameters())


def test_without_torchvision_there_is_one_clear_line(monkeypatch, tmp_path):
    network("mobilenet_tiny").save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(RuntimeError, match=r"mobilenet_v3_small: torchvision is not installed: .*pip install -e"):
        HistogramAnalogy("film", "mobilenet_tiny")
    with pytest.raises(CheckpointError, match="torchvision is not installed"):
        HistogramAnalogy.from_pretrained(tmp_path)
    HistogramAnalogy("film", "transformer")


def test_tiled_codes_are_heard_through_attention():
    """Without borders to see, the published conditioning is deaf; tokens are not taken away by the norms."""
    unit, histograms = 2 * noise(1, 3, 64, 64) - 1, noise(3, 1, 9, 64, 64).square() / 1000
    responses = []
    for width in ("tiny", "transformer"):
        net = with_border(network(width, "tile").double(), "replicate")
        with torch.no_grad():
            one, other = (net(unit.double(), *histograms[[0, k]].double())[0] for k in (1, 2))
        responses.append((one - other).abs().mean() / one.std())
    assert responses[0] < 1e-9 and responses[1] > 1e-4


@torch.no_grad()
def test_regions_in_attention():
    torch.manual_seed(0)
    part, features = Transformer(8, 5, layers=2, heads=2).double(), torch.randn(2, 8, 3, 4).double()
    vectors, weights = torch.randn(2, 3, 10).double(), torch.rand(2, 3, 3, 4).double()
    weights = weights / weights.sum(1, keepdim=True)
    alike = vectors[:, :1].expand(-1, 3, -1)
    alone = part(features, vectors[:, :1])
    assert torch.allclose(part(features, alike, weights), alone)  # regions that say the same are one
    assert not torch.allclose(part(features, vectors, weights), alone, atol=1e-3)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(part(features, vectors[:, order], weights[:, order]), part(features, vectors, weights))
    nowhere = torch.stack([torch.ones(2, 3, 4), torch.zeros(2, 3, 4)], 1).double()
    assert torch.allclose(part(features, vectors[:, :2], nowhere), alone)


@torch.no_grad()
def test_attention_by_hand():
    torch.manual_seed(0)
    part, asking, asked = Attention(6, 1).double(), torch.randn(1, 4, 6).double(), torch.randn(1, 2, 6).double()
    share = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.2, 0.8], [1.0, 0.0]]).double()
    scores = (part.query(asking) @ part.key(asked).transpose(1, 2) / 6**0.5).exp() * share
    expected = part.out(scores / scores.sum(-1, keepdim=True) @ part.value(asked))
    assert torch.allclose(part(asking, asked, share.log()[None, None]), expected)


@torch.no_grad()
def test_cells_know_where_they_are_at_any_size():
    torch.manual_seed(0)
    part = Transformer(8, 5, layers=1, heads=2)
    for size in ((1, 1), (2, 7), (9, 3)):
        assert part(torch.randn(1, 8, *size), torch.randn(1, 1, 10)).shape == (1, 8, *size)
    flat = part(torch.ones(1, 8, 5, 5), torch.randn(1, 1, 10))
    assert flat.std((2, 3)).max() > 1e-3


NAMES = {  # of the weights and their shapes, as they are in trained networks
    ("paper", "tile"): "f54215febd725bee",
    ("paper", "film"): "8d267df10b4daa43",
    ("small", "tile"): "cbdecd7ba5e4bda2",
    ("small", "film"): "9a628ed5914f029d",
    ("tiny", "tile"): "02e00bf91c9f8c43",
    ("tiny", "film"): "c918823ef42a0df1",
}


@pytest.mark.parametrize(("width", "conditioning"), NAMES)
def test_weights_of_the_first_networks_keep_their_names(width, conditioning):
    rows = [(name, list(weights.shape)) for name, weights in on_meta(conditioning, width).state_dict().items()]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == NAMES[width, conditioning]
