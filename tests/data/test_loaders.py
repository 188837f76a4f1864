"""Each loader on a tiny copy of its official layout, written here, and on the samples of $CTLIB_DATA if present."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ctlib import paths
from ctlib.data import artbench, bsds, camvid, coco, files, fivek, imagenet, splits
from ctlib.data.registry import DataError

RNG = np.random.default_rng(0)


def picture(path, size=(16, 12), gray=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if gray:
        pixels[:] = pixels[..., :1]
    Image.fromarray(pixels).save(path)
    return path


def labels(path, ids, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(np.asarray(ids, np.uint8).ravel().tolist())
        image.putpalette([255 - n % 256 for n in range(768)])
    image.save(path)


# ---- FiveK


@pytest.fixture
def five(tmp_path):
    for rendition in fivek.RENDITIONS:
        for name in ("a0001-jmac_DSC1459", "a0002-dgw_005", "a0003-NKIM_MG_8178"):
            picture(tmp_path / rendition / f"{name}.jpg")
    (tmp_path / "segs").mkdir()
    np.save(tmp_path / "segs" / "a0002-dgw_005.npy", np.ones((12, 16), np.uint8))
    return tmp_path


def test_fivek_official_layout(five):
    data = fivek.FiveK(five)
    assert len(data) == 3 and data.ids == ["a0001", "a0002", "a0003"]
    item = data[1]
    assert item["id"] == "a0002" and item["name"] == "a0002-dgw_005"
    assert all(item[rendition].shape == (12, 16, 3) for rendition in fivek.RENDITIONS)
    assert item["labels"].sum() == 192 and "labels" not in data[0]
    assert [path.parent.name for path in data.paths("c")] == ["c"] * 3


def test_fivek_every_ordered_pair(five):
    data = fivek.FiveK(five)
    pairs = list(data.pairs())
    assert len(pairs) == len(set(pairs)) == 3 * 30
    assert {(source, reference) for _, source, reference in pairs} >= {("raw", "c"), ("c", "raw"), ("a", "e")}
    assert len(list(data.pairs(splits.every_fifth(data.ids)["val"]))) == 30
    pair = data.pair("a0003", "raw", "e")
    assert pair["source"].shape == pair["reference"].shape == (12, 16, 3)


def test_fivek_missing_rendition(five):
    (five / "b" / "a0002-dgw_005.jpg").unlink()
    assert fivek.FiveK(five).ids == ["a0001", "a0003"]
    assert len(fivek.FiveK(five, ("raw", "c"))) == 3
    with pytest.raises(DataError, match=r"fivek: no photograph with renditions raw, c .*csail.mit.edu.*CTLIB_DATA"):
        fivek.FiveK(five / "nowhere", ("raw", "c"))
    with pytest.raises(ValueError, match="no rendition 'f'"):
        fivek.FiveK(five, ("raw", "f"))


def test_fivek_sizes_must_agree(five):
    picture(five / "c" / "a0001-jmac_DSC1459.jpg", (12, 16))
    with pytest.raises(DataError, match="a0001: raw is 16x12, c 12x16"):
        fivek.FiveK(five).pair("a0001", "raw", "c")


def test_fivek_convert(tmp_path):
    picture(tmp_path / "tiff16_c" / "a0001-x.tif", (64, 48))
    picture(tmp_path / "tiff16_c" / "a0002-y.tif", (20, 10))
    written = fivek.convert(tmp_path / "tiff16_c", tmp_path / "fivek" / "c", long_side=32, progress=False)
    assert [Image.open(path).size for path in written] == [(32, 24), (20, 10)]
    times = [path.stat().st_mtime_ns for path in written]
    again = fivek.convert(tmp_path / "tiff16_c", tmp_path / "fivek" / "c", long_side=32, progress=False)
    assert [path.stat().st_mtime_ns for path in again] == times
    with pytest.raises(DataError, match="no files"):
        fivek.convert(tmp_path / "nowhere", tmp_path / "fivek" / "d", progress=False)


# ---- CamVid


@pytest.fixture
def cam(tmp_path):
    names = {
        "train": ["0016E5_07959", "0006R0_f00930"],
        "val": ["0016E5_08000"],
        "test": ["Seq05VD_f00000", "0001TP_008550"],
    }
    for split, stems in names.items():
        lines = []
        for stem in stems:
            picture(tmp_path / split / f"{stem}.png")
            labels(tmp_path / f"{split}annot" / f"{stem}.png", np.arange(192).reshape(12, 16) % 12)
            lines.append(f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n")
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_camvid_official_layout(cam):
    data = camvid.CamVid(cam, "train")
    assert len(data) == 2
    item = data[0]
    assert item["name"] == "0016E5_07959" and item["sequence"] == "0016E5"
    assert item["image"].shape == (12, 16, 3) and item["labels"].shape == (12, 16)
    assert np.array_equal(np.unique(item["labels"]), np.arange(12))
    assert len(camvid.CLASSES) == len(camvid.PALETTE) == 12 and camvid.CLASSES[camvid.UNLABELLED] == "Unlabelled"


def test_camvid_unseen_streets(cam):
    honest = camvid.CamVid(cam, "test", splits.CAMVID_UNSEEN)
    assert [path.stem for path in honest.paths] == ["Seq05VD_f00000"]
    with pytest.raises(DataError, match="no frame of Seq05VD in val"):
        camvid.CamVid(cam, "val", splits.CAMVID_UNSEEN)


def test_camvid_bad_input(cam):
    with pytest.raises(ValueError, match="no split 'dev'; known are train, val, test"):
        camvid.CamVid(cam, "dev")
    (cam / "trainannot" / "0016E5_07959.png").unlink()
    with pytest.raises(DataError, match=r"trainannot/0016E5_07959\.png is missing; run `ctlib data fetch camvid`"):
        camvid.CamVid(cam)[0]
    labels(cam / "valannot" / "0016E5_08000.png", np.full((12, 16), 255))
    with pytest.raises(DataError, match="an id over 11"):
        camvid.CamVid(cam, "val")[0]
    (cam / "val.txt").write_text("one_word_only\n")
    with pytest.raises(DataError, match="line 1: expected 'image labels'"):
        camvid.CamVid(cam, "val")
    (cam / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        camvid.CamVid(cam, "val")
    (cam / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt is missing"):
        camvid.CamVid(cam, "val")


def test_label_maps_keep_ids(tmp_path):
    ids = np.arange(12).reshape(3, 4)
    labels(tmp_path / "p.png", ids, palette=True)
    assert np.array_equal(files.read_labels("camvid", tmp_path / "p.png"), ids)
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    assert files.read_labels("camvid", tmp_path / "deep.png").max() == 300
    picture(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="holds RGB colors, not label ids"):
        files.read_labels("camvid", tmp_path / "rgb.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="not a readable label map"):
        files.read_labels("camvid", tmp_path / "broken.png")


# ---- COCO


@pytest.fixture
def common(tmp_path):
    picture(tmp_path / "val2017" / "000000000025.jpg")
    picture(tmp_path / "val2017" / "000000000009.jpg")
    picture(tmp_path / "val2017" / "000000000030.jpg", gray=True)
    annotations = [
        {"id": 1, "image_id": 25, "category_id": 25, "area": 96, "bbox": [0, 0, 8, 12], "iscrowd": 0,
         "segmentation": [[0, 0, 8, 0, 8, 12, 0, 12]]},
        {"id": 2, "image_id": 25, "category_id": 24, "area": 4, "bbox": [2, 2, 2, 2], "iscrowd": 0,
         "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
        {"id": 3, "image_id": 30, "category_id": 1, "area": 12, "bbox": [0, 0, 1, 12], "iscrowd": 1,
         "segmentation": {"size": [12, 16], "counts": [0, 12, 180]}},
    ]  # fmt: skip
    record = {
        "info": {},
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
        "images": [
            {"id": n, "width": 16, "height": 12, "file_name": f"{n:012d}.jpg", "license": 4} for n in (25, 9, 30)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 24, "name": "zebra"}, {"id": 25, "name": "giraffe"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(record))
    return tmp_path


def test_coco_official_layout(common):
    data = coco.Coco(common)
    assert [entry["id"] for entry in data.records] == [9, 25, 30]
    item = data[1]
    assert item["categories"] == ["giraffe", "zebra"] and item["license"] == "Attribution License"
    assert item["image"].shape == (12, 16, 3)
    assert item["labels"][6, 6] == 25 and item["labels"][3, 3] == 24 and item["labels"][6, 12] == 0  # small one on top
    assert data[0]["labels"].max() == 0 and data[0]["categories"] == []  # no annotation at all
    assert np.array_equal(np.argwhere(data[2]["labels"] == 1), [[row, 0] for row in range(12)])  # runs go down


def test_coco_by_category(common):
    assert [entry["id"] for entry in coco.Coco(common, categories=["zebra"]).records] == [25]
    assert [entry["id"] for entry in coco.Coco(common, categories=[1, "giraffe"]).records] == [25, 30]
    with pytest.raises(ValueError, match="no category 'surfboard'; known are person 1, zebra 24, giraffe 25"):
        coco.Coco(common, categories=["surfboard"])


def test_coco_gray(common):
    assert [entry["id"] for entry in coco.Coco(common, drop_gray=True).records] == [9, 25]
    speck = np.full((600, 800, 3), 128, np.uint8)
    assert coco.is_gray(speck)
    speck[200:300, 200:300] = (255, 0, 0)
    assert not coco.is_gray(speck)


def test_coco_missing_and_broken(common):
    with pytest.raises(DataError, match=r"instances_train2017\.json is missing; run `ctlib data fetch coco`"):
        coco.Coco(common, "train2017")
    (common / "val2017" / "000000000009.jpg").unlink()
    with pytest.raises(DataError, match=r"000000000009\.jpg is missing"):
        coco.Coco(common)[0]
    for text in ("{", "[]", '{"images": [], "categories": []}'):
        (common / "annotations" / "instances_val2017.json").write_text(text)
        with pytest.raises(DataError, match="not a COCO annotation file"):
            coco.Coco(common)


def encode_rle(mask):
    """COCO's string encoding, the inverse of `decode_rle`, written from the format's description."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    if flat[0] == 1:
        runs = [0, *[run for run in runs if run]]
    text = ""
    for n, run in enumerate(runs):
        value = run - runs[n - 2] if n > 2 else run
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | (0x20 if more else 0)))
            if not more:
                break
    return runs, text


@pytest.mark.parametrize("seed", range(5))
def test_run_length_masks(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 53)) < (0.5 if seed else 0.01)
    runs, text = encode_rle(mask)
    assert np.array_equal(coco.decode_rle({"size": [37, 53], "counts": runs}), mask)
    assert np.array_equal(coco.decode_rle({"size": [37, 53], "counts": text}), mask)


def test_run_length_that_does_not_fill():
    with pytest.raises(ValueError, match="covers 5 of 12 pixels"):
        coco.decode_rle({"size": [3, 4], "counts": [2, 3]})


# ---- ArtBench-10


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


# ---- ImageNet


def test_imagenet_folders(tmp_path):
    picture(tmp_path / "val" / "n01443537" / "ILSVRC2012_val_00000236.JPEG")
    picture(tmp_path / "val" / "n01440764" / "ILSVRC2012_val_00000293.JPEG")
    (tmp_path / "val" / "n01440764" / "notes.txt").write_text("no picture")
    data = imagenet.ImageNet(tmp_path)
    assert len(data) == 2
    item = data[0]
    assert item["wnid"] == "n01440764" and item["image"].shape == (12, 16, 3)
    assert item["class_index"] is None  # two classes of a thousand do not tell the index
    (tmp_path / "index.csv").write_text("file,wnid,class_index\nx,n01440764,0\ny,n01443537,1\n")
    assert [item["class_index"] for item in map(imagenet.ImageNet(tmp_path).__getitem__, (0, 1))] == [0, 1]


def test_imagenet_flat_sample(tmp_path):
    picture(tmp_path / "images" / "n01443537_goldfish.jpg")
    data = imagenet.ImageNet(tmp_path)
    assert data[0]["wnid"] == "n01443537" and data[0]["name"] == "n01443537_goldfish"
    with pytest.raises(DataError, match=r"imagenet: no pictures in .*; log in at https://www.image-net.org"):
        imagenet.ImageNet(tmp_path / "nowhere")


def test_imagenet_index_needs_all_thousand(tmp_path):
    first = picture(tmp_path / "val" / "n00000000" / "x.JPEG")
    for n in range(1, 1000):
        folder = tmp_path / "val" / f"n{n:08d}"
        folder.mkdir()
        os.link(first, folder / "x.JPEG")
    assert imagenet.ImageNet(tmp_path)[999]["class_index"] == 999


# ---- BSDS500


def truth(path, people, shape=(12, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.empty((1, people), dtype=object)
    for n in range(people):
        cells[0, n] = {"Segmentation": np.full(shape, n + 1, np.uint16), "Boundaries": np.zeros(shape, np.uint8)}
    savemat(path, {"groundTruth": cells})


def test_bsds_official_layout(tmp_path):
    picture(tmp_path / "images" / "train" / "100075.jpg")
    (tmp_path / "images" / "train" / "Thumbs.db").write_bytes(b"x")
    truth(tmp_path / "groundTruth" / "train" / "100075.mat", 5)
    data = bsds.Bsds(tmp_path)
    assert len(data) == 1
    item = data[0]
    assert item["name"] == "100075" and len(item["segments"]) == 5
    assert item["segments"][4].dtype == np.uint16 and (item["segments"][4] == 5).all()


def test_bsds_one_segmentation_and_errors(tmp_path):
    picture(tmp_path / "images" / "val" / "1.jpg")
    with pytest.raises(DataError, match=r"groundTruth/val/1\.mat is missing; run `ctlib data fetch bsds500`"):
        bsds.Bsds(tmp_path, "val")[0]
    truth(tmp_path / "groundTruth" / "val" / "1.mat", 1, (12, 15))
    with pytest.raises(DataError, match="1: a segmentation has another size"):
        bsds.Bsds(tmp_path, "val")[0]
    (tmp_path / "groundTruth" / "val" / "1.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="not a BSDS ground truth"):
        bsds.Bsds(tmp_path, "val")[0]
    labels(tmp_path / "segments" / "val" / "1.png", np.full((12, 16), 7))
    assert (bsds.Bsds(tmp_path, "val")[0]["segments"][0] == 7).all()
    with pytest.raises(DataError, match="no files"):
        bsds.Bsds(tmp_path, "test")


# ---- samples of real data


def sample(name):
    folder = paths.data_dir() / name
    if not (folder / "index.csv").exists():
        pytest.skip(f"set CTLIB_DATA to a folder with the {name} sample")
    return folder


def test_real_fivek():
    data = fivek.FiveK(sample("fivek"), ("raw", "c"))
    pair = data.pair(data.ids[0], "raw", "c")
    assert pair["source"].shape == pair["reference"].shape and (pair["source"] != pair["reference"]).any()
    assert len(data) >= 15


def test_real_camvid():
    data = camvid.CamVid(sample("camvid"), "val")
    assert len(data) == 101 and set(camvid.sequence(path) for path in data.paths) == {"0016E5"}
    item = data[0]
    assert item["image"].shape == (360, 480, 3) and item["labels"].max() <= 11


def test_real_bsds():
    item = bsds.Bsds(sample("bsds500"), "test")[0]
    assert item["segments"][0].shape == item["image"].shape[:2] and len(np.unique(item["segments"][0])) > 1


def test_real_imagenet():
    item = imagenet.ImageNet(sample("imagenet_samples"))[0]
    assert item["class_index"] == 0 and item["wnid"] == "n01440764" and min(item["image"].shape[:2]) >= 200
