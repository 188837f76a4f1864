"""ArtBench-10: both editions, and pickles that want to run code."""

import os
import pickle

import numpy as np
import pytest
from layouts import picture

from ctlib.data import artbench
from ctlib.data.registry import DataError


def test_artbench_256(tmp_path):
    for split in artbench.SPLITS:
        for style in artbench.STYLES:
            picture(tmp_path / split / style / f"someone_{style}.jpg")
    (tmp_path / "ArtBench-10.csv").write_text(
        "name,artist,url,is_public_domain,label,split,cifar_index\nsomeone_baroque.jpg,someone,u,True,baroque,train,3\n"
    )
    data = artbench.ArtBench(tmp_path, "test")
    assert len(data) == 10 and len(artbench.ArtBench(tmp_path, styles=("baroque",))) == 1
    assert data[9]["style"] == "ukiyo_e" and data[9]["label"] == 9 and data[9]["image"].shape == (12, 16, 3)
    assert data.table()[0]["artist"] == "someone"
    (tmp_path / "ArtBench-10.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no rows with name, label and split"):
        data.table()
    with pytest.raises(ValueError, match="no style 'cubism'"):
        artbench.ArtBench(tmp_path, styles=("cubism",))
    with pytest.raises(DataError, match=r"artbench10: no files .*train/baroque; run `ctlib data fetch artbench10`"):
        artbench.ArtBench(tmp_path / "nowhere", styles=("baroque",))


@pytest.fixture
def batches(tmp_path):
    folder = tmp_path / "artbench-10-batches-py"
    folder.mkdir()
    for n, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        data = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072) % 251 + n
        batch = {"data": data.astype(np.uint8), "labels": [n, 9], "filenames": [f"{name}_x.jpg", f"{name}_y.jpg"]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=[2, 4, 5][n % 3]))
    (folder / "meta").write_bytes(pickle.dumps({"styles": list(artbench.STYLES)}))
    return tmp_path


def test_artbench_32(batches):
    data = artbench.ArtBench32(batches, "train")
    assert len(data) == 10 and data.images.shape == (10, 32, 32, 3) and data.images.dtype == np.uint8
    assert data.labels[:4] == [0, 9, 1, 9]
    item = data[2]
    assert item["style"] == "baroque" and item["name"] == "data_batch_2_x.jpg"
    assert item["image"][0, 1].tolist() == [2, 1025 % 251 + 1, 2049 % 251 + 1]  # planar: pixel 1 of each channel
    assert len(artbench.ArtBench32(batches, "test")) == 2


def test_pickles_written_by_python_2_are_read(tmp_path):
    """Protocol 2 with byte-string keys, as CIFAR-10's own files are."""
    (tmp_path / "meta").write_bytes(pickle.dumps({b"styles": ["a"], b"data": np.zeros(3, np.uint8)}, protocol=2))
    assert artbench.load_pickle(tmp_path / "meta")["styles"] == ["a"]


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function, argument", [(os.system, "touch {}"), (eval, "open('{}', 'w')"), (os.mkdir, "{}")])
def test_a_pickle_that_wants_to_run_code_is_refused(batches, function, argument):
    trace = batches / "trace"
    path = batches / "artbench-10-batches-py" / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Evil(function, argument.format(trace))}))
    with pytest.raises(DataError, match=r"data_batch_1 is refused or damaged \(it asks for"):
        artbench.ArtBench32(batches)
    assert not trace.exists()


def test_damaged_batches(batches):
    folder = batches / "artbench-10-batches-py"
    whole = (folder / "data_batch_1").read_bytes()
    for data in (whole[:100], b"", b"\x80\x09garbage", pickle.dumps([1])):
        (folder / "data_batch_1").write_bytes(data)
        with pytest.raises(DataError, match="data_batch_1"):
            artbench.ArtBench32(batches)
    for batch in (
        {"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
    ):
        (folder / "data_batch_1").write_bytes(pickle.dumps(batch))
        with pytest.raises(DataError, match="data_batch_1: "):
            artbench.ArtBench32(batches)
    (folder / "data_batch_1").unlink()
    with pytest.raises(DataError, match="data_batch_1 is missing; run `ctlib data fetch artbench10_32px`"):
        artbench.ArtBench32(batches)
