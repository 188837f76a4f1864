"""Colorizers by name, one picture or a folder of them."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ctlib import checkpoints, chroma, cli, color, colorizers, hubcache, images
from ctlib.data import photos
from ctlib.exemplars import moments
from ctlib.hints import from_points


class Sepia:
    """A network that finds everything brown, unless it is told otherwise."""

    def colorize(self, rgb, side=256, hints=None):
        ab = torch.tensor([10.0, 30.0])
        if hints is not None:  # the mean of what it is told
            ab = (hints.ab * hints.mask).sum((0, 2, 3)) / hints.mask.sum()
        return chroma.colorize(lambda lightness: ab.view(1, 2, 1, 1).expand(len(rgb), -1, 4, 4), rgb, side)


@pytest.fixture(autouse=True)
def sepia(monkeypatch):
    known = dict(colorizers.COLORIZERS, sepia=colorizers.Colorizer("sepia", "toy.Sepia", "brown", ("hints",)))
    monkeypatch.setattr(colorizers, "COLORIZERS", known)
    true = colorizers._network
    monkeypatch.setattr(colorizers, "_network", lambda *names: Sepia() if names[0] == "toy.Sepia" else true(*names))


@pytest.fixture
def folder(tmp_path):
    """A gray scan, a picture in color, gray with alpha, 16 bits, one pixel, a broken file, a text, a name twice."""
    source = tmp_path / "scans"
    (source / "older").mkdir(parents=True)
    ramp = np.linspace(0, 255, 40 * 50).reshape(40, 50)
    Image.fromarray(ramp.astype(np.uint8)).save(source / "gray.png")
    images.write(source / "color.jpg", photos.load("chelsea", 60))
    Image.fromarray(np.stack([ramp, np.full_like(ramp, 255)], 2).astype(np.uint8), "LA").save(source / "alpha.png")
    Image.fromarray((ramp * 257).astype(np.uint16)).save(source / "older" / "deep.png")
    Image.new("L", (1, 1), 77).save(source / "one.png")
    (source / "broken.jpg").write_bytes((source / "color.jpg").read_bytes()[:300])
    (source / "notes.txt").write_text("not a picture")
    Image.fromarray(ramp.astype(np.uint8)).save(source / "gray.tif")
    return source


def test_a_folder_is_colored_at_full_size_and_what_is_broken_is_listed(folder, tmp_path):
    out = tmp_path / "out"
    report = colorizers.colorize_files("sepia", folder, out)
    names = {path.relative_to(out).as_posix() for path in report.written}
    assert names == {"alpha.png", "color.png", "gray.png.png", "gray.tif.png", "older/deep.png", "one.png"}
    assert [path.name for path in report.skipped] == ["broken.jpg"] and [p.name for p in report.in_color] == [
        "color.jpg"
    ]
    assert "skipped" in str(report) and "broken.jpg" in str(report) and "color dropped" in str(report)
    for name, source in (("color.png", "color.jpg"), ("older/deep.png", "older/deep.png"), ("one.png", "one.png")):
        result, before = images.read(out / name), images.read(folder / source)
        assert result.shape == before.shape
        lab = color.rgb_to_lab(images.to_tensor(result))
        # where brown cannot be shown it gives way, not L*, which is off by no more than 8 bits are
        assert (lab[:, :1] - chroma.lightness(images.to_tensor(before))).abs().max() < 0.6
        assert (lab[:, 2] > lab[:, 1]).float().mean() > 0.9
    again = colorizers.colorize_files("sepia", folder, folder / "inside")
    assert len(again.written) == len(colorizers.colorize_files("sepia", folder, folder / "inside").written)


def test_hints_and_options_reach_the_network_that_takes_them():
    rgb = photos.tensor("chelsea", 40)
    color_of_told = colorizers.colorize("sepia", rgb, hints=[(3, 4, (-20.0, -20.0))])
    told = color.rgb_to_lab(color_of_told)
    assert told[:, 2].mean() < -10
    assert torch.equal(colorizers.colorize("sepia", rgb, hints=((3, 4, (-20.0, -20.0)),)), color_of_told)
    with pytest.raises(ValueError, match=r"point 1: \(99, 4\) lies outside"):
        colorizers.colorize("sepia", rgb, hints=[(99, 4, "#102030")])
    with pytest.raises(ValueError, match="points belong to one picture, got 2"):
        colorizers.colorize("sepia", rgb.repeat(2, 1, 1, 1), hints=[(3, 4, "#102030")])
    with pytest.raises(ValueError, match="sepia has no option 'temperature'; it takes hints"):
        colorizers.colorize("sepia", rgb, temperature=0.3)
    with pytest.raises(ValueError, match="gray has no option 'hints'; it takes none"):
        colorizers.colorize("gray", rgb, hints=[])


def test_no_result_takes_the_place_of_another(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.tif", "a.jpg.png", "b.png"):
        Image.new("RGB", (40, 40), "gray").save(tmp_path / "in" / name)
    report = colorizers.colorize_files("gray", tmp_path / "in", tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")) for path in report.written}
    assert written == {"a.jpg.png", "a.tif.png", "a.jpg.png.png", "b.png"} and len(report.written) == 4


def test_the_output_may_be_a_folder_above_or_below_the_pictures(folder, tmp_path):
    inside = folder / "colored"
    count = len(colorizers.colorize_files("sepia", folder, inside).written)
    assert len(colorizers.colorize_files("sepia", folder, inside).written) == count  # what was made is no source
    assert len(colorizers.colorize_files("sepia", folder / "older", folder.parent).written) == 1
    assert (tmp_path / "deep.png").is_file()
    twice = tmp_path / "a" / "a"
    twice.mkdir(parents=True)
    (twice / "x.png").write_bytes((folder / "gray.png").read_bytes())
    (twice / "a").mkdir()
    (twice / "a" / "x.png").write_bytes((folder / "gray.png").read_bytes())
    with pytest.raises(ValueError, match=r"the result of .* would take the place of .*x.png; name another folder"):
        colorizers.colorize_files("sepia", twice, tmp_path / "a")


def test_bad_input_ends_before_anything_is_written(folder, tmp_path):
    out = tmp_path / "out"
    for source, output, said in (
        (tmp_path / "nowhere", out, "no such file or folder"),
        (folder, folder, "would take the place"),
        (folder, folder / "gray.png", "is a file; a folder"),
        (folder / "gray.png", tmp_path / "a.xyz", "unknown suffix"),
        (folder / "broken.jpg", tmp_path / "a.png", "broken.jpg"),
        (folder / "older" / "none", out, "no such file"),
    ):
        with pytest.raises((ValueError, OSError), match=said):
            colorizers.colorize_files("gray", source, output)
    with pytest.raises(ValueError, match=r"hints: points belong to one picture, and .*scans is a folder"):
        colorizers.colorize_files("sepia", folder, out, hints=[(0, 0, "#804020")])
    with pytest.raises(ValueError, match="unknown colorizer 'x'; known: gray"):
        colorizers.colorize_files("x", folder / "gray.png", tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        colorizers.colorize_files("gray", tmp_path / "empty", out)
    assert not out.exists() and not (tmp_path / "a.png").exists()


def test_the_command_says_by_its_exit_code_that_it_skipped_a_file(folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["colorize", *map(str, arguments)])

    done = run(folder, "-o", tmp_path / "out", "-m", "sepia")
    assert done.exit_code == 1 and "broken.jpg" in done.output and "6 colored, 1 skipped" in done.output
    (folder / "broken.jpg").unlink()
    assert run(folder, "-o", tmp_path / "out", "-m", "gray").exit_code == 0
    hinted = run(folder / "gray.png", "-o", tmp_path / "a.png", "-m", "sepia", "--hint", "40,20,#804020")
    assert hinted.exit_code == 0 and hinted.output.strip() == str(tmp_path / "a.png")
    wrong = run(folder / "gray.png", "-o", tmp_path / "b.png", "-m", "sepia", "--hint", "red")
    assert wrong.exit_code == 1 and "expected x,y,#rrggbb" in wrong.output and not (tmp_path / "b.png").exists()


NETWORK = colorizers._network
AFTER = [name for name, one in colorizers.COLORIZERS.items() if "reference" in one.options]


@pytest.mark.parametrize("name", AFTER)
def test_a_reference_gives_its_colors_and_none_is_one_clear_line(name):
    rgb, reference = photos.tensor("coffee", 96), photos.tensor("china", 80)
    loose = {"trust": None} if "trust" in colorizers.get(name).options else {}
    found = colorizers.colorize(name, rgb, reference=reference, **loose)
    gray = chroma.join(chroma.lightness(rgb), 0 * rgb[:, :2])
    torch.testing.assert_close(colorizers.colorize(name, gray, reference=reference, **loose), found, rtol=0, atol=0.05)
    lightness = [color.rgb_to_lab(one.double())[:, 0] for one in (found, rgb)]
    assert found.shape == rgb.shape
    # what Zhang 2017 paints beyond sRGB is clipped before Reinhard comes
    assert (lightness[0] - lightness[1]).abs().max() < (1 if name == "reinhard_ab" else 0.05)
    other = colorizers.colorize(name, rgb, reference=photos.tensor("rocket", 80), **loose)
    assert (color.rgb_to_lab(other) - color.rgb_to_lab(found))[:, 1:].abs().mean() > 0.5
    both = colorizers.colorize(name, torch.cat([rgb, rgb]), reference=reference, **loose)
    torch.testing.assert_close(both[1:], found, rtol=0, atol=1e-3)
    for wrong, message in (
        ({}, f"{name} takes its colors from a reference; give reference, a picture in color"),
        ({"reference": torch.rand(1, 3, 31, 64)}, "reference: expected at least 32 x 32 pixels, got .31, 64."),
        ({"reference": torch.full((1, 3, 64, 64), 0.4)}, "reference: is gray and has no color to lend; choose"),
        ({"reference": torch.rand(2, 3, 64, 64)}, "reference: expected 1 or 1 pictures, got 2"),
        ({"reference": reference, "hints": []}, f"{name} has no option 'hints'; it takes reference"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            colorizers.colorize(name, rgb, **wrong)
        assert "\n" not in str(error.value)


def test_who_needs_no_reference_takes_none_and_welsh_has_no_side():
    rgb = photos.tensor("coffee", 40)
    with pytest.raises(ValueError, match="zhang2017 has no option 'reference'; it takes hints"):
        colorizers.colorize("zhang2017", rgb, reference=rgb)
    with pytest.raises(ValueError, match="welsh has no side: it looks at pictures as they are"):
        colorizers.colorize("welsh", rgb, side=64, reference=rgb)


def test_reinhard_recolors_what_zhang_2017_made():
    rgb, reference = photos.tensor("coffee", 96), photos.tensor("china", 80)
    found = colorizers.colorize("reinhard_ab", rgb, reference=reference, side=64)
    by_hand = moments.reinhard_ab(colorizers.colorize("zhang2017", rgb, side=64), reference)
    assert torch.equal(found, by_hand)


def test_the_chain_takes_samples_and_labels_through_this_door():
    rgb, reference = photos.tensor("coffee", 96), photos.tensor("china", 80)
    net = colorizers._network("ctlib.exemplars.chain.Exemplar", "stylization-compact", "refinement-quarter")
    options = {"reference": reference, "trust": None}
    few, many = (colorizers.colorize("exemplar", rgb, samples=count, **options) for count in (3, "all"))
    assert torch.equal(few, net.colorize(rgb, reference, samples=3, trust=None)) and not torch.equal(few, many)
    halves = [(torch.arange(one.shape[3]) > one.shape[3] // 2).long().expand(one.shape[2:]) for one in (rgb, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = colorizers.colorize("exemplar", rgb, **options, labels=tuple(halves))
    plain = colorizers.colorize("exemplar", rgb, **options)
    assert (found - plain).abs().max() > 0.005
    with pytest.warns(UserWarning, match="share none .*, so the whole pictures are used"):
        apart = colorizers.colorize("exemplar", rgb, **options, labels=(halves[0], halves[1] + 7))
    assert torch.equal(apart, plain)
    with pytest.warns(UserWarning, match="reference's map of .* is scaled to"):
        colorizers.colorize("exemplar", rgb, **options, labels=(halves[0], halves[0]))
    for wrong, message in (
        ({"samples": -1}, "samples: expected a whole number of at least 0, or 'all', got -1"),
        ({"labels": halves[0]}, "labels: expected two maps, of source and reference, got Tensor"),
        ({"labels": (halves[0], halves[1].float())}, r"labels\[1\]: expected whole numbers \(H, W\)"),
        ({"side": 8}, "side: expected a whole number of at least 32, got 8"),
    ):
        with pytest.raises(ValueError, match=message):
            colorizers.colorize("exemplar", rgb, reference=reference, **wrong)


def test_matching_is_the_same_chain_by_another_way():
    rgb, reference = photos.tensor("coffee", 96), photos.tensor("china", 80)
    net = colorizers._network("ctlib.exemplars.chain.Exemplar", "stylization-compact", "refinement-quarter")
    found = colorizers.colorize("matching", rgb, reference=reference, samples=9, trust=None)
    assert torch.equal(found, net.colorize(rgb, reference, samples=9, trust=None, by="matching"))
    assert not torch.equal(found, net.colorize(rgb, reference, samples=9, trust=None))


def test_a_folder_takes_one_reference_by_file_or_tensor(folder, tmp_path):
    file = tmp_path / "ref.png"
    images.write(file, photos.load("china", 80))
    by_file = colorizers.colorize_files("welsh", folder, tmp_path / "a", reference=file)
    by_tensor = colorizers.colorize_files("welsh", folder, tmp_path / "b", reference=photos.tensor("china", 80))
    assert len(by_file.written) == 6 and [path.name for path in by_file.skipped] == ["broken.jpg"]
    for one, other in zip(by_file.written, by_tensor.written, strict=True):
        assert np.array_equal(images.read(one), images.read(other))
    lab = color.rgb_to_lab(images.to_tensor(images.read(tmp_path / "a" / "gray.png.png")))
    assert lab[:, 1:].abs().mean() > 3
    images.write(tmp_path / "gray_ref.png", np.full((64, 64, 3), 90, np.uint8))
    images.write(tmp_path / "small.png", photos.load("china", 24))
    for options, said in (
        ({}, "welsh takes its colors from a reference"),
        ({"reference": tmp_path / "none.png"}, "none.png"),
        ({"reference": folder / "broken.jpg"}, "broken.jpg"),
        ({"reference": tmp_path / "gray_ref.png"}, "reference: is gray"),
        ({"reference": tmp_path / "small.png"}, "reference: expected at least 32 x 32"),
    ):
        with pytest.raises((ValueError, OSError), match=said):
            colorizers.colorize_files("welsh", folder, tmp_path / "out", **options)
    with pytest.raises(ValueError, match=r"ref\.png: a result would take the place of the reference"):
        colorizers.colorize_files("welsh", folder / "gray.png", file, reference=file)
    assert not (tmp_path / "out").exists()


def test_the_command_colors_after_a_reference(folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["colorize", *map(str, arguments)])

    file, out = tmp_path / "ref.jpg", tmp_path / "a.png"
    images.write(file, photos.load("china", 80))
    done = run(folder / "gray.png", "-o", out, "-m", "exemplar", "--reference", file, "--samples", 100, "--follow")
    assert done.exit_code == 0 and done.output.strip() == str(out)
    every = run(
        folder / "gray.png", "-o", tmp_path / "all.png", "-m", "exemplar", "-r", file, "--samples", "all", "--follow"
    )
    assert every.exit_code == 0 and not np.array_equal(images.read(out), images.read(tmp_path / "all.png"))
    for arguments, said in (
        (("exemplar",), "takes its colors from a reference"),
        (("exemplar", "-r", tmp_path / "none.png"), "none.png"),
        (("exemplar", "-r", file, "--samples", "many"), "samples: expected a whole number of at least 0, or 'all'"),
        (("zhang2017", "-r", file), "zhang2017 has no option 'reference'"),
        (("welsh", "-r", file, "--follow"), "--follow: welsh does not weigh its reference; exemplar and matching do"),
        (("welsh", "-r", file, "--samples", 3), "welsh has no option 'samples'; it takes reference, seed"),
    ):
        wrong = run(folder / "gray.png", "-o", tmp_path / "b.png", "-m", *arguments)
        assert wrong.exit_code == 1 and said in wrong.output and wrong.output.count("\n") == 1
    assert not (tmp_path / "b.png").exists()


def test_missing_weights_are_one_line_that_names_them(folder, tmp_path, monkeypatch):
    NETWORK.cache_clear()
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "nothing")
    file, out = tmp_path / "ref.jpg", tmp_path / "a.png"
    images.write(file, photos.load("china", 80))
    arguments = ["colorize", folder / "gray.png", "-o", out, "-m", "exemplar", "-r", file]
    done = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert done.exit_code == 1 and done.output.count("\n") == 1 and not out.exists()
    assert "stylization-compact: no such weights" in done.output


def test_without_vgg19_a_training_names_the_encoder_that_is_here(tmp_path, monkeypatch):
    monkeypatch.setattr(hubcache, "answers", lambda _: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    options = ["-p", "encoder=vgg19", "-p", "steps=1"]
    done = CliRunner().invoke(cli.app, ["train", "stylization", str(tmp_path / "run"), *options])
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "vgg19" in done.output and "or take encoder compact, which comes with the book" in done.output


def test_a_color_that_cannot_be_shown_is_said_in_one_line(folder, tmp_path):
    words = ["colorize", folder / "gray.png", "-o", tmp_path / "a.png", "-m", "sepia", "--hint", "40,20,#0000ff"]
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    (said,) = done.stderr.splitlines()
    assert done.exit_code == 0 and said.startswith("ctlib: point 1: sRGB cannot show") and "took the nearest" in said


def test_too_little_memory_ends_in_one_line_that_says_what_to_do(folder, tmp_path, monkeypatch):
    def starve(self, rgb, side=256, hints=None):
        return torch.empty(2**60)

    monkeypatch.setattr(Sepia, "colorize", starve)
    words = ["colorize", folder / "gray.png", "-o", tmp_path / "a.png", "-m", "sepia"]
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    assert done.exit_code == 1 and not (tmp_path / "a.png").exists()
    assert done.stderr == "ctlib: there is not enough memory; take a smaller picture, side or batch\n"


def test_hints_are_spread_by_ours_and_not_by_the_authors():
    rgb = photos.tensor("coffee", 64)
    net = colorizers._network(colorizers.get("zhang2017").network, colorizers.get("zhang2017").weights)
    told = from_points([(20, 20, (40, 30))], tuple(rgb.shape[2:]))
    spread, alone = (net.colorize(rgb, hints=told, side=64, spread=spread) for spread in (True, False))
    assert torch.equal(colorizers.colorize("zhang2017", rgb, hints=told, side=64), spread)
    assert torch.equal(colorizers.colorize("zhang2017", rgb, hints=told, side=64, spread=False), alone)
    none = (colorizers.colorize("zhang2017", rgb, side=64, **options) for options in ({}, {"hints": []}))
    assert torch.equal(*none)
    assert not torch.equal(spread, alone) and not colorizers.get("siggraph17").defaults["spread"]
    two = colorizers.colorize("zhang2017", torch.cat([rgb, rgb.flip(3)]), hints=told, side=64)  # the same for both
    torch.testing.assert_close(two[:1], spread, rtol=0, atol=1e-3)
    for side in (0, 2.5):
        with pytest.raises(ValueError, match="side: expected a whole number of at least 1"):
            colorizers.colorize("zhang2017", rgb, hints=[(20, 20, "#804020")], side=side)


def test_after_is_a_function_of_picture_and_reference():
    rgb, other = photos.tensor("coffee", 64), photos.tensor("china", 64)
    for name, size in (("welsh", {}), ("superpixels", {"side": 48})):
        assert torch.equal(
            colorizers.after(name, 48)(rgb, other), colorizers.colorize(name, rgb, reference=other, **size)
        )
