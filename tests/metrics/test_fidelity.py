"""Fidelity and LPIPS: golden values, agreement with scikit-image, colour-science and `lpips`, missing weights."""

import hashlib
import json
import math
import socket
import time
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, deltaE_ciede2000, rgb2gray, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ctlib import hubcache, metrics
from ctlib.metrics import MissingWeights, evaluate, fidelity, perceptual, table
from ctlib.paths import data_dir

WEIGHTS = data_dir() / "weights"
WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [("psnr", 34.383284), ("ssim_uniform", 0.868787), ("ssim", 0.828934), ("cie76", 1.616398), ("ciede2000", 1.258080)],
)
def test_golden_pair(golden, name, value):
    assert getattr(metrics, name)(*golden).item() == pytest.approx(value, abs=2e-6)


def test_golden_ssim_of_gray(golden):
    gray = [torch.from_numpy(rgb2gray(picture[0].movedim(0, -1).numpy()))[None, None] for picture in golden]
    assert fidelity._ssim(*gray).item() == pytest.approx(0.811928, abs=1e-6)


SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, 2.8361, -74.0200), (50, 0, -82.7485), 3.4412),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0009), 7.1792),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0011), 7.2195),
    ((50, 2.5000, 0.0000), (73, 25.0000, -18.0000), 27.1492),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
]


@pytest.mark.parametrize(("first", "second", "value"), SHARMA)
def test_ciede2000_test_pairs_of_sharma(first, second, value):
    palettes = (torch.tensor([color], dtype=torch.float64) for color in (first, second))
    assert metrics.palette_distance(*palettes).item() == pytest.approx(value, abs=5e-5)


def gray_levels(rgb):
    """As OpenCV has them."""
    return np.rint(255 * (rgb @ [0.299, 0.587, 0.114])).astype(np.uint8)


def test_equal_to_scikit_image(pair):
    truth = pair[0].movedim(1, -1).numpy()
    result = pair[1].movedim(1, -1).numpy()
    peers = {
        "psnr": lambda a, b: peak_signal_noise_ratio(a, b, data_range=1),
        "ssim": lambda a, b: structural_similarity(a, b, channel_axis=-1, **WANG),
        "ssim_uniform": lambda a, b: structural_similarity(a, b, channel_axis=-1, data_range=1),
        "ssim_l": lambda a, b: structural_similarity(rgb2lab(a)[..., 0] / 100, rgb2lab(b)[..., 0] / 100, **WANG),
        "ssim_gray": lambda a, b: structural_similarity(*(gray_levels(one) for one in (a, b))),
        "ab_rmse": lambda a, b: ((rgb2lab(a) - rgb2lab(b))[..., 1:] ** 2).mean() ** 0.5,
        "cie76": lambda a, b: deltaE_cie76(rgb2lab(a), rgb2lab(b)).mean(),
        "ciede2000": lambda a, b: deltaE_ciede2000(rgb2lab(a), rgb2lab(b)).mean(),
        "ciede2000_p95": lambda a, b: np.percentile(deltaE_ciede2000(rgb2lab(a), rgb2lab(b)), 95),
    }
    for name, peer in peers.items():
        expected = [peer(a, b) for a, b in zip(truth, result, strict=True)]
        assert getattr(metrics, name)(pair[1], pair[0]).tolist() == pytest.approx(expected, abs=1e-5), name


def test_color_difference_agrees_with_colour_science(pair):
    colour = pytest.importorskip("colour")
    lab = [rgb2lab(image[0].movedim(0, -1).numpy()).reshape(-1, 3) for image in pair]
    for method, function in (("CIE 1976", metrics.cie76), ("CIE 2000", metrics.ciede2000)):
        expected = colour.difference.delta_E(*lab, method=method).mean()
        assert function(pair[0][:1], pair[1][:1]).item() == pytest.approx(expected, abs=1e-5)


def test_psnr_conventions(pair):
    first, second = pair
    true = metrics.psnr(first, second)
    torch.testing.assert_close(metrics.psnr_missing_root(first, second) / 2 + 10 * math.log10(2), true)
    assert 10 * math.log10(2) == pytest.approx(3.0103, abs=1e-5)
    # two grays differ in L* alone, one of three channels, on a scale of 2 for 100
    gray = [torch.full((1, 3, 4, 4), level, dtype=torch.float64) for level in (0.2, 0.6)]
    step = np.diff([rgb2lab(np.full((1, 1, 3), level))[0, 0, 0] for level in (0.2, 0.6)]).item()
    expected = -10 * math.log10((2 * step / 100) ** 2 / 3)
    assert metrics.psnr_lab_official(*gray).item() == pytest.approx(expected, abs=1e-3)


def test_structure_metrics_see_structure(pair):
    picture = pair[0]
    assert (metrics.gradient_correlation(picture, 1 - picture) < -0.8).all()
    assert (metrics.gradient_correlation(picture, picture * 0.5 + 0.2) > 0.9).all()
    noise = torch.rand(picture.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for function in (metrics.edge_ssim, metrics.ssim_l, metrics.gradient_correlation):
        assert (function(picture * 0.8, picture) > function(noise, picture) + 0.2).all()
    flat = torch.full_like(picture, 0.5)
    assert metrics.gradient_correlation(flat, picture).tolist() == [0, 0]


def test_percentile(pair):
    assert (metrics.ciede2000(*pair, percentile=95) > metrics.ciede2000(*pair)).all()
    assert torch.equal(metrics.ciede2000(*pair, percentile=95), metrics.ciede2000_p95(*pair))
    with pytest.raises(ValueError, match="percentile"):
        metrics.cie76(*pair, percentile=101)


def test_large_pictures_are_cut_into_slices_without_a_trace(monkeypatch, pair):
    whole = metrics.ciede2000(*pair)
    monkeypatch.setattr(fidelity, "_SLICE", 700)
    torch.testing.assert_close(metrics.ciede2000(*pair), whole)


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """An empty torch cache and no network; gives the folder where trunks are looked for."""

    def unreachable(*_, **__):
        raise urllib.error.URLError(socket.gaierror("Name or service not known"))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    hubcache.answers.cache_clear()
    perceptual._cached.cache_clear()
    table._warn_once.cache_clear()
    yield tmp_path / "hub" / "checkpoints"
    hubcache.answers.cache_clear()


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_missing_trunk_is_one_clear_line(offline, pair, net):
    pytest.importorskip("torchvision")
    for options in ({}, {"download": False}):
        with pytest.raises(MissingWeights) as error:
            metrics.lpips(*pair, net=net, **options)
        message = str(error.value)
        assert perceptual.TRUNKS[net] in message and str(offline) in message and "go online" in message
        assert "\n" not in message
    assert not offline.exists()


def test_a_name_server_that_hangs_costs_two_seconds_once(offline, monkeypatch, pair):
    pytest.importorskip("torchvision").models  # noqa: B018  the import is not part of the wait

    def hang(*_, **__):
        time.sleep(8)
        raise urllib.error.URLError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    for limit in (2.5, 0.5):
        began = time.perf_counter()
        with pytest.raises(MissingWeights):
            metrics.lpips(*pair)
        assert time.perf_counter() - began < limit


def test_evaluate_leaves_an_honest_blank(offline, pair):
    with pytest.warns(UserWarning, match=r"alexnet.*stays blank"):
        row = evaluate(*pair, truth=pair[1], metrics=["psnr", "lpips"])
    assert math.isnan(row["lpips"]) and row["psnr"] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(evaluate(*pair, truth=pair[1], metrics=["lpips"])["lpips"])


def test_damaged_trunk_is_no_number(offline, pair):
    offline.mkdir(parents=True)
    (offline / perceptual.TRUNKS["squeeze"]).write_bytes(b"half a download")
    with pytest.raises(MissingWeights, match="damaged"):
        metrics.lpips(*pair, net="squeeze")


def test_unknown_net(pair):
    with pytest.raises(ValueError, match="alex, vgg, squeeze"):
        metrics.lpips(*pair, net="resnet")


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The format in a few lines: 8 bytes of length, a JSON header, raw little-endian arrays."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    kinds = {"F16": torch.float16, "F32": torch.float32}
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            buffer = bytearray(raw[start:stop])
            tensors[name] = torch.frombuffer(buffer, dtype=kinds[entry["dtype"]]).view(entry["shape"]).float()
    return tensors


@pytest.fixture(scope="module")
def squeeze() -> dict[str, torch.Tensor]:
    file = WEIGHTS / "squeezenet1_1_torchvision_fp16.safetensors"
    if not file.is_file():
        pytest.skip(f"CTLIB_DATA has no {file.name}")
    pytest.importorskip("lpips")
    return read_safetensors(file)


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than a weight enum")
def test_lpips_equals_its_authors_package(squeeze, pair):
    import lpips
    from torchvision.models import squeezenet1_1

    peer = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    trunk = squeezenet1_1(weights=None)
    trunk.load_state_dict(squeeze)
    for part in (getattr(peer.net, f"slice{index}") for index in range(1, 8)):
        for name, module in part.named_children():
            module.load_state_dict(trunk.features[int(name)].state_dict())
    with torch.no_grad():
        expected = peer(pair[0].float(), pair[1].float(), normalize=True).flatten().double()
    state = torch.get_rng_state()
    value = metrics.lpips(*pair, net="squeeze", trunk=squeeze)
    assert torch.equal(torch.get_rng_state(), state)  # building a network must not shift the reader's seeds
    assert value.dtype == torch.float64 and (value > 0.05).all()
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    assert metrics.lpips(pair[0], pair[0], net="squeeze", trunk=squeeze).tolist() == [0, 0]
    with pytest.raises(ValueError, match="not torchvision's weights for LPIPS"):
        metrics.lpips(*pair, net="alex", trunk=squeeze)


def test_lpips_equals_the_formula(squeeze, pair):
    """The paper's sum written out, on torchvision's own network and the published heads."""
    from torchvision.models import squeezenet1_1

    heads = read_safetensors(WEIGHTS / "lpips_lin_v0.1.safetensors")
    trunk = squeezenet1_1(weights=None).eval()
    trunk.load_state_dict(squeeze)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    total, features = 0, [(image.float() - mean[:, None, None]) / std[:, None, None] for image in pair]
    level = 0
    with torch.no_grad():
        for index, layer in enumerate(trunk.features):
            features = [layer(image) for image in features]
            if index in {1, 4, 7, 9, 10, 11, 12}:
                first, second = (image / (image.norm(dim=1, keepdim=True) + 1e-10) for image in features)
                head = heads[f"squeeze.lin{level}.model.1.weight"]
                total = total + ((first - second) ** 2 * head[0][None]).sum(1).mean((1, 2))
                level += 1
    torch.testing.assert_close(metrics.lpips(*pair, net="squeeze", trunk=squeeze), total.double(), rtol=0, atol=1e-5)


def test_trunk_in_the_cache_is_used(squeeze, offline, monkeypatch, pair):
    offline.mkdir(parents=True)
    torch.save(squeeze, offline / "trunk.pth")
    digest = hashlib.sha256((offline / "trunk.pth").read_bytes()).hexdigest()[:8]
    (offline / "trunk.pth").rename(offline / f"squeezenet1_1-{digest}.pth")
    monkeypatch.setitem(perceptual.TRUNKS, "squeeze", f"squeezenet1_1-{digest}.pth")
    expected = metrics.lpips(*pair, net="squeeze", trunk=squeeze)
    torch.testing.assert_close(metrics.lpips(*pair, net="squeeze"), expected, rtol=0, atol=1e-7)
    assert perceptual._cached.cache_info().currsize == 1
