"""The student's transfer sub-net: AdaIN once, norms in the decoder, any size."""

import pytest
import torch
from torch import nn

from ctlib import ops
from ctlib.data import photos
from ctlib.models.stylization_once import StylizationOnce
from ctlib.segment.guides import Guide


def network(encoder: str = "distilled", seed: int = 0) -> StylizationOnce:
    torch.manual_seed(seed)
    return StylizationOnce(encoder).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_units_of_convolution_norm_and_relu():
    with torch.device("meta"):
        net = StylizationOnce("vgg19")
    assert [len(list(part.modules())) > 1 for part in net.slices] == [True] * 4
    convs = [one for one in net.slices.modules() if isinstance(one, nn.Conv2d)]
    norms = [one for one in net.slices.modules() if isinstance(one, nn.BatchNorm2d)]
    assert len(convs) == len(norms) == 7
    assert [(one.in_channels, one.out_channels) for one in convs] == [
        (512, 256), (512, 256), (256, 128), (256, 128), (128, 64), (128, 64), (64, 64)
    ]  # fmt: skip
    assert not any(isinstance(one, nn.BatchNorm2d) for one in net.encoder.modules())
    assert net(*(torch.empty(2, 3, 32, 48, device="meta") for _ in range(2))).shape == (2, 3, 32, 48)


@torch.no_grad()
def test_adain_acts_once(monkeypatch):
    net, rgb, reference = network(), noise(1, 3, 32, 32), noise(1, 3, 16, 24, seed=1)
    found, adain = [], ops.adain

    def spy(x, y, **options):
        found.append((x, y))
        return adain(x, y, **options)

    monkeypatch.setattr(ops, "adain", spy)
    net(rgb, reference)
    assert len(found) == 1
    for one, picture in zip(found[0], (rgb, reference), strict=True):
        assert torch.equal(one, net.encoder(picture, ["relu4_1"])["relu4_1"])


@torch.no_grad()
def test_its_own_reference_changes_nothing():
    net, rgb = network().train(), noise(1, 3, 32, 32)  # norms that have seen nothing would let nothing through
    torch.testing.assert_close(net(rgb, rgb), net.reconstruct(rgb), rtol=1e-3, atol=1e-4)
    same = Guide(*(torch.zeros(1, 32, 32, dtype=torch.int64),) * 2, 1)
    other = noise(1, 3, 32, 32, seed=1) ** 2
    torch.testing.assert_close(net(rgb, other, same), net(rgb, other))
    assert (net(rgb, other) - net(rgb, rgb)).abs().max() > 0.01


def test_recolor_and_weights(tmp_path):
    net = network("compact").load_encoder()
    rgb, reference = photos.tensor("coffee", 70), photos.tensor("china", 60)
    found = net.recolor(rgb, reference, side=48)
    assert found.shape == rgb.shape
    net.save_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(StylizationOnce.from_pretrained(tmp_path).recolor(rgb, reference, side=48), found)
    with pytest.raises(ValueError, match=r"reference: expected .* with sides that 8 divides"):
        net(noise(1, 3, 32, 32), noise(1, 3, 32, 36))
