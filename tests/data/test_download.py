"""Downloads against a local server that cuts, refuses and lies; archives that try to escape."""

import hashlib
import io
import socket
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ctlib.data import download, registry

BODY = bytes(range(256)) * 2000  # 512,000 bytes
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Server:
    """One file at /file.bin; `cut` bytes after which the connection breaks, once for each entry."""

    def __init__(self):
        self.body, self.cuts, self.ranges, self.requests, self.status, self.tag = BODY, [], True, [], 200, '"v1"'
        self.deaf = False  # to If-Range
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def mark(self):
                if outer.tag:
                    self.send_header("ETag", outer.tag)

            def do_GET(self):
                outer.requests.append(self.headers.get("Range"))
                if outer.status != 200:
                    self.send_error(outer.status)
                    return
                start, span = 0, self.headers.get("Range")
                fresh = outer.deaf or self.headers.get("If-Range") in (None, outer.tag)
                if span and outer.ranges and fresh:
                    start = int(span.removeprefix("bytes=").rstrip("-"))
                    if start >= len(outer.body):
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(outer.body)}")
                        self.mark()
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(outer.body) - 1}/{len(outer.body)}")
                else:
                    self.send_response(200)
                self.mark()
                self.send_header("Content-Length", str(len(outer.body) - start))
                self.end_headers()
                end = start + outer.cuts.pop(0) if outer.cuts else len(outer.body)
                self.wfile.write(outer.body[start:end])
                self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/file.bin"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_then_no_second_request(server, tmp_path):
    path = download.retrieve(server.url, tmp_path, hash=SHA, size=len(BODY), progress=False)
    assert path.read_bytes() == BODY
    assert leftovers(tmp_path) == ["file.bin"]
    download.retrieve(server.url, tmp_path, hash=SHA, size=len(BODY), progress=False)
    assert server.requests == [None]


def test_cut_connection_resumes_in_the_same_call(server, tmp_path):
    server.cuts = [98_304, 196_608]
    assert download.retrieve(server.url, tmp_path, hash=SHA, progress=False).read_bytes() == BODY
    assert server.requests == [None, "bytes=98304-", "bytes=294912-"]


def test_a_later_call_goes_on_with_the_part(server, tmp_path):
    server.cuts = [98_304, 0, 0, 0]
    with pytest.raises(download.DownloadError, match="resumes at 98,304 bytes"):
        download.retrieve(server.url, tmp_path, hash=SHA, progress=False)
    assert leftovers(tmp_path) == ["file.bin.part", "file.bin.part.tag"]
    server.cuts, server.requests = [], []
    assert download.retrieve(server.url, tmp_path, hash=SHA, progress=False).read_bytes() == BODY
    assert server.requests == ["bytes=98304-"]
    assert leftovers(tmp_path) == ["file.bin"]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.cuts = False, [98_304]
    assert download.retrieve(server.url, tmp_path, hash=SHA, progress=False).read_bytes() == BODY


def test_file_changed_on_the_server_starts_over(server, tmp_path):
    server.cuts = [98_304, 0, 0, 0]
    with pytest.raises(download.DownloadError):
        download.retrieve(server.url, tmp_path, progress=False)
    server.cuts, server.body, server.tag = [], BODY[::-1], '"v2"'
    assert download.retrieve(server.url, tmp_path, progress=False).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_version_mark_or_hash_nothing_is_joined(server, tmp_path, tag):
    """The server forgot to say which version it sent, so the bytes so far are worth nothing."""
    server.tag, server.cuts = tag, [98_304, 0, 0, 0]
    with pytest.raises(download.DownloadError, match="connection") as caught:
        download.retrieve(server.url, tmp_path, progress=False)
    assert "resumes" not in str(caught.value) and leftovers(tmp_path) == []
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])  # as a killed process leaves it
    server.cuts, server.requests, server.body = [98_304], [], BODY[::-1]
    assert download.retrieve(server.url, tmp_path, progress=False).read_bytes() == BODY[::-1]
    assert server.requests == [None, None]


def test_without_a_version_mark_a_known_hash_judges(server, tmp_path):
    server.tag, server.cuts = None, [98_304]
    assert download.retrieve(server.url, tmp_path, hash=SHA, progress=False).read_bytes() == BODY
    assert server.requests == [None, "bytes=98304-"]


@pytest.mark.parametrize("length", [98_304, len(BODY)])
def test_a_server_deaf_to_if_range_is_noticed(server, tmp_path, length):
    (tmp_path / "file.bin.part").write_bytes(BODY[:length])
    (tmp_path / "file.bin.part.tag").write_text('"v1"')
    server.deaf, server.body, server.tag = True, BODY[::-1], '"v2"'
    assert download.retrieve(server.url, tmp_path, progress=False).read_bytes() == BODY[::-1]


def test_complete_part_needs_no_body(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY)
    assert download.retrieve(server.url, tmp_path, hash=SHA, progress=False).read_bytes() == BODY


def test_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(download.DownloadError, match="wrong checksum"):
        download.retrieve(server.url, tmp_path, hash="md5:" + "0" * 32, progress=False)
    assert leftovers(tmp_path) == []


def test_wrong_size_leaves_nothing(server, tmp_path):
    with pytest.raises(download.DownloadError, match="512,000 bytes came, 17 were expected"):
        download.retrieve(server.url, tmp_path, size=17, progress=False)
    assert leftovers(tmp_path) == []


def test_404_is_named(server, tmp_path):
    server.status = 404
    with pytest.raises(download.DownloadError, match=r"file\.bin: the server answered 404"):
        download.retrieve(server.url, tmp_path, progress=False)
    assert leftovers(tmp_path) == []


def test_no_server_fails_within_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"
    begin = time.monotonic()
    with pytest.raises(download.DownloadError, match="no connection"):
        download.retrieve(url, tmp_path, progress=False)
    assert time.monotonic() - begin < 5


def test_too_little_room_is_said_before_the_download(server, tmp_path):
    with pytest.raises(download.DownloadError, match="make room"):
        download.retrieve(server.url, tmp_path, size=10**18, progress=False)
    assert server.requests == []


def test_full_disk_while_writing(server, tmp_path, monkeypatch):
    def full(self, url):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.Resumable, "_attempt", full)
    with pytest.raises(download.DownloadError, match="No space left on device"):
        download.retrieve(server.url, tmp_path, progress=False)


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as packed:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


def test_unpack_tar_and_zip_merge_into_the_folder(tmp_path):
    target = tmp_path / "set"
    (target / "train").mkdir(parents=True)
    (target / "train" / "old.txt").write_text("kept")
    download.unpack(
        make_tar(tmp_path / "a.tar.gz", {"top/in/train/x.txt": b"1", "top/other/y.txt": b"2"}), target, "top/in"
    )
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("val/z.txt", "3")
    download.unpack(tmp_path / "b.zip", target)
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert files == ["train/old.txt", "train/x.txt", "val/z.txt"]


@pytest.mark.parametrize("name", ["../escape.txt", "/tmp/ctlib-escape.txt", "ok/../../escape.txt"])
def test_traversal_is_refused(tmp_path, name):
    target = tmp_path / "deep" / "set"
    target.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as packed:
        packed.writestr("fine.txt", "1")
        packed.writestr(name, "2")
    with pytest.raises(download.DownloadError, match="refused"):
        download.unpack(tmp_path / "z.zip", target)
    tar = make_tar(tmp_path / "t.tar", {"fine.txt": b"1", name: b"2"}, "w")
    if name.startswith("/"):  # the data filter makes it relative, which is safe too
        download.unpack(tar, target)
        assert (target / name.lstrip("/")).is_file()
    else:
        with pytest.raises(download.DownloadError, match="refused"):
            download.unpack(tar, target)
        assert list(target.iterdir()) == []
    assert not list(tmp_path.rglob("escape.txt"))


def test_link_out_of_the_archive_is_refused(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    with tarfile.open(tmp_path / "l.tar", "w") as packed:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../outside"
        packed.addfile(link)
    with pytest.raises(download.DownloadError, match="refused"):
        download.unpack(tmp_path / "l.tar", target)
    assert list(target.iterdir()) == []


def test_damaged_archive_leaves_nothing_and_is_removed(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    whole = make_tar(tmp_path / "a.tar.gz", {f"train/{n}.bin": bytes(BODY) for n in range(3)})
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(download.DownloadError, match="fetch it again"):
        download.unpack(whole, target)
    assert list(target.iterdir()) == []
    assert not whole.exists()


def test_interrupted_unpack_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "set"
    (target / ".unpacking-a.tar.gz" / "train").mkdir(parents=True)  # as a killed process leaves it
    archive = make_tar(tmp_path / "a.tar.gz", {"train/x.txt": b"1"})

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download.unpack(archive, target)
    assert list(target.iterdir()) == []
    download.unpack(archive, target)
    assert leftovers(target) == ["train"]


def test_archive_without_the_expected_folder(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", {"train/x.txt": b"1"})
    with pytest.raises(download.DownloadError, match="no folder CamVid"):
        download.unpack(archive, tmp_path / "set", "CamVid")


def serve_set(server, tmp_path, monkeypatch, members, **file):
    """Put a set of two training pictures in the place of the registry; the server's archive holds `members`."""
    server.body = make_tar(tmp_path / "x.tar.gz", members).read_bytes()
    server.url = server.url.replace("file.bin", "mini.tar.gz")
    table = {
        "title": "Mini", "homepage": "http://localhost/", "license": "none", "cite": "x", "access": "open",
        "folders": [
            {"path": "train", "pattern": "*.txt", "count": 2},
            {"path": "marks", "pattern": "*.txt", "count": 2, "ids": "m{}"},
        ],
        "files": [{"url": server.url, "inside": "top", "makes": ["train", "marks"], **file}],
    }  # fmt: skip
    mini = registry.parse("mini", table)
    monkeypatch.setattr(registry, "load", lambda: {"mini": mini})
    return tmp_path / "data" / "mini"


WHOLE = {f"top/{name}.txt": b"1" for name in ("train/1", "train/2", "marks/m1", "marks/m2")}


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (["train/1"], "mini.tar.gz is not whole: train: 1 files, 2 expected; nothing of it was kept"),
        (["marks/m1"], "marks: 1 files, 2 expected, missing m1"),
        (["train/1", "train/2", "marks/m2"], "train: 0 files, 2 expected; marks: 1 files, 2 expected, missing m2"),
    ],
)
def test_an_archive_that_lacks_files_changes_nothing(server, tmp_path, monkeypatch, lost, says):
    members = {name: data for name, data in WHOLE.items() if name[4:-4] not in lost}
    root = serve_set(server, tmp_path, monkeypatch, members)
    (tmp_path / "data").mkdir()
    for _ in range(2):  # nor is the archive kept to fail again
        with pytest.raises(registry.DataError, match=r"mini: .*http://localhost/") as caught:
            registry.fetch("mini", root, progress=False)
        assert says in str(caught.value) and not root.exists()
    assert len(server.requests) == 2
    server.body = make_tar(tmp_path / "y.tar.gz", WHOLE).read_bytes()
    assert registry.verify("mini", registry.fetch("mini", root, progress=False)).ok


def test_an_archive_with_the_right_hash_is_not_fetched_again(server, tmp_path, monkeypatch):
    members = dict(list(WHOLE.items())[1:])
    body = make_tar(tmp_path / "x.tar.gz", members).read_bytes()
    root = serve_set(server, tmp_path, monkeypatch, members, hash="sha256:" + hashlib.sha256(body).hexdigest())
    server.body = body
    for _ in range(2):
        with pytest.raises(registry.DataError, match="train: 1 files, 2 expected"):
            registry.fetch("mini", root, progress=False)
    assert len(server.requests) == 1 and leftovers(root) == ["downloads"]


def test_surplus_files_are_named_without_a_download(server, tmp_path, monkeypatch):
    root = serve_set(server, tmp_path, monkeypatch, WHOLE)
    registry.fetch("mini", root, progress=False)
    (root / "train" / "3.txt").write_text("1")
    with pytest.raises(registry.DataError, match=r"mini: train: 3 files, 2 expected in .*; remove what does"):
        registry.fetch("mini", root, progress=False)
    assert len(server.requests) == 1


def test_fetch_whole_way(server, tmp_path, monkeypatch):
    server.body = make_tar(tmp_path / "x.tar.gz", {"top/train/1.txt": b"1", "top/train/2.txt": b"2"}).read_bytes()
    server.url = server.url.replace("file.bin", "mini.tar.gz")
    mini = registry.parse(
        "mini",
        {
            "title": "Mini", "homepage": "http://localhost/", "license": "none", "cite": "x", "access": "open",
            "folders": [{"path": "train", "pattern": "*.txt", "count": 2}],
            "files": [{"url": server.url, "bytes": len(server.body), "inside": "top", "makes": ["train"]}],
        },
    )  # fmt: skip
    monkeypatch.setattr(registry, "load", lambda: {"mini": mini})
    monkeypatch.setenv("CTLIB_DATA", str(tmp_path / "data"))
    assert not registry.verify("mini").ok
    assert registry.fetch("mini", progress=False) == tmp_path / "data" / "mini"
    assert registry.verify("mini").ok
    assert leftovers(tmp_path / "data" / "mini") == ["train"]
    registry.fetch("mini", progress=False)
    assert len(server.requests) == 1
    server.status = 404
    (tmp_path / "data" / "mini" / "train" / "1.txt").unlink()
    with pytest.raises(registry.DataError, match=r"mini: .*answered 404.*http://localhost/"):
        registry.fetch("mini", progress=False)
