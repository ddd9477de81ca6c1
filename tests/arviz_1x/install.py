"""Makes a virtual environment with ArviZ 1.x: python tests/arviz_1x/install.py FOLDER.

ArviZ 1.x needs Python 3.12 or newer, and the rest of the tests run on 3.11 too. Where no such
interpreter exists, nothing is made, and the exit status says so.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
OLDEST = (3, 12)
NAMES = ("python3.13", "python3.12", "python3.14", "python3")
# what the layer imports, and what its tests need
PACKAGES = ("arviz", "h5netcdf", "h5py", "matplotlib", "pytest", "scipy", "zarr")


def candidates():
    """Interpreters by name, then all of pyenv, whose shims answer for the active version only."""
    yield sys.executable
    yield from filter(None, map(shutil.which, NAMES))
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return
    listed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True)
    for version in sorted(listed.stdout.split(), reverse=True):
        found = subprocess.run(
            [pyenv, "which", "python"],
            env={**os.environ, "PYENV_VERSION": version},
            capture_output=True,
            text=True,
        )
        if found.returncode == 0:
            yield found.stdout.strip()


def is_new_enough(python):
    check = f"import sys, venv; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.run([python, "-c", check], capture_output=True).returncode == 0


def main(folder):
    python = next(filter(is_new_enough, candidates()), None)
    if python is None:
        sys.exit("there is no Python 3.12 or newer here, so the tests with ArviZ 1.x are skipped")
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [Path(folder) / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    constraints = REPOSITORY / "constraints-arviz1.txt"
    installed = subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", "-c", constraints, *PACKAGES]
    )
    if installed.returncode:
        shutil.rmtree(folder)  # half an environment would look like a whole one
        sys.exit("ArviZ 1.x could not be installed, so its tests are skipped")


if __name__ == "__main__":
    main(sys.argv[1])
