"""Folders that nobody but the user can write to: what is loaded from them is machine code."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["cache_folder", "open_private", "private_folder"]

VARIABLE = "PYRO_KLMODES_CACHE"


def cache_folder(cache: Path | None = None) -> Path | None:
    """The folder for compiled programs; None if there is none that is safe and can be written to.

    Args:
        cache: instead of the one that the environment variable ``PYRO_KLMODES_CACHE`` names, or
            ``pyro_klmodes/engine`` in the user's cache folder.
    """
    try:
        return private_folder(cache or _usual_place())
    except RuntimeError:  # the user has no home
        return None


def private_folder(path: Path) -> Path | None:
    """Make a folder for this user alone, or see that it is one; None if it cannot be had."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = path.lstat()
    except OSError:
        return None
    usable = stat.S_ISDIR(about.st_mode) and _is_ours(about) and os.access(path, os.W_OK | os.X_OK)
    return path if usable else None


def open_private(path: Path) -> int | None:
    """Open a file of this user's that nobody else can write to; None if it is anything else."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    about = os.fstat(file)
    if stat.S_ISREG(about.st_mode) and _is_ours(about):
        return file
    os.close(file)
    return None


def _is_ours(about: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):  # Windows: the user's own folders are closed to others
        return True
    others_write = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return about.st_uid == os.geteuid() and not others_write


def _usual_place() -> Path:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME")
    # A relative path there is to be ignored (XDG Base Directory Specification).
    root = Path(caches) if caches and Path(caches).is_absolute() else Path.home() / ".cache"
    return root / "pyro_klmodes" / "engine"
