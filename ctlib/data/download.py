"""Downloads that resume and archives that unpack whole or not at all."""

import gzip
import logging
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath


class DownloadError(OSError):
    """A download or an archive failed; the message names the address or the file and says what to do."""


class Resumable:
    """A pooch downloader that goes on where an earlier attempt broke off.

    pooch writes to a temporary file that it deletes on failure, so the bytes are kept beside it in `part` and move to
    pooch's file only when complete. HTTP `Range` asks for the rest; `If-Range` makes the server send the whole file
    if it changed meanwhile. A server that does not know ranges answers 200, and the download starts over. So it does
    where nothing could tell two versions apart, neither the server's version mark nor a known hash.

    Args:
        part: file that keeps the bytes so far.
        size: expected size in bytes, 0 if unknown.
        progress: whether to draw a bar on standard error.
        hashed: whether the hash is known, so that bytes of two versions would be noticed in the end.
        timeout: seconds to wait for a connection, and for each read.
        retries: attempts in a row that may bring no byte before giving up.
    """

    def __init__(
        self,
        part: Path,
        size: int = 0,
        progress: bool = True,
        hashed: bool = False,
        timeout: float = 20.0,
        retries: int = 2,
    ):
        self.part, self.size, self.progress, self.hashed = Path(part), size, progress, hashed
        self.timeout, self.retries = timeout, retries
        self.tag = self.part.with_name(self.part.name + ".tag")  # the server's version mark of the bytes in `part`

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        import requests

        barren = 0
        while True:
            before = self._have()
            try:
                self._attempt(url)
                break
            except requests.RequestException as error:
                if isinstance(error, requests.HTTPError):
                    raise DownloadError(f"{url}: the server answered {error.response.status_code}") from error
                barren = 0 if self._have() > before else barren + 1
                if barren >= self.retries:
                    had, kind = self._have(), type(error).__name__
                    self._drop_unmarked()
                    have = self._have()
                    reason = f"the connection broke off ({kind})" if had else f"no connection ({kind})"
                    again = f", it resumes at {have:,} bytes" if have else ""
                    raise DownloadError(
                        f"{url}: {reason}; check the network and run the command again{again}"
                    ) from error
                time.sleep(0.2 * (barren + 1))
        found = self._have()
        if self.size and found != self.size:
            self._forget()
            raise DownloadError(f"{url}: {found:,} bytes came, {self.size:,} were expected; the file has changed")
        os.replace(self.part, output_file)
        self.tag.unlink(missing_ok=True)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _mark(self) -> str:
        return self.tag.read_text() if self.tag.exists() else ""

    def _drop_unmarked(self) -> None:
        """Forget bytes to which those of another version could be joined unnoticed."""
        if not (self.hashed or self._mark()):
            self._forget()

    def _attempt(self, url: str) -> None:
        import requests
        from tqdm import tqdm

        self._drop_unmarked()
        have, kept = self._have(), self._mark()
        headers = {"Accept-Encoding": "identity"}  # the hash is of the bytes as they lie on the server
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": kept} if kept else {})
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            mark = _version(response.headers)
            if response.status_code in (206, 416) and kept and mark and mark != kept:  # a server deaf to If-Range
                self._forget()
                raise requests.ConnectionError("the file changed on the server, starting over")
            if response.status_code == 416:  # nothing after `have`: complete, or a leftover of another file
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                if total == str(have):
                    return
                self._forget()
                raise requests.ConnectionError("the kept part did not fit, starting over")
            response.raise_for_status()
            resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            if response.status_code == 206 and not resumed:
                self._forget()
                raise requests.ConnectionError("the server sent another range, starting over")
            start = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            self.tag.write_text((mark or kept) if resumed else mark)
            name = PurePosixPath(url).name
            with (
                open(self.part, "ab" if resumed else "wb") as file,
                tqdm(
                    desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=not self.progress
                ) as bar,
            ):
                for chunk in response.iter_content(1 << 14):  # what a cut may cost
                    file.write(chunk)
                    bar.update(len(chunk))
            if total is not None and self._have() < total:
                raise requests.ConnectionError("the body ended early")


def _version(headers: Mapping[str, str]) -> str:
    """The server's mark of a file's version, "" if it gives none."""
    tag = headers.get("ETag", "")  # a weak one may not go with ranges (RFC 9110, 13.1.5)
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def retrieve(url: str, folder: Path, *, hash: str = "", size: int = 0, progress: bool = True) -> Path:
    """Download `url` into `folder`, or return the file that already lies there with the right hash.

    Args:
        url: http or https address; its last part names the file.
        folder: made if missing.
        hash: `"md5:..."` or `"sha256:..."`; `""` accepts any content.
        size: expected bytes, 0 if unknown.

    Raises:
        DownloadError: no network, an HTTP error, a full disk, a wrong size or hash. A partial file is kept only where
            going on makes sense.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it tells how to pin a hash, which readers did not ask for
    name = PurePosixPath(url).name
    downloader = Resumable(folder / f"{name}.part", size, progress, hashed=bool(hash))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free + downloader._have()
        if size > free:
            raise DownloadError(f"{folder}: {name} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room")
        return Path(pooch.retrieve(url, hash or None, fname=name, path=folder, downloader=downloader))
    except ValueError as error:  # pooch found another hash and has removed the file
        raise DownloadError(f"{url}: wrong checksum, expected {hash}; the file was removed, try again") from error
    except DownloadError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise DownloadError(f"{folder / name}: cannot write ({reason}); make room or check the rights") from error


def unpack(archive: Path, folder: Path, inside: str = "", check: Callable[[Path], None] | None = None) -> None:
    """Unpack a tar or zip archive into `folder`, whole or not at all.

    Everything is written to a temporary folder first and then moved by renames; whatever interrupts, nothing half
    written stays in place.

    Args:
        archive: `.zip`, `.tar`, `.tar.gz`, `.tgz`.
        inside: only this folder of the archive, its content becomes `folder`'s.
        check: is called with the folder of what came out before it moves; what it raises leaves `folder` as it was.

    Raises:
        DownloadError: a damaged archive, a member that points outside the folder, or no member under `inside`.
    """
    temporary = folder / f".unpacking-{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    temporary.mkdir(parents=True)
    prefix = inside.strip("/") + "/" if inside else ""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                members = [m for m in packed.infolist() if m.filename.startswith(prefix)]
                for member in members:
                    _refuse_escape(member.filename, stat.S_ISLNK(member.external_attr >> 16))
                packed.extractall(temporary, members)
        else:
            with tarfile.open(archive) as packed:
                members = [m for m in packed.getmembers() if m.name.removeprefix("./").startswith(prefix)]
                packed.extractall(temporary, members, filter="data")
        source = temporary / inside
        if not members or not source.is_dir():
            raise DownloadError(f"{archive.name}: has no folder {inside or '/'}; the archive is not the expected one")
        if check:
            check(source)
        _merge(source, folder)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        archive.unlink(missing_ok=True)
        raise DownloadError(f"{archive.name}: refused or damaged ({error}); it was removed, fetch it again") from error
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"{folder}: cannot unpack {archive.name} ({error.strerror or error}); make room") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_escape(name: str, is_link: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0] or is_link:
        raise zipfile.BadZipFile(f"member {name!r} points outside the folder")


def _merge(source: Path, target: Path) -> None:
    """Move the content of `source` into `target`: a folder that is not there yet moves in one rename."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            os.replace(entry, place)
