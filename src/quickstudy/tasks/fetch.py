"""Finding data: the user's folder, then the cache, then the official home, with a checksum."""

import hashlib
import http.client
import logging
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from quickstudy.artefacts import forget_abandoned
from quickstudy.errors import DataError, DataNotFoundError

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with (done, total), in bytes for a download and in pictures for decoding; total is 0 where it is unknown."""

_CHUNK = 1 << 20  # bytes read at a time
_TIMEOUT = 30.0  # seconds without an answer


def cache_folder() -> Path:
    """Where quickstudy keeps what it downloads or renders; it is safe to delete, and need not exist yet.

    `$QUICKSTUDY_CACHE`, else `$XDG_CACHE_HOME/quickstudy`, else `~/.cache/quickstudy`.
    """
    if own := os.environ.get("QUICKSTUDY_CACHE"):
        return Path(own).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache") / "quickstudy"


def data_folder() -> Path | None:
    """The user's own folder of data sets, `$QUICKSTUDY_DATA`; None where that is not set."""
    own = os.environ.get("QUICKSTUDY_DATA")
    return Path(own).expanduser() if own else None


def locate(relative: str) -> Path | None:
    """The file or folder `relative` in `$QUICKSTUDY_DATA`, else in the cache; None where it is in neither."""
    for folder in (data_folder(), cache_folder()):
        if folder is not None and (folder / relative).exists():
            return folder / relative
    return None


def find(relative: str, *, url: str, checksum: str, on_progress: OnProgress | None = None) -> Path:
    """A data file: the user's, the cached one, or one downloaded now into the cache.

    Args:
        relative: Where it lies within `$QUICKSTUDY_DATA` or the cache, as `omniglot/images_background.zip`.
        url: Its official home.
        checksum: `sha256:` or `md5:` and the digest in hexadecimal. It is checked wherever the file comes from.
        on_progress: Called with the bytes done and the bytes in all while downloading.

    Raises:
        DataNotFoundError: Where it is nowhere and cannot be downloaded. The message says what to put where.
        DataError: Where the file is not the one that the checksum belongs to, or cannot be written.
    """
    found = locate(relative)
    if found is None:
        target = cache_folder() / relative
        logger.info("downloading %s to %s", url, target)
        with atomically(target) as part:
            _download(url, part, relative, on_progress)
            _verify(part, checksum, f"What {url} sent", "Try again; behind a proxy, download it by hand")
        return target
    _verify(found, checksum, str(found), "Delete it, and it is downloaded again")
    return found


def remember(relative: str, build: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a cached `.npz` file, or of `build()`, which are then cached.

    A damaged file is built again. A cache that cannot be written to is logged and costs time, nothing else.
    """
    path = cache_folder() / relative
    if path.is_file():
        try:
            return load_arrays(path)
        except DataError as error:
            logger.warning("%s; building it again", error)
    arrays = dict(build())
    try:
        with atomically(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except DataError as error:
        logger.warning("%s; the next run prepares the data again", error)
    return arrays


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, of which none is unpickled.

    Raises:
        DataError: Where the file cannot be read as one.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an npz file ({error}). Delete or replace it.") from error


@contextmanager
def atomically(target: Path) -> Iterator[Path]:
    """A file beside `target` that takes its place when the block ends well, and goes when it does not.

    Raises:
        DataError: Where the folder or the file cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        forget_abandoned(target)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise _unwritable(target, error) from error
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)  # a cache may be shared
        part.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _unwritable(target: Path, error: OSError) -> DataError:
    return DataError(
        f"{target} cannot be written ({error.strerror or error}). "
        "Make room, or let QUICKSTUDY_CACHE name another folder."
    )


def _download(url: str, part: Path, relative: str, on_progress: OnProgress | None) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "quickstudy"})
    with part.open("wb") as file:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                total, done = int(answer.headers.get("Content-Length") or 0), 0
                while chunk := answer.read(_CHUNK):
                    _write(file.write, chunk, part)
                    done += len(chunk)
                    if on_progress is not None:
                        on_progress(done, total)
        except urllib.error.HTTPError as error:
            with error:  # it holds the connection
                raise _not_found(url, relative, error) from error
        except (OSError, http.client.HTTPException) as error:  # urllib.error.URLError is an OSError
            raise _not_found(url, relative, getattr(error, "reason", None) or error) from error
    if done < total:
        raise _not_found(url, relative, f"the connection closed after {done:,} of {total:,} bytes")


def _write(write: Callable[[bytes], int], chunk: bytes, part: Path) -> None:
    try:
        write(chunk)
    except OSError as error:  # here, lest a full disk be taken for a lost connection
        raise _unwritable(part, error) from error


def _not_found(url: str, relative: str, reason: object) -> DataNotFoundError:
    own = data_folder()
    searched = "QUICKSTUDY_DATA is not set" if own is None else f"not in {own}, which QUICKSTUDY_DATA names"
    return DataNotFoundError(
        f"{relative} is not on this machine ({searched}; not in the cache {cache_folder()}), and downloading {url} "
        f"failed: {reason}. Connect and try again, or download it elsewhere and put it at {cache_folder() / relative}."
    )


def _verify(path: Path, checksum: str, what: str, remedy: str) -> None:
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if digest != expected:
        raise DataError(f"{what} is not the official file: its {algorithm} is {digest}, not {expected}. {remedy}.")
