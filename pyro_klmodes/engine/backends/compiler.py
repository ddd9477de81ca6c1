"""Which C++ compiler there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

__all__ = ["find_compiler", "why_no_compiler"]

_ANSWERS_WITHIN = 20.0  # seconds


def why_no_compiler() -> str | None:
    """What is missing for compiling C++, or None if nothing is.

    ``CXX`` names the compiler; without it, g++ and clang++ are looked for. It is asked for its
    version, and nothing is compiled.

    Example:
        >>> import os
        >>> from unittest import mock
        >>> with mock.patch.dict(os.environ, CXX="no-such-compiler"):
        ...     why_no_compiler()
        "CXX is 'no-such-compiler', which is not there"
    """
    _, reason = find_compiler()
    return reason


def find_compiler() -> tuple[str, str | None]:
    """The compiler's command, and what is wrong with it if anything is."""
    wanted = os.environ.get("CXX")
    names = [wanted] if wanted else _usual_names()
    found = next((name for name in names if shutil.which(name)), None)
    if found is None:
        if wanted:
            return "", f"CXX is '{wanted}', which is not there"
        return "", f"there is no {' or '.join(names)} on the PATH, and CXX is not set"
    try:
        subprocess.run(
            [found, "--version"], capture_output=True, check=True, timeout=_ANSWERS_WITHIN
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "", f"the C++ compiler does not work: {error}"
    return found, None


def _usual_names() -> list[str]:
    names = ["clang++", "g++"] if sys.platform == "darwin" else ["g++", "clang++"]
    return ["cl"] if sys.platform == "win32" else names
