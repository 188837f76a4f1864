"""The registry is complete and honest, and the verifier says exactly what is missing or broken."""

import socket
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ctlib import paths
from ctlib.cli import app
from ctlib.data import photos, registry

WANTED = {"photos", "fivek", "coco", "camvid", "artbench10", "artbench10_32px", "imagenet", "bsds500"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def picture(path, seed=0, size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def mini(monkeypatch, folders, **more):
    """Put a small data set in the place of the registry."""
    table = {"title": "Mini", "homepage": "http://localhost/", "license": "none", "cite": "x", "access": "open"}
    monkeypatch.setattr(
        registry, "load", lambda: {"mini": registry.parse("mini", {**table, "folders": folders, **more})}
    )


def test_every_set_is_described():
    sets = registry.load()
    assert set(sets) == WANTED
    for dataset in sets.values():
        assert dataset.title and dataset.license and dataset.size and dataset.notes
        assert dataset.homepage.startswith("https://")
        assert dataset.cite.isalnum()
        assert dataset.access in ("package", "open", "manual")
        assert dataset.items if dataset.access == "package" else dataset.folders
        assert bool(dataset.files) == (dataset.access == "open")
        assert bool(dataset.remedy) == (dataset.access == "manual")
        known = {folder.path for folder in dataset.folders}
        made = {path for file in dataset.files for path in file.makes}
        assert made <= known and {folder.same_as for folder in dataset.folders} <= known | {""}
        for file in dataset.files:
            assert file.url.startswith(("https://", "http://images.cocodataset.org/"))
            assert (
                file.hash == ""
                or len(file.hash.partition(":")[2]) == {"md5": 32, "sha256": 64}[file.hash[: file.hash.index(":")]]
            )


def test_facts_of_the_specs():
    sets = registry.load()
    counts = {name: {folder.path: folder.count for folder in sets[name].folders} for name in sets}
    assert counts["coco"]["train2017"] == 118287 and counts["coco"]["val2017"] == 5000
    assert [counts["camvid"][split] for split in ("train", "val", "test")] == [367, 101, 233]
    assert [counts["bsds500"][f"images/{split}"] for split in ("train", "val", "test")] == [200, 100, 200]
    assert counts["artbench10"]["train"] == 50000 and counts["artbench10"]["test"] == 10000
    assert all(counts["fivek"][rendition] == 5000 for rendition in ("raw", "a", "b", "c", "d", "e"))
    assert any("HQa1400to2100" in note for note in sets["fivek"].notes)
    assert any("/SegNet/" in note for note in sets["camvid"].notes)
    assert any("48" in note for note in sets["coco"].notes) and any("13" in note for note in sets["coco"].notes)


def test_readme_names_every_set():
    text = (paths.ROOT / "data" / "README.md").read_text()
    for dataset in registry.load().values():
        assert f"`{dataset.name}`" in text and dataset.homepage in text
        for folder in dataset.folders:
            assert f"{folder.count:,}" in text, f"{dataset.name}: {folder.count:,}"


def test_photographs_are_those_of_the_registry():
    items = {item["name"]: item for item in registry.get("photos").items}
    for name in photos.names():
        assert photos.path(name) == registry.package_file(items[name])
    assert set(photos.manifest(photos.names()).values()) <= {item["sha256"] for item in items.values()}
    report = registry.verify("photos")
    assert report.ok and report.checked == 9, str(report)


def test_missing_package_file_is_named():
    with pytest.raises(registry.DataError, match=r"photos: x: package skimage has no file data/x.png; reinstall"):
        registry.package_file({"name": "x", "package": "skimage", "file": "data/x.png"})
    with pytest.raises(registry.DataError, match="no_such_package"):
        registry.package_file({"name": "x", "package": "no_such_package", "file": "x.png"})


def test_unknown_set_lists_the_known():
    with pytest.raises(registry.DataError, match="cocoa: no such data set; known are photos, fivek, coco"):
        registry.get("cocoa")


def test_broken_registry_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "registry.toml").write_text("[coco\n")
    monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry.toml")
    registry.load.cache_clear()
    try:
        with pytest.raises(registry.DataError, match="cannot read"):
            registry.load()
    finally:
        registry.load.cache_clear()


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    report = registry.verify("coco")
    assert not report.ok and report.root == tmp_path / "coco"
    assert report.problems[0] == "train2017: folder missing, 118,287 files expected"
    assert "ctlib data fetch coco" in str(report) and "CTLIB_DATA" in str(report)


def test_whole_set_is_ok(tmp_path, monkeypatch):
    mini(
        monkeypatch,
        [
            {"path": "train", "pattern": "*.png", "count": 3},
            {"path": "segs", "pattern": "*.npy", "count": 3, "optional": True},
        ],
    )
    for n in range(3):
        picture(tmp_path / "train" / f"{n}.png", n)
    report = registry.verify("mini", tmp_path)
    assert report.ok and report.checked == 3
    assert str(report) == f"mini: OK, 3 files in {tmp_path}"


def test_missing_ids_are_named(tmp_path, monkeypatch):
    mini(monkeypatch, [{"path": "c", "pattern": "*.*", "count": 12, "ids": "a{:04d}"}])
    for n in range(1, 5):
        picture(tmp_path / "c" / f"a{n:04d}-cam.png", n)
    (problem,) = registry.verify("mini", tmp_path).problems
    assert problem == "c: 4 files, 12 expected, missing a0005, a0006, a0007, a0008, a0009 and 3 more"


def test_missing_partners_and_surplus_are_named(tmp_path, monkeypatch):
    mini(
        monkeypatch,
        [
            {"path": "val", "pattern": "*.png", "count": 2},
            {"path": "valannot", "pattern": "*.png", "count": 2, "same_as": "val"},
        ],
    )
    for name in ("x", "y", "z"):
        picture(tmp_path / "val" / f"{name}.png")
    for name in ("x", "w"):
        picture(tmp_path / "valannot" / f"{name}.png")
    assert registry.verify("mini", tmp_path).problems == (
        "val: 3 files, 2 expected",
        "valannot: 2 files, 2 expected, missing y, z",
    )


def test_empty_and_truncated_files_are_named(tmp_path, monkeypatch):
    mini(monkeypatch, [{"path": "train", "pattern": "*.jpg", "count": 4}])
    for n in range(4):
        picture(tmp_path / "train" / f"{n}.jpg", n, (64, 48))
    (tmp_path / "train" / "1.jpg").write_bytes(b"")
    data = (tmp_path / "train" / "2.jpg").read_bytes()
    (tmp_path / "train" / "2.jpg").write_bytes(data[: len(data) // 2])
    problems = registry.verify("mini", tmp_path, sample=None).problems
    assert problems[0] == "train/1.jpg: 0 bytes"
    assert problems[1].startswith("train/2.jpg: unreadable (") and len(problems) == 2


def test_a_thousand_empty_files_are_sorted_out_in_one_pass(tmp_path):
    hashed = []

    class Counted(type(tmp_path)):
        def __hash__(self):
            hashed.append(1)
            return super().__hash__()

    files = [Counted(tmp_path / f"{n}.jpg") for n in range(100)]
    for path in files:
        path.touch()
    assert registry._broken(files, tmp_path, None)[-1] == "90 more files have 0 bytes"
    assert len(hashed) <= 200


def test_parts(tmp_path, monkeypatch):
    mini(monkeypatch, [{"path": part, "pattern": "*.png", "count": 1} for part in ("train", "val")])
    picture(tmp_path / "val" / "1.png")
    assert registry.verify("mini", tmp_path, parts=["val"]).ok
    with pytest.raises(registry.DataError, match="mini: no part test; known are train, val"):
        registry.verify("mini", tmp_path, parts=["test"])


@pytest.mark.parametrize("name", ["fivek", "imagenet"])
def test_manual_sets_say_what_to_do(name, tmp_path):
    with pytest.raises(registry.DataError, match=rf"{name}: cannot be downloaded.*https://.*CTLIB_DATA"):
        registry.fetch(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_one_line_that_names_the_page(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    mini(
        monkeypatch,
        [{"path": "train", "pattern": "*.png", "count": 1}],
        files=[{"url": f"http://127.0.0.1:{port}/train.zip", "makes": ["train"]}],
    )
    with pytest.raises(registry.DataError, match=r"mini: .*no connection.*http://localhost/") as caught:
        registry.fetch("mini", tmp_path / "mini", progress=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_packages_need_no_fetch(tmp_path, monkeypatch):
    """What comes back is there, and holds the photographs."""
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path))
    folder = registry.fetch("photos")
    assert folder.is_dir() and all(photos.path(name).is_relative_to(folder) for name in photos.names())
    assert CliRunner().invoke(app, ["data", "fetch", "photos"]).output.strip() == str(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", paths.ROOT / "data" / "cache"),
        ("my/data", paths.ROOT / "my" / "data"),
        ("~/data", Path.home() / "data"),
        ("/data", Path("/data")),
    ],
)
def test_data_folder_does_not_depend_on_where_the_process_runs(tmp_path, monkeypatch, value, expected):
    monkeypatch.setenv("CTLIB_DATA", value)
    monkeypatch.chdir(tmp_path)
    assert paths.data_dir() == expected


def test_registry_is_toml_without_local_paths():
    text = registry.REGISTRY.read_text()
    tomllib.loads(text)
    assert str(paths.ROOT) not in text


def test_real_camvid_of_the_data_folder_is_reported_as_partial():
    """A sample in its own layout is not taken for the official set."""
    folder = paths.data_dir() / "camvid"
    if not (folder / "index.csv").exists():
        pytest.skip("set CTLIB_DATA to a folder with the camvid sample")
    report = registry.verify("camvid", folder)
    assert "train: folder missing, 367 files expected" in report.problems
