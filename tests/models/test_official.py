"""The authors' weights: names and hashes of the files, what is refused, and what a network has to do afterwards.

The files themselves are not here; random weights of the right names and shapes stand in for them.
"""

import hashlib
import pickle
import socket
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest
import torch

from ctlib import hubcache
from ctlib.checkpoints import CheckpointError
from ctlib.models import official
from ctlib.models.official import RELEASES, Release, fill, smoke
from ctlib.models.zhang2016 import Zhang2016
from ctlib.models.zhang2017 import Zhang2017
from models.repeater import repeater

SMALL = {"width": 0.06}


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """An empty torch cache and no network; gives the folder where files are looked for."""

    def unreachable(*_, **__):
        raise urllib.error.URLError(socket.gaierror("Name or service not known"))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    forget = hubcache.answers.cache_clear
    forget()
    yield tmp_path / "torch" / "hub" / "checkpoints"
    forget()


def weights(kind=Zhang2017, **options) -> dict[str, torch.Tensor]:
    """As an old release has them: no counters of batches."""
    torch.manual_seed(0)
    state = kind(**SMALL | options).state_dict()
    return {name: value.clone() for name, value in state.items() if not name.endswith("num_batches_tracked")}


def stored(folder: Path, state, name: str = "some.pth") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / name)
    return folder / name


def released(monkeypatch, folder: Path, name: str, state, config: dict) -> Path:
    """A file of our own in the place of a release, with its true hash in its name."""
    draft = stored(folder, state)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(RELEASES, name, Release(f"https://example.org/weights-{digest}.pth", config))
    return draft.rename(folder / RELEASES[name].file)


def test_addresses_bear_the_hashes_of_the_spec():
    assert RELEASES["eccv16"].file == "colorization_release_v2-9b330a0b.pth"
    assert RELEASES["siggraph17"].file == "siggraph17-df00044c.pth"
    assert hubcache.hash_of_name(Path(RELEASES["siggraph17"].file)) == "df00044c"
    assert RELEASES["siggraph17"].config == {"mask_cent": 0.0}
    assert RELEASES["eccv16"].config["folded"] == pytest.approx(0.3837, abs=1e-4)


@pytest.mark.parametrize(("kind", "name"), [(Zhang2016, "eccv16"), (Zhang2017, "siggraph17")])
def test_offline_is_one_clear_line(offline, kind, name):
    for options in ({}, {"download": False}):
        with pytest.raises(CheckpointError) as error:
            kind.from_pretrained(name, **options)
        message = str(error.value)
        assert RELEASES[name].file in message and str(offline) in message and "go online" in message
        assert "\n" not in message
    assert not offline.exists()


def test_a_name_server_that_hangs_costs_two_seconds_once(offline, monkeypatch):
    def hang(*_, **__):
        time.sleep(8)
        raise urllib.error.URLError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    for limit in (2.5, 0.5):
        began = time.perf_counter()
        with pytest.raises(CheckpointError, match="no network"):
            Zhang2016.from_pretrained("eccv16")
        assert time.perf_counter() - began < limit


@pytest.mark.parametrize(("kind", "name"), [(Zhang2016, "eccv16"), (Zhang2017, "siggraph17")])
def test_a_file_in_the_cache_is_used(offline, monkeypatch, kind, name):
    state = weights(kind)
    released(monkeypatch, offline, name, state, RELEASES[name].config)
    net = kind.from_pretrained(name, **SMALL)
    found = net.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in state.items()) and not net.training
    assert getattr(net, "mask_cent", 0.0) == 0.0  # the converted weights, not the default of a training
    assert getattr(net, "folded", 1 / 2.606) == pytest.approx(1 / 2.606)


def test_a_download_is_kept_where_torch_looks(offline, monkeypatch):
    path = released(monkeypatch, offline, "eccv16", weights(Zhang2016), {})
    content = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(hubcache, "answers", lambda _: True)
    asked = []

    def download(url, target, hash_prefix, progress):
        asked.append((url, hash_prefix))
        Path(target).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        Zhang2016.from_pretrained("eccv16", **SMALL)
    assert asked == [(RELEASES["eccv16"].url, hubcache.hash_of_name(path))] and path.is_file()
    path.unlink()

    def broken(*_, **__):
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "download_url_to_file", broken)
    with pytest.raises(CheckpointError, match=r"were not downloaded .invalid hash value.; put the file into"):
        Zhang2016.from_pretrained("eccv16", **SMALL)


def test_a_damaged_file_in_the_cache_is_no_network(offline):
    stored(offline, weights(), RELEASES["siggraph17"].file)
    with pytest.raises(CheckpointError, match=r"siggraph17-df00044c\.pth: damaged"):
        Zhang2017.from_pretrained("siggraph17", **SMALL)


def test_names_of_the_other_network(offline):
    with pytest.raises(CheckpointError, match="eccv16: weights of another network; Zhang2017 takes siggraph17"):
        Zhang2017.from_pretrained("eccv16")
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: there is no such file"):
        Zhang2017.from_pretrained("nowhere.pth", mask_cent=0)


def test_a_file_of_unknown_origin_has_to_say_its_mask_cent(tmp_path):
    """The wrong value spoils every result, and no file says it."""
    path = stored(tmp_path, weights())
    with pytest.raises(ValueError, match=r"mask_cent: some\.pth does not say it.* it is 0 for the converted original"):
        Zhang2017.from_pretrained(path, **SMALL)
    for cent in (0, 0.5):
        with pytest.warns(UserWarning, match=r"some\.pth: a red hint does not color its place"):  # random weights
            assert Zhang2017.from_pretrained(path, mask_cent=cent, **SMALL).mask_cent == cent
    repeats = stored(tmp_path, repeater(0.0).state_dict(), "repeats.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Zhang2017.from_pretrained(repeats, mask_cent=0, width=0.125)
    with pytest.warns(UserWarning, match="is mask_cent right"):
        Zhang2017.from_pretrained(repeats, mask_cent=0.5, width=0.125)
    own = weights(Zhang2016)
    with pytest.raises(ValueError, match=r"folded: some\.pth does not say it.* it is 1 / 2.606 for the authors'"):
        Zhang2016.from_pretrained(stored(tmp_path, own), **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Zhang2016.from_pretrained(stored(tmp_path, own), folded=0.5, **SMALL).folded == 0.5
    own["model_out.weight"] = own["model_out.weight"].flip(1)
    with pytest.warns(UserWarning, match="their 313 colors are others, or in another order"):
        Zhang2016.from_pretrained(stored(tmp_path, own), folded=1, **SMALL)


def test_what_training_on_several_cards_leaves_is_taken_off(tmp_path):
    state = weights(Zhang2016)
    path = stored(tmp_path, {f"module.{name}": value for name, value in state.items()})
    found = Zhang2016.from_pretrained(path, folded=1, **SMALL).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in state.items())


def test_counters_of_batches_may_be_there_or_not():
    net = Zhang2016(**SMALL)
    whole = {name: torch.ones_like(value) for name, value in net.state_dict().items()}
    assert fill(net, whole).state_dict()["model1.4.num_batches_tracked"] == 1
    assert fill(net, {name: value for name, value in whole.items() if "num_batches" not in name})


def test_what_does_not_fit_is_named():
    net, state = Zhang2017(**SMALL), weights()
    for change, message in (
        (lambda one: one.pop("model8.5.running_var"), r"model8\.5\.running_var is missing; 1 missing, 0 more"),
        (lambda one: one.update(extra=torch.zeros(1)), "extra is none of its layers; 0 missing, 1 more"),
        (
            lambda one: one.update({"model_out.0.weight": torch.zeros(3, 8, 1, 1)}),
            r"model_out\.0\.weight has the shape",
        ),
        (lambda one: one["model4.2.bias"].fill_(float("nan")), r"model4\.2\.bias holds values that are not finite"),
        (lambda one: one["model4.2.bias"].fill_(float("inf")), r"model4\.2\.bias holds values that are not finite"),
    ):
        bad = {name: value.clone() for name, value in state.items()}
        change(bad)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        with pytest.raises(CheckpointError, match=message):
            fill(net, bad, "some.pth")
        assert all(map(torch.equal, before.values(), net.state_dict().values()))
    with pytest.raises(CheckpointError, match="not the weights of Zhang2016"):
        fill(Zhang2016(**SMALL), state)
    with pytest.raises(
        CheckpointError, match=r"model1\.0\.weight has the shape \(4, 4, 3, 3\), expected \(8, 4, 3, 3\)"
    ):
        fill(Zhang2017(width=0.125), state)


class Bomb:
    def __reduce__(self):
        return print, ("a program in a file of weights ran",)


def test_nothing_in_a_file_runs_and_damage_is_named(tmp_path, capsys):
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"model1.0.weight": Bomb()}))
    half = stored(tmp_path, weights(), "half.pth")
    half.write_bytes(half.read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("<html>404</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("evil", "half", "text", "empty"):
        with pytest.raises(CheckpointError, match=rf"{name}\.pth: not readable as tensors"):
            Zhang2017.from_pretrained(tmp_path / f"{name}.pth", mask_cent=0)
    assert "ran" not in capsys.readouterr().out
    for state in ([torch.zeros(1)], {"epoch": 3, "weights": torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="expected a dict of tensors by name"):
            Zhang2017.from_pretrained(stored(tmp_path, state), mask_cent=0)


def test_smoke_of_networks_that_do_what_they_should():
    found = smoke(repeater(0.0), 32)
    assert found["gray"] == 0 and found["before"] > 100 and found["after"] < 30
    assert smoke(Zhang2016(**SMALL).eval(), 32)["gray"] < 30


def test_smoke_of_networks_that_do_not():
    with pytest.raises(CheckpointError, match=r"a red hint does not color its place .* is mask_cent right\?"):
        smoke(repeater(0.5), 32)  # its weights expect a mask of 0 and 1
    loud = repeater(0.0)
    torch.nn.init.constant_(loud.model_out[0].bias, 1.0)
    with pytest.raises(CheckpointError, match="a gray square does not stay near gray"):
        smoke(loud, 32)
    torch.nn.init.constant_(loud.model_out[0].bias, float("nan"))
    with pytest.raises(CheckpointError, match="a gray square does not stay near gray"):
        smoke(loud, 32)


def test_other_names_go_the_usual_way(tmp_path):
    assert not official.is_official("zhang2016-small") and not official.is_official(tmp_path)
    Zhang2016(**SMALL).save_pretrained(tmp_path / "own")
    assert Zhang2016.from_pretrained(tmp_path / "own").folded == 1.0
