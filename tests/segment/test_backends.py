"""Regions from the colors and from networks with random weights; offline; hostile pictures."""

import urllib.error
import warnings

import pytest
import torch
from flags import covers, flags, noise, quarters, same_partition

from ctlib.segment import UNLABELED, SegmentError, segment
from ctlib.segment.backends import _torchvision_network, _transformers_network

OFFLINE = ("kmeans", "slic")


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
    for name, value, wanted in [
        *(("k", value, "whole number of at least 1") for value in (0, "3", 1.5, True)),
        ("long_side", 2.5, "whole number of at least 1"),
        *(("compactness", value, "number above 0") for value in (0, -1, float("nan"), "10")),
        *(("position", value, "number of at least 0") for value in (-1, float("inf"), None)),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: expected a {wanted}, got {value!r}$"):
            segment(flags(), **{name: value})
    with pytest.raises(ValueError, match=r"seed: expected a whole number from 0 to 2\*\*32 - 1, got -1"):
        segment(flags(), "kmeans", seed=-1)
    with pytest.raises(ValueError, match="rgb: expected one picture, got a batch of 2"):
        segment(flags().expand(2, 3, 48, 64))
    with pytest.raises(ValueError, match="rgb: holds NaN"):
        segment(flags() * torch.nan)
    with pytest.raises(ValueError, match=r"rgb: .*divide by 255"):
        segment(flags() * 255)


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

    asked = []

    def fail(*_, **options):
        asked.append(options)
        raise OSError("We could not connect\nand more lines")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    _transformers_network.cache_clear()
    found = (
        r'nvidia/segformer\S+: not a network .*We could not connect\); go online once.*backend="slic" needs no network'
    )
    with pytest.raises(SegmentError, match=f"^{found}$"):
        segment(noise(8, 8), "transformers")
    # a look on the disk, one question, and none of the retries that loading makes
    assert asked == [{"local_files_only": True}, {"timeout": 2}]
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
