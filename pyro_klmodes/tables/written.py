"""Which files of a folder are ours, so that those of an earlier run can go and no others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MANIFEST", "remove_earlier", "written"]

#: names of the files that were written here, each with the digest of what was written
MANIFEST = ".klmodes-written.json"


def written(folder: Path, names: Iterable[str]) -> None:
    """Remember that these files of the folder were written just now."""
    known = _known(folder) | {name: _digest(folder / name) for name in names}
    text = json.dumps(known, indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def remove_earlier(folder: Path) -> None:
    """Remove the files that an earlier run wrote here and nobody has changed since.

    Whatever is not in the list of what was written, or is not any more what was written, stays.
    """
    for name, digest in _known(folder).items():
        path = folder / name
        if path.is_file() and not path.is_symlink() and _digest(path) == digest:
            path.unlink()
    (folder / MANIFEST).unlink(missing_ok=True)


def _known(folder: Path) -> dict[str, str]:
    """What was written here; nothing where the list is not there or is not one of ours."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    # A name and no path: nothing outside of the folder is ever touched.
    return {
        name: digest
        for name, digest in found.items()
        if isinstance(digest, str) and Path(name).name == name
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
