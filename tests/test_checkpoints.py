"""Training states and weights: round trips, damage of every kind, files that ask for code, and what is shipped."""

import contextlib
import functools
import hashlib
import importlib
import io
import json
import operator
import os
import pickle
import re
import shutil
import subprocess
import tarfile
import timeit
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from toy import Net

from ctlib import checkpoints
from ctlib.checkpoints import CheckpointError, load_state, load_weights, save_state

STATE = {
    "step": 3,
    "model": {"weight": torch.arange(50.0), "count": torch.tensor(7)},
    "history": [{"loss": 0.5, "name": "Größe"}, {"loss": float("inf"), "name": ""}],
    "rng": torch.get_rng_state(),
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture
def state(tmp_path):
    save_state(tmp_path / "resume.pt", STATE)
    return tmp_path / "resume.pt"


# Training states


def test_a_state_comes_back_and_stands_alone(state):
    assert same(STATE, load_state(state))
    save_state(str(state), STATE | {"step": 4})
    assert load_state(str(state))["step"] == 4 and os.listdir(state.parent) == ["resume.pt"]


def test_a_save_that_fails_keeps_the_old_state(state, monkeypatch):
    def full(_, path):
        path.write_bytes(b"PK half a state")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(state, {"step": 4})
    assert load_state(state)["step"] == 3 and os.listdir(state.parent) == ["resume.pt"]


def test_every_truncated_state_is_refused(state):
    whole = state.read_bytes()
    for length in {0, 1, 2, 4, 30, 100, *range(7, len(whole), 211), len(whole) - 1}:
        state.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"resume.pt: not a readable checkpoint .*; remove it and start anew"):
            load_state(state)


def test_no_flipped_bit_goes_unseen(state):
    whole, refused = state.read_bytes(), 0
    bits = np.random.default_rng(0).integers(8 * len(whole), size=400).tolist()
    bits += [8 * entry.start() + 308 for entry in re.finditer(b"PK\x01\x02", whole)]  # marks an entry as a folder
    for bit in bits:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        state.write_bytes(flipped)
        try:
            assert same(STATE, load_state(state)), f"bit {bit} changed the state"  # padding may differ, nothing else
        except CheckpointError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize("kind", ["none", "folder", "text", "noise", "zip", "list", "tensor", "weights", "script"])
def test_what_is_no_state_is_refused(tmp_path, kind):
    path = tmp_path / "resume.pt"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("step: 3\n")
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("note.txt", "no state")
    elif kind == "weights":
        Net().save_pretrained(tmp_path)
        os.replace(tmp_path / "model.safetensors", path)
    elif kind == "script":
        torch.save(STATE, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{archive.namelist()[0].split('/')[0]}/constants.pkl", pickle.dumps(()))
    elif kind != "none":
        torch.save([1, 2] if kind == "list" else torch.ones(2), path)
    with pytest.raises(CheckpointError, match=r"resume.pt: .*(remove it|start the training anew)"):
        load_state(path)


# Pickles that ask for code: each makes the file `ran` where it gets its will


class Asks:
    """Pickled as a call."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments

    def __call__(self):
        """None of this: pickle wants to see that what it will call can be called."""


class Filled:
    """Pickled as an empty dict that gets a call as its item."""

    def __init__(self, item):
        self.item = item

    def __reduce__(self):
        return dict, (), None, None, iter([("step", self.item)])


def shell(ran):
    return Asks(os.system, f"touch {ran}")


OBJECTS = {
    "os.system": shell,
    "eval": lambda ran: Asks(eval, f"open({ran!r}, 'w').close()"),
    "exec": lambda ran: Asks(exec, f"open({ran!r}, 'w').close()"),
    "open": lambda ran: Asks(open, ran, "w"),
    "os.mkdir": lambda ran: Asks(os.mkdir, ran),
    "os.symlink": lambda ran: Asks(os.symlink, __file__, ran),
    "subprocess.call": lambda ran: Asks(subprocess.call, ["touch", ran]),
    "subprocess.check_output": lambda ran: Asks(subprocess.check_output, ["touch", ran]),
    "Path.touch": lambda ran: Asks(Path.touch, Path(ran)),
    "shutil.copy": lambda ran: Asks(shutil.copy, __file__, ran),
    "timeit": lambda ran: Asks(timeit.timeit, f"open({ran!r}, 'w').close()", "pass", timeit.default_timer, 1),
    "numpy.savetxt": lambda ran: Asks(np.savetxt, ran, [1]),
    "torch.save": lambda ran: Asks(torch.save, 1, ran),
    "partial": lambda ran: Asks(functools.partial(os.system, f"touch {ran}")),
    "methodcaller": lambda ran: Asks(operator.methodcaller("touch"), Path(ran)),
    "getattr": lambda ran: Asks(Asks(getattr, Asks(importlib.import_module, "os"), "system"), f"touch {ran}"),
    "map": lambda ran: Asks(list, Asks(map, os.system, [f"touch {ran}"])),
    "nested": lambda ran: Asks(list, [{"a": (Asks(dict, [(1, shell(ran))]),)}]),
    "items": lambda ran: Filled(shell(ran)),
    "state": lambda ran: STATE | {"model": {"weight": shell(ran)}},
    "key": lambda ran: {shell(ran): 1},
}
BY_HAND = {
    "global": b"cos\nsystem\n(S'touch %s'\ntR.",
    "posix": b"cposix\nsystem\n(S'touch %s'\ntR.",
    "inst": b"(S'touch %s'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch %s'\no.",
    "python 2": b'c__builtin__\neval\n(S\'__import__("os").system("touch %s")\'\ntR.',
    "dotted": b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93(S'touch %s'\ntR.",
    "through torch": b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93(S'touch %s'\ntR.",
    "through ctlib": b"\x80\x04\x8c\x0cctlib.atomic\x8c\x09os.system\x93(S'touch %s'\ntR.",
    "after a dict": b"}S'step'\nI3\ns0cos\nsystem\n(S'touch %s'\ntR.",
}


def in_zip(data):
    """What `torch.save` writes, with `data` for its pickle."""
    honest, out = io.BytesIO(), io.BytesIO()
    torch.save({"step": torch.ones(2)}, honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, data if name.endswith("data.pkl") else source.read(name))
    return out.getvalue()


def in_legacy(data):
    """What `torch.save` wrote before: magic number, version, system, the object, keys of storages."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps([], 2)


def in_tar(data):
    """What `torch.save` wrote first of all."""
    out, none = io.BytesIO(), pickle.dumps(0, 2) + pickle.dumps([], 2)
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in {"storages": none, "tensors": none, "pickle": data}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("name", [*OBJECTS, *BY_HAND])
def test_no_pickle_gets_its_will(tmp_path, name):
    path, ran = tmp_path / "resume.pt", tmp_path / "ran"
    if name in OBJECTS:
        pickles = [pickle.dumps(OBJECTS[name](str(ran)), protocol) for protocol in (2, 4)]
    else:
        pickles = [BY_HAND[name] % str(ran).encode()]
    with contextlib.suppress(Exception):
        pickle.loads(pickles[0])
    assert ran.exists(), "this pickle does nothing, so it proves nothing"
    shutil.rmtree(ran) if ran.is_dir() else ran.unlink()
    for data in pickles:
        for wrapped in (data, in_zip(data), in_legacy(data), in_tar(data)):
            path.write_bytes(wrapped)
            with pytest.raises(CheckpointError, match=r"resume.pt: not a readable checkpoint"):
                load_state(path)
            with pytest.raises(CheckpointError, match=r"resume.pt: not readable as safetensors"):
                load_weights(path)
            assert os.listdir(tmp_path) == ["resume.pt"]


@pytest.mark.parametrize("wrap", [bytes, in_zip, in_legacy, in_tar])
def test_a_careless_reader_would_have_run_them(tmp_path, wrap):
    ran = tmp_path / "ran"
    (tmp_path / "resume.pt").write_bytes(wrap(pickle.dumps(shell(ran), 2)))
    with contextlib.suppress(Exception):
        torch.load(tmp_path / "resume.pt", weights_only=False)
    assert ran.exists()


# Weights


def test_mutated_weights_load_or_are_refused(tmp_path):
    Net(width=6).save_pretrained(tmp_path)
    path, rng, outcomes = tmp_path / "model.safetensors", np.random.default_rng(0), set()
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for number in range(300):
        data = bytearray(whole)
        if number % 5 == 0:  # length of the header
            length = (0, 1, header - 1, header + 1, len(whole), 2**32, 2**63, 2**64 - 1)[rng.integers(8)]
            data[:8] = length.to_bytes(8, "little")
        elif number % 5 == 1:
            del data[int(rng.integers(len(data))) :]
        elif number % 5 == 2:
            data += rng.bytes(int(rng.integers(1, 50)))
        else:  # bytes of the header, of anything
            for place in rng.integers(8 + header if number % 5 == 3 else len(data), size=rng.integers(1, 6)):
                data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            load_weights(path)
            outcomes.add("loads")
        except CheckpointError as error:
            assert str(path) in str(error) and "download it again" in str(error)
            outcomes.add("refused")
        with contextlib.suppress(CheckpointError):
            assert isinstance(Net.from_pretrained(tmp_path), Net)
    assert outcomes == {"loads", "refused"}


HEADERS = {
    "empty": {},
    "unknown type": {"w": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}},
    "no type": {"w": {"shape": [2], "data_offsets": [0, 8]}},
    "negative shape": {"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    "huge shape": {"w": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}},
    "shape of text": {"w": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
    "beyond the end": {"w": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}},
    "backwards": {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
    "overlap": {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"},
    "odd type": {"w": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}},
    "list": [1, 2],
    "nested": {"w": {"w": {"w": {}}}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_are_refused_where_they_lead_nowhere(tmp_path, name):
    Net().save_pretrained(tmp_path)
    text = json.dumps(HEADERS[name]).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError, match=r"not readable as safetensors|do not fit together"):
        Net.from_pretrained(tmp_path)


def test_missing_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model.safetensors: there are no weights"):
        Net.from_pretrained(tmp_path)


# Networks in folders


class Counting(torch.nn.Module, checkpoints.Pretrained):
    """A network without options that counts, as those with batch norm do."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.norm.num_batches_tracked += 123_457
        self.register_buffer("mask", torch.tensor([True, False]))


def test_a_network_comes_back_in_half_precision(tmp_path):
    torch.manual_seed(0)
    network = Net(width=6).train()
    folder = network.save_pretrained(tmp_path / "new" / "net")
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert {value.dtype for value in load_weights(folder / "model.safetensors").values()} == {torch.float16}
    again = Net.from_pretrained(folder)
    assert not again.training and again.first.out_channels == 6 and again.first.weight.dtype == torch.float32
    for name, value in again.state_dict().items():
        assert torch.equal(value, network.state_dict()[name].half().float())
    network.save_pretrained(folder, dtype=torch.float32)
    assert same(network.state_dict(), Net.from_pretrained(str(folder)).state_dict())


def test_counters_and_masks_keep_their_type(tmp_path):
    network = Counting()
    again = Counting.from_pretrained(network.save_pretrained(tmp_path))
    assert same(dict(network.state_dict()), dict(again.state_dict()))
    assert again.norm.num_batches_tracked == 123_457


def test_the_current_folder_is_a_folder(tmp_path, monkeypatch):
    Net(width=5).save_pretrained(tmp_path / "inner")
    monkeypatch.chdir(tmp_path / "inner")
    assert Net.from_pretrained(".").first.out_channels == 5
    assert Net.from_pretrained("../inner").first.out_channels == 5


@pytest.mark.parametrize(
    "config",
    [
        None,
        "",
        "no json",
        "[1]",
        "null",
        '{"depth": 3}',
        '{"width": "wide"}',
        '{"width": -1}',
        '{"width": 1e30}',
        "\xff",
    ],
)
def test_a_wrong_configuration(tmp_path, config):
    Net().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    if config is not None:
        (tmp_path / "config.json").write_bytes(config.encode("latin1"))
    with pytest.raises(CheckpointError, match=r"config.json: no configuration of Net"):
        Net.from_pretrained(tmp_path)


def test_weights_of_another_network(tmp_path):
    Net(width=5).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"width": 6}')
    with pytest.raises(CheckpointError, match=r"weights and config.json do not fit together \(.*size mismatch"):
        Net.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"do not fit together|no configuration of Counting"):
        Counting.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    """What a flipped bit may make of a weight; the picture would be black, and nothing would say why."""
    folder = Net().save_pretrained(tmp_path)
    weights = load_weights(folder / "model.safetensors")
    weights["last.bias"][1] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model.safetensors: last.bias holds NaN or infinite.*download it again"):
        Net.from_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_what_half_precision_cannot_hold_is_not_saved(tmp_path, value):
    network = Net()
    with torch.no_grad():
        network.last.bias[1] = value
    with pytest.raises(CheckpointError, match=r"new: last.bias holds values that are not finite in torch.float16"):
        network.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    Net().save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError):
        network.save_pretrained(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if value == 1e5:
        network.save_pretrained(tmp_path, dtype=torch.float32)
        assert Net.from_pretrained(tmp_path).last.bias[1] == 1e5


def test_what_norms_know_of_large_inputs_is_kept(tmp_path):
    network = Counting()
    network.norm.running_var.fill_(1e6)  # beyond float16, where features are in the thousands
    again = Counting.from_pretrained(network.save_pretrained(tmp_path))
    assert (again.norm.running_var == 1e6).all()
    assert load_weights(tmp_path / "model.safetensors")["norm.weight"].dtype == torch.float16


# Names


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two shipped networks, `one` and `two`, and their sums."""
    folder = tmp_path / "pretrained"
    monkeypatch.setattr(checkpoints, "SHIPPED", folder)
    lines = []
    for name, width in (("one", 5), ("two", 6)):
        file = Net(width=width).save_pretrained(folder / name) / "model.safetensors"
        lines.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}/model.safetensors\n")
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def test_shipped_networks_go_by_name(shipped):
    assert Net.from_pretrained("one").first.out_channels == 5
    assert Net.from_pretrained("two").first.out_channels == 6


def test_an_unknown_name_lists_the_known_ones(shipped):
    with pytest.raises(
        CheckpointError, match="three: no such weights; shipped are one, two; a folder or a hub id do too"
    ):
        Net.from_pretrained("three")
    shutil.rmtree(shipped)
    with pytest.raises(CheckpointError, match="three: no such weights; shipped are none"):
        Net.from_pretrained("three")


@pytest.mark.parametrize("name", ["", "a/b/c", "/no/such/folder", "./none", "~/none/there", "pretrained/../one"])
def test_what_can_be_no_name(shipped, name):
    with pytest.raises(CheckpointError, match="no such folder" if name else "no such weights"):
        Net.from_pretrained(name)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match="runs/flim: no such folder; shipped are one, two"):
        Net.from_pretrained("runs/flim")


@pytest.mark.parametrize("damage", ["other weights", "no weights", "no line", "no sums", "no sense"])
def test_shipped_weights_are_held_against_their_sum(shipped, damage):
    weights, sums = shipped / "one" / "model.safetensors", shipped / "SHA256SUMS"
    if damage == "other weights":
        shutil.copy(shipped / "two" / "model.safetensors", weights)
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no line":
        sums.write_text(sums.read_text().splitlines()[1] + "\n")
    elif damage == "no sums":
        sums.unlink()
    else:
        sums.write_text("no sums in here\n")
    with pytest.raises(CheckpointError, match=r"one/model.safetensors: missing, or not the file of SHA256SUMS"):
        Net.from_pretrained("one")


def test_the_hub_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read from the environment when imported
    with pytest.raises(
        CheckpointError, match=r"nobody/nothing: no such folder on this machine, and the hub did not give it \(.+\)$"
    ):
        Net.from_pretrained("nobody/nothing", cache_dir=tmp_path)
