"""The process that compiles one graph: run as a script, never imported."""

import pickle
import sys
from pathlib import Path
from types import ModuleType


def main() -> None:
    """Read a task, do it, and write what came of it."""
    # The back ends need torch and a few files of this package; the rest takes seconds to import.
    root = Path(__file__).parents[2]
    for name, folder in (("pyro_klmodes", root), ("pyro_klmodes.engine", root / "engine")):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    task = pickle.load(sys.stdin.buffer)
    from pyro_klmodes.engine.backends.apart import work

    pickle.dump(work(task), sys.stdout.buffer)


if __name__ == "__main__":
    main()
