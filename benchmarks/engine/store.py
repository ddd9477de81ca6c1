"""Results in a JSON file."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["STORED", "OtherSettings", "add", "header", "load"]

STORED = Path(__file__).with_name("stored.json")
PACKAGES = ("torch", "pyro-ppl", "jax", "numpyro", "funsor")

Results = dict[str, Any]


class OtherSettings(Exception):
    """A file holds results that were measured in another way."""


def header(*, rounds: int, seconds: float) -> dict[str, Any]:
    """Versions and settings, which all results in a file have in common."""
    modules = {"pyro-ppl": "pyro"}
    installed = [name for name in PACKAGES if find_spec(modules.get(name, name))]
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in installed},
        "processor": _processor(),
        "settings": {
            "rounds": rounds,
            "processor seconds per turn": seconds,
            "threads": 1,
            "dtype": "float32",
        },
    }


def add(path: Path, head: dict[str, Any], part: str, label: str, result: Any) -> None:
    """Put one result into a file, in place of an older one.

    Raises:
        OtherSettings: if the file was measured with other versions or settings.
    """
    results = load(path) if path.exists() else head | {"cells": {}, "whole": {}}
    different = [key for key, value in head.items() if results[key] != value]
    if different:
        raise OtherSettings(
            f"{path} was measured with other {' and '.join(different)}: {results[different[0]]} "
            f"there, {head[different[0]]} here. Delete it, or write to another file."
        )
    results[part][label] = result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(results), encoding="utf-8")


def load(path: Path) -> Results:
    """All results of a file: what `header` returns, ``cells`` by label, and ``whole`` runs."""
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(results: Results) -> str:
    """One line per result, so that a change of one changes one line."""
    parts = []
    for key, value in results.items():
        if key in ("cells", "whole"):
            rows = [f"{json.dumps(label)}: {json.dumps(row)}" for label, row in value.items()]
            text = "{\n" + ",\n".join(rows) + "\n}" if rows else "{}"
        else:
            text = json.dumps(value)
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
