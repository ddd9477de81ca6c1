"""``Checkpoint``: a file from which a fit goes on as if it had never been interrupted."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from pyro_klmodes.errors import InvalidArgument

__all__ = ["Checkpoint"]

_MAGIC = b"pyro_klmodes checkpoint 1\n"
_DIGEST = 64
_EVERY_STEPS = 100


class Checkpoint:
    """Where, and how often, a fit writes down all it needs to go on.

    ``fit(..., checkpoint=Checkpoint(path))`` begins anew if there is no file, and otherwise goes on
    from it: the parameters and losses at the end are bitwise those of a fit that was not
    interrupted, on one kind of processor with one version of torch. A fit that has reached its
    ``steps`` or ``epochs`` returns at once, and goes on if it is asked for more of them; one that a
    callback has ended stays ended as long as that callback is among those given.

    The file holds parameters with their constraints, buffers of modules, states of optimizers,
    schedules, loss and callbacks, all losses, the place in the batches, and the states of torch's,
    numpy's and Python's generators and of a loader's own. It holds no code and none is run when it
    is read. What batches remember beyond that must be in a ``state_dict()`` of theirs; a mid-epoch
    place is found again by running through the epoch's first batches.

    A fit is recognised by the names of model, guide and parameters, their shapes, the loss, the
    optimizer with its settings, the seed and the number of batches. The data are not looked at:
    whether they are still the same is for the caller to see to.

    A file is replaced only by a complete new one (written beside it, flushed to disk, renamed), so
    that a process that is killed at any moment leaves a good one behind. Two processes must not
    write to one path at the same time.

    Args:
        path: of the file; its folder must exist.
        every: how often to write: in epochs if ``fit`` was given ``epochs``, and in steps if not.
            By default after each epoch, or after every 100 steps. The end of a fit is always
            written.
        resume: whether to go on from a file that exists. False begins anew and replaces it.

    Raises:
        InvalidArgument: for a folder that does not exist or cannot be written to; by ``fit`` for a
            file that is damaged, or that another model, guide, loss, optimizer or seed has written,
            naming what differs. Such a file is left as it is.

    Example:
        >>> import tempfile, pyro, pyro.distributions as dist
        >>> from pathlib import Path
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_klmodes import ReverseKL, fit
        >>> from pyro_klmodes.inference import Checkpoint
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for steps in (20, 50):
        ...         checkpoint = Checkpoint(Path(folder) / "fit.ckpt")
        ...         result = fit(model, AutoNormal(model), ReverseKL(4), steps=steps,
        ...                      checkpoint=checkpoint, progress=False)
        >>> result.steps
        50
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: int | None = None, resume: bool = True
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise InvalidArgument(f"path={path!r} must be the path of a file.")
        if every is not None and (
            isinstance(every, bool) or not isinstance(every, int) or every < 1
        ):
            raise InvalidArgument(f"every={every!r} must be a positive integer, or None.")
        self.path = Path(path)
        # the folder may be changed during the fit, and a link stays one
        self._file = self.path.resolve()
        folder = self._file.parent
        if self._file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidArgument(
                f"path='{self.path}': a checkpoint is a file in a folder that exists and can be "
                "written to."
            )
        self.every = every
        self.resume = resume

    def due(self, count: int, *, in_epochs: bool) -> bool:
        """Whether to write after so many epochs or steps."""
        every = self.every or (1 if in_epochs else _EVERY_STEPS)
        return count % every == 0

    def steps_until_due(self, step: int) -> int:
        """How many steps may be taken until it is due again, where steps are what counts."""
        every = self.every or _EVERY_STEPS
        return every - step % every

    def read(self) -> dict[str, Any] | None:
        """The state to go on from; None to begin anew.

        Raises:
            InvalidArgument: naming the path, if the file is none of ours or damaged.
        """
        if not self.resume:
            return None
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidArgument(f"checkpoint '{self.path}' cannot be read: {error}") from error
        if not data.startswith(_MAGIC):
            raise self.problem("it is not a checkpoint of this package, or its beginning is lost")
        digest, payload = data[len(_MAGIC) :][:_DIGEST], data[len(_MAGIC) + _DIGEST :]
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            raise self.problem("it is truncated or damaged (its checksum does not match)")
        try:
            return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise self.problem("it holds more than numbers, strings and tensors") from error

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file by one with this state, or leave it as it is.

        Raises:
            InvalidArgument: naming what cannot be written without code.
            OSError: if there is no room, for instance.
        """
        _check_plain(state, "")
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        payload = buffer.getbuffer()
        partial = self._file.with_name(f".{self._file.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(_MAGIC)
                file.write(hashlib.sha256(payload).hexdigest().encode())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _flush_folder(self._file.parent)

    def problem(self, what: str) -> InvalidArgument:
        """An error about this file, which says what to do."""
        return InvalidArgument(
            f"checkpoint '{self.path}': {what}. Nothing was overwritten. Give another path, remove "
            "the file, or pass Checkpoint(path, resume=False) to begin anew."
        )


def _flush_folder(folder: Path) -> None:
    """Make a renaming last; not every system can open a folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_plain(value: Any, where: str) -> None:
    """Refuse at writing what could not be read without running code."""
    # exact types: a subclass has a name that reading would have to import
    if value is None or type(value) in (bool, int, float, complex, str, Tensor, Parameter):
        return
    if type(value) in (dict, OrderedDict, Counter):
        for name, part in value.items():
            _check_plain(part, f"{where}[{name!r}]")
        return
    if type(value) in (list, tuple, set):
        for number, part in enumerate(value):
            _check_plain(part, f"{where}[{number}]")
        return
    raise InvalidArgument(
        f"the state to save has an object of type {type(value).__name__} at {where}. A checkpoint "
        "holds numbers, strings, tensors, and lists and dicts of them; make a state_dict of those."
    )
