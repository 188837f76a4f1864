"""ctlib.atomic: whole or not at all."""

import os
import stat

import pytest

from ctlib.atomic import replacing


def test_writes_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "note.txt"
    with replacing(target) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["note.txt"]


def test_usual_permissions(tmp_path):
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_text("")
    with replacing(ours) as temporary:
        temporary.write_text("")
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_failure_keeps_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), replacing(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["note.txt"]


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "note.txt"):
        pass


def test_a_private_file_stays_private_and_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "secret", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o600
