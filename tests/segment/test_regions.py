"""Label maps made elsewhere, drawn, stray, of another size; and how small regions go."""

import math
import time
import warnings

import numpy as np
import pytest
import torch
from flags import quarters, same_partition
from PIL import Image

from ctlib import images
from ctlib.segment import UNLABELED, Regions, disk, drop_small, given, label_colors


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
    for size in (5, (5,), (0, 3), (2.5, 3), "ab"):
        with pytest.raises(ValueError, match=r"^size: expected \(H, W\) of the picture, whole numbers"):
            given(torch.zeros(2, 2).long(), size)
    with pytest.raises(ValueError, match="labels: expected every number from 0 to the largest"):
        Regions(torch.full((2, 2), 1 << 40))  # without a table of so many
    with pytest.raises(ValueError, match="labels: expected every number from 0 to the largest"):
        Regions(torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="names: expected one for each of 2 labels, got 1"):
        Regions(torch.tensor([[0, 1]]), ("sky",))
    with pytest.raises(ValueError, match=r"labels: expected an int64 tensor \(H, W\), got torch.int32 \(1, 2\)"):
        Regions(torch.zeros(1, 2, dtype=torch.int32))


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


def test_numbers_can_be_given_names():
    numbers = torch.tensor([[0, 2], [2, 5]])
    regions = given(numbers, names=["sky", "car", "road", "tree", "sign", UNLABELED])
    assert regions.names == ("sky", "road", UNLABELED) and regions.labels.tolist() == [[0, 1], [1, 2]]
    with pytest.raises(ValueError, match="names: expected one for each number in the map, got 3"):
        given(numbers, names=["sky", "car", "road"])


def test_a_disk_is_round_and_in_its_place():
    found = disk((40, 80), 0.5, 0.25, 0.125)
    assert found.shape == (40, 80) and found.dtype == torch.int64 and set(found.unique().tolist()) == {0, 1}
    assert found[20, 40] == found[20, 49] == 1 and found[20, 51] == found[31, 40] == 0
    assert found.sum().item() == pytest.approx(math.pi * 10**2, rel=0.05)
