"""Label maps: from colors, from networks with random weights, from files; partners and soft borders."""

import csv
import os
import time
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ctlib import images
from ctlib.segment import UNLABELED, Regions, SegmentError, drop_small, given, label_colors, match, segment, soften
from ctlib.segment.backends import _torchvision_network, _transformers_network
from ctlib.segment.partners import statistics

OFFLINE = ("kmeans", "slic")


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def flags(height: int = 48, width: int = 64) -> torch.Tensor:
    """Four quarters of different colors and textures."""
    rgb = 0.02 * noise(height, width)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.9, 0.9, 0.6]])
    return rgb + colors[quarters(height, width)].movedim(-1, 0) * 0.98


def quarters(height: int = 48, width: int = 64) -> torch.Tensor:
    return 2 * (torch.arange(height) >= height // 2).long()[:, None] + (torch.arange(width) >= width // 2).long()


def same_partition(one: torch.Tensor, other: torch.Tensor) -> bool:
    pairs = torch.stack([one.flatten(), other.flatten()]).unique(dim=1).shape[1]
    return pairs == len(one.unique()) == len(other.unique())


def covers(regions: Regions, size: tuple[int, int]) -> bool:
    return regions.labels.shape == size and regions.labels.unique().tolist() == list(range(regions.count))


# ---- from the colors


@pytest.mark.parametrize("backend", OFFLINE)
def test_regions_of_flags_are_their_quarters(backend):
    found = segment(flags(), backend, k=4)
    assert covers(found, (48, 64)) and found.names is None and found.count == 4
    if backend == "kmeans":
        assert same_partition(found.labels, quarters())
        lightness = [flags()[0, 1][found.labels == n].mean().item() for n in (0, 3)]
        assert lightness[0] < lightness[1], "numbered from dark to light"
    else:  # superpixels may take a pixel too many along an edge
        by_corner = found.labels[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (by_corner[quarters()] == found.labels).float().mean() > 0.97


@pytest.mark.parametrize("backend", OFFLINE)
def test_the_same_in_every_run(backend):
    rgb = noise(40, 50)
    assert torch.equal(segment(rgb, backend).labels, segment(rgb.clone(), backend).labels)


@pytest.mark.parametrize("backend", OFFLINE)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (1, 40), (40, 1)])
def test_tiny_and_constant_pictures(backend, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constant = segment(torch.full((1, 3, *size), 0.5), backend, k=3)
        found = segment(noise(*size), backend, k=3)
    assert covers(found, size) and found.count <= 3
    assert covers(constant, size)
    if backend == "kmeans":
        assert constant.count == 1


@pytest.mark.parametrize("backend", OFFLINE)
def test_a_shrunk_picture_still_gets_labels_for_all_pixels(backend):
    found = segment(flags(150, 210), backend, k=4, long_side=60)
    assert covers(found, (150, 210))
    corners = found.labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners[quarters(150, 210)] == found.labels).float().mean() > 0.9


def test_position_keeps_clusters_together():
    """Two gray halves with one dot of each in the other: color alone joins the dots, place parts them."""
    rgb = torch.full((1, 3, 40, 40), 0.45)
    rgb[..., 20:] = 0.5
    rgb[..., 20, 5], rgb[..., 20, 35] = 0.5, 0.45
    by_color, by_place = (segment(rgb, "kmeans", k=2, position=place).labels for place in (0, 200))
    assert by_color[20, 5] == by_color[0, 35] and by_place[20, 5] == by_place[0, 0]


def test_what_segment_refuses():
    with pytest.raises(ValueError, match="backend: expected one of slic, kmeans, torchvision, transformers, got 'sam'"):
        segment(flags(), "sam")
    with pytest.raises(ValueError, match="seed: no option of slic; known are k, superpixels"):
        segment(flags(), seed=1)
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        segment(flags(), k=0)
    with pytest.raises(ValueError, match="rgb: expected one picture, got a batch of 2"):
        segment(flags().expand(2, 3, 48, 64))
    with pytest.raises(ValueError, match="rgb: holds NaN"):
        segment(flags() * torch.nan)
    with pytest.raises(ValueError, match=r"rgb: .*divide by 255"):
        segment(flags() * 255)


# ---- by networks, with random weights


def test_torchvision_with_a_ready_network():
    models = pytest.importorskip("torchvision", reason="torchvision comes with the extra book").models
    torch.manual_seed(0)
    network = models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None)
    found = segment(noise(40, 60), "torchvision", network=network)
    assert covers(found, (40, 60)) and not network.training
    known = models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT.meta["categories"]
    assert set(found.names) <= set(known) and len(found.names) == found.count
    prepared = models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT.transforms()(noise(40, 60))
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(network(prepared)["out"], (40, 60), mode="bilinear")
    expected = [known[number] for number in logits[0].argmax(0).flatten().tolist()]
    assert [found.names[number] for number in found.labels.flatten().tolist()] == expected


def test_torchvision_with_other_classes():
    models = pytest.importorskip("torchvision", reason="torchvision comes with the extra book").models
    network = models.get_model("deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3)
    found = segment(noise(20, 30), "torchvision", model="deeplabv3_mobilenet_v3_large", network=network)
    assert covers(found, (20, 30)) and set(found.names) <= {"class 0", "class 1", "class 2"}


def test_torchvision_offline_and_mistaken(monkeypatch):
    pytest.importorskip("torchvision", reason="torchvision comes with the extra book")

    def fail(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    _torchvision_network.cache_clear()
    name = "lraspp_mobilenet_v3_large: the weights COCO_WITH_VOC_LABELS_V1 are not here"
    with pytest.raises(SegmentError, match=rf'{name}.*no network.*backend="slic" needs no network'):
        segment(noise(8, 8), "torchvision")
    with pytest.raises(ValueError, match=r"model: expected one of deeplabv3.*, got 'resnet18'"):
        segment(noise(8, 8), "torchvision", model="resnet18")
    with pytest.raises(ValueError, match="weights: expected one of COCO_WITH_VOC_LABELS_V1, DEFAULT, got 'mine'"):
        segment(noise(8, 8), "torchvision", weights="mine")
    with pytest.raises(ValueError, match="1 x 100 pixels are too narrow"):
        segment(noise(1, 100), "torchvision")


def tiny(kind: str):
    """A network of the hub's classes with random weights and its processor, for pictures of 64 x 64."""
    transformers = pytest.importorskip("transformers", reason="transformers comes with the extra segmentation")
    torch.manual_seed(0)
    names = dict(enumerate(("sky", "tree", "house", "river")))
    names = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    size = {"height": 64, "width": 64}
    if kind == "segformer":
        config = transformers.SegformerConfig(
            depths=[1] * 4,
            hidden_sizes=[8, 16, 16, 32],
            decoder_hidden_size=16,
            num_attention_heads=[1, 1, 2, 2],
            **names,
        )
        network = transformers.SegformerForSemanticSegmentation(config)
        return network, transformers.SegformerImageProcessor(size=size)
    if kind == "beit":
        config = transformers.BeitConfig(
            image_size=64, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
            out_indices=[1, 2, 3, 4], pool_scales=[1, 2], use_auxiliary_head=False, **names,
        )  # fmt: skip
        processor = transformers.BeitImageProcessor(size=size, do_center_crop=False)
        return transformers.BeitForSemanticSegmentation(config), processor
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    if kind == "mask2former":
        config = transformers.Mask2FormerConfig(
            backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_layers=1,
            decoder_layers=2, num_attention_heads=2, encoder_feedforward_dim=16, dim_feedforward=16, num_queries=8,
            **names,
        )  # fmt: skip
        network = transformers.Mask2FormerForUniversalSegmentation(config)
        return network, transformers.Mask2FormerImageProcessor(size=size, size_divisor=32)
    detr = transformers.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=8,
        encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    config = transformers.MaskFormerConfig(
        backbone_config=backbone, decoder_config=detr.to_dict(), fpn_feature_size=32, mask_feature_size=32, **names
    )
    return (
        transformers.MaskFormerForInstanceSegmentation(config),
        transformers.MaskFormerImageProcessor(size=size, size_divisor=32),
    )


@pytest.mark.parametrize("kind", ["segformer", "beit", "mask2former", "maskformer"])
def test_transformers_with_ready_networks(kind):
    network, processor = tiny(kind)
    for rgb in (noise(40, 60), noise(30, 3), noise(1, 1)):
        found = segment(rgb, "transformers", network=network, processor=processor)
        assert covers(found, tuple(rgb.shape[2:])) and set(found.names) <= {"sky", "tree", "house", "river"}
    again = segment(noise(1, 1), "transformers", network=network, processor=processor)
    assert again.names == found.names and not network.training


def test_transformers_panoptic_joins_things_of_a_kind():
    network, processor = tiny("mask2former")
    found = segment(noise(40, 60), "transformers", task="panoptic", network=network, processor=processor)
    assert covers(found, (40, 60)) and set(found.names) <= {"sky", "tree", "house", "river", UNLABELED}

    def finish(outputs, target_sizes, label_ids_to_fuse):  # as the processor answers: 0 where there is no mask
        labels = torch.zeros(target_sizes[0], dtype=torch.int32)
        labels[:, 10:20], labels[:, 30:] = 1, 2
        assert set(label_ids_to_fuse) == {0, 1, 2, 3}
        return [{"segmentation": labels, "segments_info": [{"id": 1, "label_id": 3}, {"id": 2, "label_id": 0}]}]

    processor.post_process_panoptic_segmentation = finish
    found = segment(noise(40, 60), "transformers", task="panoptic", network=network, processor=processor)
    assert found.names == (UNLABELED, "river", "sky") and found.labels[0, [0, 15, 40]].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["segformer", "mask2former"])
def test_transformers_by_name_of_a_folder(kind, tmp_path):
    network, processor = tiny(kind)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    rgb = noise(40, 60)
    found = segment(rgb, "transformers", model=str(tmp_path))
    expected = segment(rgb, "transformers", network=network, processor=processor)
    assert torch.equal(found.labels, expected.labels) and found.names == expected.names


def test_transformers_offline_and_mistaken(monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers comes with the extra segmentation")

    def fail(*_, **__):
        raise OSError("We could not connect\nand more lines")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    _transformers_network.cache_clear()
    found = (
        r'nvidia/segformer\S+: not a network .*We could not connect\); go online once.*backend="slic" needs no network'
    )
    with pytest.raises(SegmentError, match=f"^{found}$"):
        segment(noise(8, 8), "transformers")
    with pytest.raises(ValueError, match="task: expected semantic or panoptic, got 'instance'"):
        segment(noise(8, 8), "transformers", task="instance")
    network, processor = tiny("segformer")
    with pytest.raises(ValueError, match="network and processor: expected both or neither"):
        segment(noise(8, 8), "transformers", network=network)
    with pytest.raises(ValueError, match="SegformerForSemanticSegmentation knows no panoptic segmentation"):
        segment(noise(8, 8), "transformers", task="panoptic", network=network, processor=processor)


@pytest.mark.parametrize("package", ["torchvision", "transformers"])
def test_a_missing_package_is_one_clear_line(package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    _transformers_network.cache_clear()
    with pytest.raises(SegmentError, match=f'^{package} is not installed: .*; backend="slic" needs no network$'):
        segment(noise(8, 8), package)


# ---- given


def test_given_numbers_keep_their_numbers_as_names():
    found = given(np.array([[7, 7], [3, 500]], np.int16))
    assert found.labels.tolist() == [[1, 1], [0, 2]] and found.names == ("3", "7", "500")
    assert given(torch.tensor([[True, False]])).names == ("0", "1")


def test_given_colors_are_named_by_themselves(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 3:] = (255, 128, 0)
    file = images.write(tmp_path / "labels.png", picture)
    for found in (given(picture), given(file), given(str(file)), given(torch.from_numpy(picture))):
        assert found.names == ("#000000", "#ff8000") and found.labels[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_given_takes_five_hundred_colors_at_their_word():
    codes = np.arange(500).repeat(100).reshape(200, 250)
    found = given(np.stack([codes % 5, codes // 5, codes * 0], -1).astype(np.uint8))
    assert found.count == 500 and same_partition(found.labels, torch.from_numpy(codes))


def drawn() -> np.ndarray:
    """A label picture with slanting borders, 1.5 % of it red."""
    rows, columns = np.mgrid[:200, :300]
    picture = np.where((rows + columns > 220)[..., None], (0, 0, 255), (0, 255, 0)).astype(np.uint8)
    picture[20:50, 40:70] = (255, 0, 0)
    return picture


@pytest.mark.parametrize("how", ["jpeg", "smooth"])
def test_given_brings_strays_home(how, tmp_path):
    picture = drawn()
    if how == "jpeg":
        Image.fromarray(picture).save(tmp_path / "labels.jpg", quality=85)
        worn = images.read(tmp_path / "labels.jpg")
    else:
        big = Image.fromarray(picture).resize((731, 487), Image.Resampling.BICUBIC)
        worn = np.array(big.resize((300, 200), Image.Resampling.BICUBIC))
    assert len(np.unique(worn.reshape(-1, 3), axis=0)) > 30
    with pytest.warns(UserWarning, match="most of them rare: a compressed or smoothed picture of 3 labels"):
        found = given(worn)
    truth = given(picture)
    assert found.count == 3
    flat = [torch.tensor([int(name[1:], 16) for name in side.names])[side.labels] for side in (found, truth)]
    far = torch.stack([(flat[0] >> shift & 255) - (flat[1] >> shift & 255) for shift in (16, 8, 0)]).abs().amax(0)
    assert (far < 8).float().mean() > 0.99
    exact = given(worn, colors=("#00ff00", "#0000ff", "#f00"))  # a palette gives the names of the drawn one
    assert set(exact.names) == set(truth.names)
    assert given(worn, colors=label_colors(picture)).names == truth.names


def test_given_a_pair_with_the_same_colors():
    clean = drawn()
    worn = clean.copy()
    worn[clean[..., 2] == 255] = (0, 1, 254)
    assert "#0000ff" not in given(worn).names
    worn[::7, ::3] = np.random.default_rng(0).integers(0, 256, (29, 100, 3))
    with pytest.warns(UserWarning, match="of 3 labels"):
        colors = label_colors(clean, worn)
    assert len(colors) == 3 and given(clean, colors=colors).names == given(worn, colors=colors).names


def test_given_scales_to_the_picture_and_says_so():
    with pytest.warns(UserWarning, match="a map of 2 x 2 is scaled to 4 x 6, nearest neighbor"):
        found = given(np.array([[0, 9], [4, 4]]), (4, 6))
    assert found.labels[:, [0, 2, 3, 5]].tolist() == [[0, 0, 2, 2]] * 2 + [[1, 1, 1, 1]] * 2
    with pytest.warns(UserWarning, match="scaled"):
        assert given(np.arange(100).reshape(10, 10), (1, 1)).names == ("55",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert given(np.array([[0, 9], [4, 4]]), (2, 2)).count == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 3)), "got float64 .*; round them"),
        (torch.full((3, 3), torch.nan), "got float32 .*; round them"),
        (torch.zeros(3, 3, dtype=torch.bfloat16), "round them"),
        (np.array([[0, -1]]), "expected whole numbers from 0, got -1"),
        (np.array([[2**64 - 1]], np.uint64), "expected numbers that fit int64"),
        (np.zeros((1, 3, 3), int), r"got int64 \(1, 3, 3\)"),
        (np.zeros((3, 3, 3), np.uint16), r"got uint16 \(3, 3, 3\)"),
        (np.zeros((0, 3), int), "the map is empty"),
        ([["sky"]], "got <U3"),
        (np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8), "a photograph"),
    ],
)
def test_what_given_refuses(labels, message):
    with pytest.raises(ValueError, match=f"^labels: .*{message}"):
        given(labels)


def test_what_else_given_refuses(tmp_path):
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: a map of 16-bit labels; pass its numbers"):
        given(tmp_path / "deep.png")
    with pytest.raises(images.ImageReadError, match="there is no such file"):
        given(tmp_path / "none.png")
    with pytest.raises(ValueError, match='colors: expected names like "#ff0000"'):
        given(drawn(), colors=["reddish"])
    with pytest.raises(ValueError, match=r"colors: expected uint8 \(R, 3\), got float64"):
        given(drawn(), colors=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="colors: expected a picture of labels"):
        given(np.zeros((2, 2), int), colors=["red"])
    with pytest.raises(ValueError, match="labels: expected every number from 0 to the largest"):
        Regions(torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="names: expected one for each of 2 labels, got 1"):
        Regions(torch.tensor([[0, 1]]), ("sky",))
    with pytest.raises(ValueError, match=r"labels: expected an int64 tensor \(H, W\), got torch.int32 \(1, 2\)"):
        Regions(torch.zeros(1, 2, dtype=torch.int32))


# ---- small regions


def test_small_regions_go_to_what_surrounds_them_most():
    labels = quarters()
    labels[10, 10] = 4  # within 0
    labels[30:32, 40] = 5  # within 3
    labels[20, 31:34] = 6  # one pixel of it in 0, two in 1
    assert torch.equal(drop_small(labels, 0.01), torch.where(labels == 6, 1, quarters()))
    found = drop_small(Regions(labels, tuple("abcdefg")), 0.01)
    assert found.names == ("a", "b", "c", "d")


def test_small_regions_within_small_regions():
    labels = torch.zeros(40, 40, dtype=torch.long)
    labels[:, 20:] = 9
    labels[5:10, 5:10], labels[6:9, 6:9], labels[7, 7] = 3, 4, 5
    assert torch.equal(drop_small(labels, 0.02), torch.where(labels == 9, 9, 0))


def test_if_all_are_small_the_largest_takes_everything():
    labels = torch.arange(64).reshape(8, 8).clamp(min=3)
    assert drop_small(labels, 0.5).unique().tolist() == [3]
    assert drop_small(torch.arange(9).reshape(3, 3), 1).unique().tolist() == [0]
    assert torch.equal(drop_small(labels, 0), labels)
    assert drop_small(torch.tensor([[7]])).tolist() == [[7]]


def test_five_hundred_labels_are_quick():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 500, (32, 32), generator=generator).repeat_interleave(16, 0).repeat_interleave(16, 1)
    labels[::5, ::5] = torch.arange(1000, 1000 + 103 * 103).reshape(103, 103)  # and specks of a pixel
    start = time.process_time()
    found = drop_small(labels, 0.003)
    assert time.process_time() - start < 3  # measured 0.1 s
    areas = torch.bincount(found.flatten())
    assert areas[areas > 0].min() >= 0.003 * 512 * 512 and areas.sum() == 512 * 512


def test_what_drop_small_refuses():
    with pytest.raises(ValueError, match=r"share: expected 0 to 1, got 2"):
        drop_small(quarters(), 2)
    with pytest.raises(ValueError, match="labels: expected numbers from 0, got -1"):
        drop_small(quarters() - 1)
    with pytest.raises(ValueError, match="labels: expected an int64 tensor"):
        drop_small(quarters().float())


# ---- partners


def test_partners_by_name():
    source = Regions(torch.tensor([[0, 1, 2, 3]]), ("tree", "sky", "car", UNLABELED))
    reference = Regions(torch.tensor([[0, 1, 2]]), (UNLABELED, "sky", "tree"))
    first, second = match(source, reference, noise(1, 4), noise(1, 3))
    assert first.tolist() == [[0, 1, -1, -1]] and second.tolist() == [[-1, 1, 0]]


def test_partners_by_statistics_are_a_permutation():
    rgb = flags()
    mirrored = rgb.flip(3)
    order = torch.tensor([2, 0, 3, 1])
    first, second = match(Regions(quarters()), Regions(order[quarters()]), rgb, mirrored)
    assert torch.equal(first, quarters())
    assert torch.equal(second, quarters().flip(1))


def test_partners_by_statistics_where_one_side_has_no_names():
    named = Regions(quarters(), ("a", "b", "c", "d"))
    first, second = match(named, Regions(quarters()), flags(), flags())
    assert torch.equal(first, second) and torch.equal(first, quarters())


def test_fewer_regions_there_leave_some_without_a_partner():
    halves = Regions((quarters() > 1).long())
    first, second = match(Regions(quarters()), halves, flags(), flags(), limit=100)
    assert sorted(first.unique().tolist()) == [-1, 0, 1] and sorted(second.unique().tolist()) == [0, 1]


def test_the_limit_parts_what_is_unlike():
    far = 1 - flags()
    with pytest.warns(UserWarning, match="no region has a partner, so the global path is used everywhere"):
        first, second = match(Regions(quarters()), Regions(quarters()), flags(), far, limit=0.01)
    assert first.unique().tolist() == second.unique().tolist() == [-1]
    other = Regions(torch.tensor([[0]]), ("sea",))
    with pytest.warns(UserWarning, match="global path"):
        first, second = match(Regions(torch.tensor([[0]]), ("sky",)), other, noise(1, 1), noise(1, 1))
    assert first.item() == second.item() == -1


def test_statistics_by_hand():
    labels = torch.zeros(4, 8, dtype=torch.long)
    labels[3:] = 1
    rgb = torch.zeros(1, 3, 4, 8)
    rgb[:, :, :, ::2] = 1
    upper, lower = statistics(Regions(labels), rgb)
    assert upper[0].item() == pytest.approx(1) and lower[0].item() == pytest.approx(1)  # L 50 on average
    assert upper[1:3].abs().max() < 0.01
    assert upper[3].item() == pytest.approx((24 / 23) ** 0.5 * 50 / 24, rel=1e-4)
    ends = 100 * 2 / 8  # central differences see nothing of these stripes, those at the ends do
    assert upper[6].item() == pytest.approx(np.log1p(ends), rel=1e-4)
    assert upper[7].item() == pytest.approx(4 * 0.75**0.5) and lower[7].item() == pytest.approx(2)
    assert upper[8].item() == pytest.approx(2 / 3) and lower[8].item() == pytest.approx(2)


def test_partners_of_hostile_pictures():
    one = Regions(torch.tensor([[0]]))
    first, second = match(
        one, Regions(torch.zeros(1, 9, dtype=torch.long)), noise(1, 1), torch.zeros(1, 3, 1, 9), limit=9
    )
    assert first.tolist() == [[0]] and second.unique().tolist() == [0]
    with pytest.raises(ValueError, match="source_rgb: holds NaN"):
        match(one, one, noise(1, 1) * torch.nan, noise(1, 1))
    with pytest.raises(ValueError, match=r"reference_rgb: expected one picture of the map's size \(1, 1\)"):
        match(one, one, noise(1, 1), noise(1, 2))
    with pytest.raises(ValueError, match="limit: expected at least 0, got -1"):
        match(one, one, noise(1, 1), noise(1, 1), limit=-1)


# ---- soft borders


def test_weights_sum_to_one():
    labels = quarters() - 1
    for rgb in (noise(48, 64), flags(), torch.zeros(1, 3, 48, 64)):
        weights = soften(labels, rgb, 5)
        assert weights.shape == (1, 6, 48, 64) and weights.dtype == torch.float32
        assert weights.min() >= 0 and (weights.sum(1) - 1).abs().max() < 1e-5
        assert not weights[:, 3:5].any(), "what no pixel has weighs nothing"
        assert (weights[0, -1][:16, :24] - 1).abs().max() < 1e-5, "label -1 is the last map"


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (5, 40)])
def test_one_region_is_exact(size):
    for number, place in ((0, 0), (1, 1), (-1, 2)):
        weights = soften(torch.full(size, number), noise(*size), 2)
        assert weights[0, place].eq(1).all() and weights.sum() == size[0] * size[1]


def test_two_pixels_and_radius_zero():
    weights = soften(torch.tensor([[0, 1]]), torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2), 2)
    assert weights[0, :2, 0].argmax(0).tolist() == [0, 1] and (weights.sum(1) - 1).abs().max() < 1e-6
    hard = soften(quarters(), noise(48, 64), 4, radius=0)
    assert torch.equal(hard[0, :4], torch.nn.functional.one_hot(quarters(), 4).movedim(-1, 0).float())


def test_guided_filter_equals_kornia():
    """Away from the borders of the picture, where kornia reflects what is cut here."""
    filters = pytest.importorskip("kornia", reason="kornia comes with the extra test").filters
    labels, radius = segment(noise(60, 80), k=3).labels, 4
    rgb = 0.5 * noise(60, 80) + 0.5 * flags(60, 80)
    maps = torch.nn.functional.one_hot(labels, 3).movedim(-1, 0)[None].double()
    expected = filters.guided_blur(rgb.double(), maps, 2 * radius + 1, 1e-3).clamp(min=0)
    expected = expected / expected.sum(1, keepdim=True)
    inner = (..., slice(2 * radius, -2 * radius), slice(2 * radius, -2 * radius))
    found = soften(labels, rgb, 3, radius=radius, eps=1e-3)[:, :3]
    assert (found[inner] - expected[inner]).abs().max() < 1e-4
    assert found[inner].std() > 0.1


def test_soft_borders_follow_the_edge_of_the_picture():
    """The edge is at column 30, the map says 33: two thirds of what the map has wrong is put right."""
    rgb = torch.full((1, 3, 40, 60), 0.2)
    rgb[..., 30:] = 0.8
    labels = (torch.arange(60) >= 33).long().expand(40, 60)
    weights = soften(labels, rgb, 2, radius=8)[0, 1, 20]
    assert weights[29] < 0.05 and weights[30] > 0.5, "the step is where the picture has it"
    steps = weights.diff()
    assert steps.argmax() == 29 and steps.max() > 0.5
    flat = soften(labels, torch.full_like(rgb, 0.5), 2, radius=8)[0, 1, 20]
    assert flat.diff().max() < 0.1, "without an edge the border is a ramp"


def test_soft_borders_of_a_large_picture_are_nearly_those_of_the_small_way():
    rgb, labels = flags(120, 160), quarters(120, 160)
    exact = soften(labels, rgb, 4, radius=8)
    quick = soften(labels, rgb, 4, radius=8, long_side=80)
    assert (exact - quick).abs().mean() < 0.01 and (quick.sum(1) - 1).abs().max() < 1e-5


def test_what_soften_refuses():
    rgb = flags()
    with pytest.raises(ValueError, match="labels: expected -1 to 2 for 3 regions, got 0 to 3"):
        soften(quarters(), rgb, 3)
    with pytest.raises(ValueError, match=r"labels: expected whole numbers \(H, W\) and rgb"):
        soften(quarters(48, 63), rgb, 4)
    with pytest.raises(ValueError, match="labels: expected whole numbers"):
        soften(quarters().float(), rgb, 4)
    with pytest.raises(ValueError, match="radius, eps and long_side: expected"):
        soften(quarters(), rgb, 4, eps=0)
    with pytest.raises(ValueError, match="rgb: holds NaN"):
        soften(quarters(), rgb * torch.nan, 4)


# ---- real pictures


def test_drawn_regions_of_real_pairs_find_their_partners():
    """Deep Photo Style Transfer without the names: statistics find most of the partners that people drew."""
    folder = Path(os.environ.get("CTLIB_DATA") or "nowhere") / "dpst"
    if not (folder / "index.csv").is_file():
        pytest.skip("needs label maps drawn by people: set CTLIB_DATA to the folder that holds dpst")
    right = pairs = 0
    with open(folder / "index.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[:20]:
        source_rgb, reference_rgb = (images.to_tensor(images.read(folder / row[key])) for key in ("input", "style"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sides = [
                drop_small(given(folder / row[key], tuple(rgb.shape[2:])), 0.002)
                for key, rgb in (("input_seg", source_rgb), ("style_seg", reference_rgb))
            ]
            truth = match(*sides, source_rgb, reference_rgb)
            nameless = [Regions(side.labels) for side in sides]
            found = match(*nameless, source_rgb, reference_rgb, limit=100)
        for number in range(int(found[0].max()) + 1):
            named = [there[here == number][0].item() for there, here in zip(truth, found, strict=True)]
            right, pairs = right + (named[0] == named[1] >= 0), pairs + 1
    assert pairs > 40 and right > 0.7 * pairs
