"""Encoders for exemplar colorization: sizes of the spec, torchvision's names, what files do to their input, no file."""

import pytest
import torch
from torch.nn import functional

from ctlib import paths
from ctlib.checkpoints import CheckpointError
from ctlib.hubcache import MissingWeights
from ctlib.models import imagenet
from ctlib.models.features import Features, Pyramid
from ctlib.models.style_encoders import DEEP, ENCODERS, load, plan


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def vgg(shapes: Pyramid) -> dict[str, torch.Tensor]:
    """Random weights under torchvision's names."""
    places = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
    state, names = shapes.state_dict(), [name[:-7] for name in shapes.state_dict() if name.endswith(".weight")]
    torch.manual_seed(3)
    found = {}
    for place, name in zip(places, names, strict=False):
        for kind in ("weight", "bias"):
            found[f"features.{place}.{kind}"] = 0.1 * torch.randn(state[f"{name}.{kind}"].shape)
    return found


def test_parameters_of_the_spec():
    """3,505,740 are counted with conv0, 3 x 3 weights and 3 biases, which is folded into conv1_1 here."""
    with torch.device("meta"):
        sizes = {name: sum(w.numel() for w in Pyramid(*plan(name)).parameters()) for name in ENCODERS}
    assert sizes["vgg19"] + 12 == 3_505_740
    assert sizes["compact"] < sizes["vgg19"] / 10


def test_vgg19_is_torchvisions():
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        peer, own = models.vgg19().features, Pyramid(*DEEP["vgg19"])
    convs = {place: tuple(layer.weight.shape) for place, layer in enumerate(peer) if isinstance(layer, torch.nn.Conv2d)}
    mine = {int(key.split(".")[1]): tuple(value.shape) for key, value in vgg(own).items() if key.endswith("weight")}
    assert {place: shape for place, shape in convs.items() if place <= 28} == mine
    assert imagenet.FILES["vgg19"].startswith("vgg19-dcbb9e9d")


def test_vgg19_from_a_file(tmp_path):
    with torch.device("meta"):
        shapes = Pyramid(*DEEP["vgg19"])
    weights = vgg(shapes)
    torch.save(weights | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg19.pth")
    encoder = load("vgg19", tmp_path / "vgg19.pth")
    assert not encoder.training and not any(weight.requires_grad for weight in encoder.parameters())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = noise(1, 3, 16, 16)
    features = (rgb - mean[:, None, None]) / std[:, None, None]
    for place in (0, 2):
        features = functional.pad(features, (1, 1, 1, 1), mode="reflect")
        conv = (weights[f"features.{place}.{kind}"] for kind in ("weight", "bias"))
        features = functional.conv2d(features, *conv).relu()
    torch.testing.assert_close(encoder(rgb, ["pool1"])["pool1"], functional.avg_pool2d(features, 2))
    assert torch.equal(encoder.conv4_1.weight, weights["features.19.weight"])
    assert torch.equal(load("vgg19", tmp_path / "vgg19.pth", deep=True).conv5_1.bias, weights["features.28.bias"])


def test_the_compact_encoder_needs_no_file(monkeypatch, tmp_path):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    own, peer, rgb = load("compact"), Features.from_pretrained("features-compact"), noise(1, 3, 32, 32)
    torch.testing.assert_close(own(rgb)["relu4_1"], peer(rgb)["relu4_1"])
    assert own.layers[-1] == "relu4_1" and load("compact", deep=True).layers[-1] == "relu5_1"


def test_missing_weights_name_the_compact_encoder(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"vgg19-dcbb9e9d.pth are missing; .*or take encoder compact") as error:
        load("vgg19", download=False)
    assert str(error.value).count("compact") == 1 and "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"none.safetensors: there are no weights.*or take encoder compact"):
        load("distilled", tmp_path / "none.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"bad.pth: not readable as tensors.*or take encoder compact"):
        load("vgg19", tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: load("vgg16"), "encoder: expected one of vgg19, .*compact, got 'vgg16'"),
        (lambda _: load("vgg19-conv3_1", deep=True), "encoder: expected one of .* to relu5_1, got 'vgg19-conv3_1'"),
        (lambda _: load("distilled"), "file: encoder distilled needs the file .*or take encoder compact"),
        (lambda file: load("compact", file), "file: encoder compact comes with the book and takes none"),
        (lambda file: load("vgg19", file), "file: these are not the weights of encoder vgg19 .*encoder compact"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, call, message):
    file = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(ValueError, match=message) as error:
        call(file)
    assert "\n" not in str(error.value)


def development(name: str):
    file = paths.data_dir() / "weights" / name
    if not file.is_file():
        pytest.skip(f"no {name} in the data folder")
    return file


def test_what_a_file_does_to_its_input_is_folded():
    """Two files of VGG19 that normalize differently agree channel by channel, up to a factor."""
    large = [
        load("vgg19-conv3_1", development(name))
        for name in (
            "vgg19_normalised_conv1_1-conv3_1.safetensors",
            "vgg19_caffe_conv1_1-conv3_1_rgbnorm.safetensors",
        )
    ]
    found = [encoder(noise(1, 3, 64, 64), ["relu1_1", "relu3_1"]) for encoder in large]
    for layer in found[0]:
        one, other = (each[layer][0].flatten(1) for each in found)
        alive = (one.norm(dim=1) > 0) & (other.norm(dim=1) > 0)
        assert functional.cosine_similarity(one[alive], other[alive]).min() > 0.999


def test_the_distilled_encoder_is_read():
    file = development("collab_distill_small16x_vgg19_wct_fp16.safetensors")
    for deep, layer, width in ((False, "relu4_1", 128), (True, "relu5_1", 128)):
        found = load("distilled", file, deep=deep)(noise(1, 3, 32, 32), [layer])[layer]
        assert found.shape[1] == width and found.max() > 0
