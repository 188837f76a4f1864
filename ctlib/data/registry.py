"""The registry of data sets (`data/registry.toml`): what there is, whether it is whole, and how to get it."""

import importlib.util
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctlib import paths
from ctlib.data import download

REGISTRY = paths.ROOT / "data" / "registry.toml"
IMAGES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


class DataError(RuntimeError):
    """A data set is missing or broken. The message names it, says what is wrong and what to do."""


@dataclass(frozen=True)
class Folder:
    """What one folder of a data set must hold: `count` files that match `pattern` below `path`."""

    path: str
    pattern: str
    count: int
    ids: str = ""  # format of the ids that the files' names begin with, 1 to count
    same_as: str = ""  # folder whose file stems this one must repeat
    optional: bool = False

    def files(self, root: Path) -> list[Path]:
        return sorted(path for path in (root / self.path).glob(self.pattern) if path.is_file())


@dataclass(frozen=True)
class File:
    """One file to download; `hash` "" and `bytes` 0 mean unknown. See the head of `data/registry.toml`."""

    url: str
    bytes: int = 0
    hash: str = ""
    inside: str = ""
    makes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """One table of the registry."""

    name: str
    title: str
    homepage: str
    license: str
    cite: str
    access: str
    size: str = ""
    remedy: str = ""
    notes: tuple[str, ...] = ()
    folders: tuple[Folder, ...] = ()
    files: tuple[File, ...] = ()
    items: tuple[dict, ...] = ()  # photographs of installed packages

    def root(self, root: str | Path | None = None) -> Path:
        """The data set's own folder: `root`, or its place in `ctlib.paths.data_dir()`."""
        return Path(root) if root is not None else paths.data_dir() / self.name

    def how_to_get(self) -> str:
        """What to do if it is missing, as the end of a sentence."""
        if self.access == "open":
            return f"run `ctlib data fetch {self.name}`, or set CTLIB_DATA to the folder that holds {self.name}/"
        if self.access == "package":
            return "reinstall the package, e.g. pip install --force-reinstall scikit-image scikit-learn matplotlib"
        return self.remedy

    def error(self, problem: str) -> DataError:
        return DataError(f"{self.name}: {problem}; {self.how_to_get()}")


@dataclass(frozen=True)
class Report:
    """What `verify` found: `problems` is empty if all is well; `print` shows it."""

    name: str
    root: Path
    checked: int
    problems: tuple[str, ...]
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: OK, {self.checked:,} files in {self.root}"
        lines = [f"{self.name}: {len(self.problems)} problem(s) in {self.root}"]
        return "\n".join([*lines, *(f"  - {problem}" for problem in self.problems), f"  remedy: {self.remedy}"])


@cache
def load() -> dict[str, Dataset]:
    """Return every data set of `data/registry.toml` by name.

    Raises:
        DataError: the registry is missing or not valid TOML.
    """
    try:
        tables = tomllib.loads(REGISTRY.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"registry: cannot read {REGISTRY} ({error}); restore it with git checkout") from error
    return {name: parse(name, table) for name, table in tables.items()}


def parse(name: str, table: dict) -> Dataset:
    """Make a `Dataset` from one table of the registry."""
    table = dict(table)
    folders = tuple(Folder(**folder) for folder in table.pop("folders", ()))
    files = tuple(File(**{**file, "makes": tuple(file.get("makes", ()))}) for file in table.pop("files", ()))
    notes, items = tuple(table.pop("notes", ())), tuple(table.pop("items", ()))
    return Dataset(name=name, folders=folders, files=files, notes=notes, items=items, **table)


def get(name: str) -> Dataset:
    """Return one data set.

    Raises:
        DataError: unknown name; lists the known ones.
    """
    if name not in load():
        raise DataError(f"{name}: no such data set; known are {', '.join(load())}")
    return load()[name]


def verify(
    name: str, root: str | Path | None = None, *, parts: Iterable[str] | None = None, sample: int | None = 32
) -> Report:
    """Compare a folder with the registry: what is missing, what is broken.

    Args:
        name: data set.
        root: its own folder; default: its place in the data folder.
        parts: only these folders, e.g. `["val2017", "annotations"]`.
        sample: how many pictures of each folder are decoded, spread evenly; `None` decodes all. Every file is looked
            at for its size in any case.

    Returns:
        A report, also for a data set that is not there at all.

    Taught in: notebooks/01_prepare_data
    """
    dataset = get(name)
    if dataset.access == "package":
        return _verify_packages(dataset)
    base, problems, checked = dataset.root(root), [], 0
    for folder in _parts(dataset, parts):
        if not (base / folder.path).is_dir():
            if not folder.optional:
                problems.append(f"{folder.path}: folder missing, {folder.count:,} files expected")
            continue
        files = folder.files(base)
        if folder.optional and not files:
            continue
        problems += _count(folder, files, base) + _broken(files, base, sample)
        checked += len(files)
    return Report(name, base, checked, tuple(problems), dataset.how_to_get())


def _parts(dataset: Dataset, parts: Iterable[str] | None) -> list[Folder]:
    wanted = None if parts is None else set(parts)
    known = {folder.path for folder in dataset.folders}
    if wanted is not None and not wanted <= known:
        unknown = ", ".join(sorted(wanted - known))
        raise DataError(f"{dataset.name}: no part {unknown}; known are {', '.join(sorted(known))}")
    return [folder for folder in dataset.folders if wanted is None or folder.path in wanted]


def _missing(folder: Folder, files: list[Path], base: Path) -> list[str]:
    """Ids or file stems that the registry wants and `files` lack."""
    if folder.ids:
        present = {path.name[: len(folder.ids.format(1))] for path in files}
        return [key for n in range(1, folder.count + 1) if (key := folder.ids.format(n)) not in present]
    if folder.same_as:
        stems = {path.stem for path in files}
        others = sorted((base / folder.same_as).glob("*.*"))
        return [path.stem for path in others if path.suffix.lower() in IMAGES and path.stem not in stems]
    return []


def _count(folder: Folder, files: list[Path], base: Path) -> list[str]:
    """Say how the number of files and their names differ from what the registry expects."""
    missing = _missing(folder, files, base)
    if len(files) == folder.count and not missing:
        return []
    where = folder.path if folder.path != "." else folder.pattern
    text = f"{where}: {len(files):,} files, {folder.count:,} expected"
    if missing:
        text += f", missing {', '.join(missing[:5])}" + (f" and {len(missing) - 5:,} more" if len(missing) > 5 else "")
    return [text]


def _broken(files: list[Path], base: Path, sample: int | None) -> list[str]:
    """Name empty files, and pictures that do not decode."""
    from ctlib import images

    sizes = [path.stat().st_size for path in files]
    empty = [path for path, size in zip(files, sizes, strict=True) if not size]
    problems = [f"{path.relative_to(base)}: 0 bytes" for path in empty[:10]]
    if len(empty) > 10:
        problems.append(f"{len(empty) - 10:,} more files have 0 bytes")
    pictures = [path for path, size in zip(files, sizes, strict=True) if size and path.suffix.lower() in IMAGES]
    if sample is not None and len(pictures) > sample:
        pictures = [pictures[i * len(pictures) // sample] for i in range(sample)]
    for path in pictures:
        try:
            images.read(path)
        except images.ImageReadError as error:
            problems.append(f"{path.relative_to(base)}: unreadable ({str(error).removeprefix(f'{path}: ')})")
    return problems


def package_file(item: dict) -> Path:
    """Path of one photograph of the `photos` table inside its installed package (which need not be importable).

    Raises:
        DataError: the package or the file is not there.
    """
    spec = importlib.util.find_spec(item["package"])
    places = spec.submodule_search_locations if spec else None
    path = Path(places[0]) / item["file"] if places else None
    if path is None or not path.is_file():
        raise get("photos").error(f"{item['name']}: package {item['package']} has no file {item['file']}")
    return path


def _verify_packages(dataset: Dataset) -> Report:
    problems, root = [], Path("the installed packages")
    for item in dataset.items:
        try:
            problems += _broken([path := package_file(item)], path.parent, None)
        except DataError as error:
            problems.append(str(error).removeprefix(f"{dataset.name}: "))
    return Report(dataset.name, root, len(dataset.items), tuple(problems), dataset.how_to_get())


def fetch(
    name: str, root: str | Path | None = None, progress: bool = True, *, parts: Iterable[str] | None = None
) -> Path:
    """Download a data set and unpack it; what is complete already is left alone, what broke off goes on.

    What an archive holds is counted before it moves into place: one that lacks files changes nothing.

    Args:
        name: data set with `access = "open"`, or `"photos"`, for which there is nothing to download.
        root: its own folder; default: its place in the data folder.
        progress: whether to draw a bar on standard error.
        parts: only the files that make these folders, e.g. `["val2017", "annotations"]`.

    Returns:
        The data set's folder; for `photos` the folder that the installed packages share.

    Raises:
        DataError: no network, wrong checksum, full disk, files missing from an archive or from a folder, or a set that
            cannot be downloaded without a login; names what is wrong and the remedy. Nothing half written stays.

    Taught in: notebooks/01_prepare_data
    """
    dataset = get(name)
    base = dataset.root(root)
    if dataset.access == "package":
        return Path(os.path.commonpath([package_file(item).parent for item in dataset.items]))
    if dataset.access != "open":
        raise dataset.error("cannot be downloaded by a command")
    wanted = _parts(dataset, parts)
    for file in dataset.files:
        folders = [folder for folder in wanted if folder.path in file.makes]
        if all(_enough(folder, base) for folder in folders):
            continue
        try:
            _obtain(file, folders, base, progress)
        except download.DownloadError as error:
            raise DataError(f"{name}: {error}; or get it from {dataset.homepage} and place it in {base}") from error
        finally:
            for folder in (base / "downloads", base):  # an attempt that brought nothing leaves nothing
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    if problems := _shortfall(wanted, base):
        raise DataError(f"{name}: {problems} in {base}; remove what does not belong there and run the command again")
    return base


def _enough(folder: Folder, base: Path) -> bool:
    """Whether a download could add nothing to this folder."""
    files = folder.files(base)
    return len(files) >= folder.count and not _missing(folder, files, base)


def _shortfall(folders: Iterable[Folder], base: Path) -> str:
    """How the folders below `base` differ from the registry, in one line; "" if they do not."""
    needed = [folder for folder in folders if not folder.optional]
    return "; ".join(problem for folder in needed for problem in _count(folder, folder.files(base), base))


def _obtain(file: File, folders: list[Folder], base: Path, progress: bool) -> None:
    """Download one file and put what it holds in place, if that is everything `folders` need."""
    archive = download.retrieve(file.url, base / "downloads", hash=file.hash, size=file.bytes, progress=progress)
    if not archive.name.endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        archive.replace(base / archive.name)
        return

    def complete(unpacked: Path) -> None:
        if problems := _shortfall(folders, unpacked):
            if not file.hash:  # nothing vouches for these bytes, so the next attempt shall fetch them again
                archive.unlink()
            raise download.DownloadError(f"{archive.name} is not whole: {problems}; nothing of it was kept")

    download.unpack(archive, base, file.inside, check=complete)
    archive.unlink()
