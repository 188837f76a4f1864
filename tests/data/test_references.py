"""Reference search: signatures, distances and ranking."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from ctlib.data import references


def flat(color: tuple[int, int, int], side: int = 12) -> np.ndarray:
    return np.full((side, side, 3), color, np.uint8)


def scene(*colors: tuple[int, int, int], seed: int = 0, noise: int = 8) -> np.ndarray:
    """Stripes of the given colors with a little noise, 24 x 24."""
    stripes = np.repeat(np.array(colors), 24 // len(colors), axis=0)
    picture = np.repeat(stripes[:, None], 24, axis=1)
    grain = np.random.default_rng(seed).integers(-noise, noise + 1, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


SEA, SAND, LEAF, ROSE = (30, 90, 160), (215, 190, 140), (50, 120, 50), (200, 60, 90)


@pytest.fixture(scope="module")
def pool() -> list[references.Signature]:
    pictures = [
        scene(SEA, SAND, seed=1),
        scene(LEAF, ROSE, seed=2),
        scene(SAND, SEA, seed=3),
        scene(LEAF, LEAF, ROSE, seed=4),
        flat((128, 128, 128)),
    ]
    return [references.signature(picture, k=3) for picture in pictures]


def test_signature_of_stripes_finds_colors_and_areas():
    picture = scene(SEA, SAND, SAND, noise=0)
    found = references.signature(picture)
    assert found.palette.shape == (2, 3)  # no more colors than the picture has
    assert found.palette == pytest.approx(rgb2lab(np.array([[SEA, SAND]], np.uint8))[0], abs=1e-3)
    assert found.weights == pytest.approx([1 / 3, 2 / 3])
    assert found.histogram.shape == (23, 23) and found.histogram.sum() == pytest.approx(1)
    cells = np.rint((found.palette[:, 1:] + 110) / 10).astype(int)
    assert found.histogram[tuple(cells.T)] == pytest.approx([1 / 3, 2 / 3])


def test_signature_is_sorted_normalised_and_repeatable():
    picture = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)  # more than the sample
    first, second = references.signature(picture, seed=3), references.signature(picture, seed=3)
    assert first.same_as(second)
    assert first.palette.shape == (5, 3) and (np.diff(first.palette[:, 0]) > 0).all()
    assert first.weights.sum() == pytest.approx(1) and (first.weights > 0).all()
    assert not first.same_as(references.signature(picture[:100], seed=3))
    # a tensor of the same picture is the same picture
    tensor = torch.from_numpy(picture).movedim(-1, 0)[None].float() / 255
    assert first.same_as(references.signature(tensor, seed=3))


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (7, 200, 31)])
def test_constant_pictures_have_one_color(color):
    found = references.signature(flat(color, side=1))
    assert found.palette.shape == (1, 3) and found.weights.tolist() == [1]
    assert found.palette[0] == pytest.approx(rgb2lab(flat(color, 1))[0, 0], abs=1e-3)


@pytest.mark.parametrize("kind", references.KINDS)
def test_distances_are_a_symmetric_table(pool, kind):
    table = references.distances(pool, kind)
    assert table.shape == (5, 5) and table.dtype == np.float64
    assert np.array_equal(table, table.T) and (np.diag(table) == 0).all()
    assert (table[~np.eye(5, dtype=bool)] > 0).all()
    assert table[0, 2] == pytest.approx(references.distance(pool[2], pool[0], kind))
    if kind == "ab_hellinger":
        assert table.max() <= 1


def test_emd_of_flat_pictures_is_their_color_difference():
    black, white = (references.signature(flat(color)) for color in [(0, 0, 0), (255, 255, 255)])
    assert references.distance(black, white) == pytest.approx(100, abs=1e-3)
    assert references.distance(black, white, "ab_hellinger") == pytest.approx(0)  # blind to lightness


@pytest.mark.parametrize("kind", references.KINDS)
def test_rank_finds_the_like_picture_and_not_itself(pool, kind):
    assert references.rank(pool[0], pool, kind)[0] == 2
    assert references.rank(pool[1], pool, kind)[0] == 3
    for index, one in enumerate(pool):
        order = references.rank(one, pool, kind)
        assert order.dtype == np.int64 and sorted(order) == [other for other in range(5) if other != index]
        assert references.rank(one, pool, kind, exclude_self=False)[0] == index
        far = references.distances(pool, kind)[index, order]
        assert (np.diff(far) >= -1e-8).all()


@pytest.mark.parametrize("kind", references.KINDS)
def test_ties_keep_their_order_and_copies_are_left_out(pool, kind):
    many = [pool[4], pool[1], pool[0], pool[1], pool[1]]
    order = references.rank(pool[3], many, kind).tolist()
    assert [index for index in order if index in (1, 3, 4)] == [1, 3, 4]
    copy = references.signature(scene(LEAF, ROSE, seed=2), k=3)
    assert references.rank(copy, many, kind).tolist() == references.rank(pool[1], many, kind).tolist()
    assert set(references.rank(copy, many, kind)) == {0, 2}
    assert len(references.rank(copy, [copy], kind)) == 0


@pytest.mark.parametrize("kind", references.KINDS)
def test_rank_within_a_class_is_rank_without_the_others(pool, kind):
    classes = ["sea", "garden", "garden", "sea", "wall"]
    for query, own in zip(pool, classes, strict=True):
        order = references.rank(query, pool, kind).tolist()
        within = references.rank(query, pool, kind, classes=classes, own=own)
        assert within.tolist() == [index for index in order if classes[index] == own] and within.dtype == np.int64
    assert references.rank(pool[0], pool, kind, classes=classes, own="sea")[0] == 3  # 2 is nearer, and a garden
    assert len(references.rank(pool[0], pool, kind, classes=classes, own="beach")) == 0


def test_picks_follow_their_rules(pool):
    classes = ["sea", "garden", "garden", "sea", "wall"]
    table = references.distances(pool)
    chosen = references.picks(table, classes, seed=1)
    assert tuple(chosen) == references.RULES
    assert chosen["nearest of all"].tolist() == [references.rank(one, pool)[0] for one in pool]
    assert chosen["nearest of the class"].tolist() == chosen["any of the class"].tolist() == [3, 2, 1, 0, -1]
    drawn = np.stack([references.picks(table, classes, seed)["any of all"] for seed in range(40)])
    assert all(set(column) == set(range(5)) - {index} for index, column in enumerate(drawn.T))
    assert all(picks.tolist() == [-1] for picks in references.picks(np.zeros((1, 1)), ["sea"]).values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: references.signature(flat(SEA), k=0), "k: expected at least 1"),
        (lambda: references.signature(flat(SEA).astype(float)), "8-bit"),
        (lambda: references.signature(np.zeros((0, 4, 3), np.uint8)), "empty"),
        (lambda: references.signature(torch.rand(2, 3, 4, 4)), "batch of 2"),
        (lambda: references.signature(torch.rand(1, 3, 4, 4) * 255), "divide by 255"),
        (lambda: references.signature(torch.full((1, 3, 4, 4), torch.nan)), "NaN"),
        (lambda: references.distance(references.signature(flat(SEA)), references.signature(flat(SAND)), "l2"), "kind"),
        (
            lambda: references.rank(references.signature(flat(SEA)), [references.signature(flat(SAND))], classes=[]),
            "classes: expected one for each of 1 pictures, got 0",
        ),
        (lambda: references.picks(np.zeros((2, 2)), ["sea"]), "classes: expected one for each of 2 pictures, got 1"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
