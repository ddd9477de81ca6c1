"""Compiled libraries on disk, each with a manifest that says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pyro_klmodes.engine.backends.folders import open_private

__all__ = ["find", "keep"]

_FORMAT = 1
_SUFFIXES = (".so", ".json")
_LIMIT = 512 * 2**20  # bytes
_READ = 2**20  # bytes at once
_ABANDONED = 3600.0  # seconds after which nobody is writing a file any more


def find(folder: Path, key: str) -> Path | None:
    """The library kept under a key, or None.

    Manifest and files must be plain files of the user's that nobody else can write to, and the
    files those that the manifest describes; anything else is as if it were not there.
    """
    manifest = _read_manifest(folder / f"{key}.json")
    digests = manifest.get("digests")
    if (manifest.get("format"), manifest.get("key")) != (_FORMAT, key):
        return None
    if not isinstance(digests, dict) or not str(digests.get(".so", "")).isalnum():
        return None
    library = _place(folder, key, str(digests[".so"]))
    for suffix, digest in digests.items():
        if suffix not in _SUFFIXES or _digest(library.with_suffix(suffix)) != digest:
            return None
    with suppress(OSError):
        os.utime(library)  # the least recently used ones go first
    return library


def keep(folder: Path, key: str, library: Path, limit: int = _LIMIT) -> None:
    """Copy a library into the folder; without effect if that is not possible.

    The names of the files have the library's checksum, and the manifest, which refers to it, is put
    in place last: of two processes that keep the same key, each leaves something whole.

    Args:
        folder: of this user's.
        key: what to find it by.
        library: the file; one of the same name that ends in ``.json``, which says what the library
            calls of torch by name, goes with it.
        limit: in bytes for all libraries together; those not used for longest are removed.
    """
    files = [library.with_suffix(s) for s in _SUFFIXES if library.with_suffix(s).exists()]
    try:
        digests = {file.suffix: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        kept = _place(folder, key, digests[".so"])
        for file in files:
            _put(kept.with_suffix(file.suffix), file.read_bytes())
        manifest = {"format": _FORMAT, "key": key, "digests": digests}
        _put(folder / f"{key}.json", json.dumps(manifest).encode())
        _make_room(folder, kept, limit)
    except OSError:  # the disk is full, or somebody removes the folder
        return


def _place(folder: Path, key: str, digest: str) -> Path:
    return folder / f"{key}-{digest[:16]}.so"


def _read_manifest(path: Path) -> dict[str, object]:
    file = open_private(path)
    if file is None:
        return {}
    with open(file, encoding="utf-8") as stream:
        try:
            manifest = json.load(stream)
        except ValueError:  # neither JSON nor text
            return {}
    return manifest if isinstance(manifest, dict) else {}


def _digest(path: Path) -> str | None:
    file = open_private(path)
    if file is None:
        return None
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _put(place: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    file, name = tempfile.mkstemp(dir=place.parent, suffix=".part")  # for this user alone
    try:
        with open(file, "wb") as stream:
            stream.write(content)
        os.replace(name, place)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _make_room(folder: Path, newest: Path, limit: int) -> None:
    libraries = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime)
    size = sum(path.stat().st_size for path in libraries)
    for library in libraries:
        if size > limit and library != newest:
            size -= library.stat().st_size
            key = library.name.partition("-")[0]
            for path in (folder / f"{key}.json", library, library.with_suffix(".json")):
                path.unlink(missing_ok=True)
    now = newest.stat().st_mtime
    for part in folder.glob("*.part"):
        if now - part.stat().st_mtime > _ABANDONED:
            part.unlink(missing_ok=True)
