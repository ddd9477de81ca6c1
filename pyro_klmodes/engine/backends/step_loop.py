"""A function of compiled libraries that takes many steps, without Python in between."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["SOURCE", "StepLoop"]

#: Headers of torch's are included where it is put. A run takes away the handles that it is given;
#: the tensors behind them stay the same from step to step.
SOURCE = """
#include <cstring>

struct KLModesTable { char* rows; char* row; int64_t bytes; };

extern "C" __attribute__((__visibility__("default"))) int32_t pyro_klmodes_steps(
    AOTInductorModelContainerHandle container, AtenTensorHandle* tensors, int64_t count,
    const KLModesTable* read, int64_t reads, const KLModesTable* written, int64_t writes,
    int64_t first, int64_t last) {
  std::vector<AtenTensorHandle> given(count);
  for (int64_t step = first; step < last; ++step) {
    for (int64_t i = 0; i < reads; ++i) {
      std::memcpy(read[i].row, read[i].rows + step * read[i].bytes, read[i].bytes);
    }
    for (int64_t i = 0; i < count; ++i) {
      if (aoti_torch_new_tensor_handle(tensors[i], &given[i])) return 1;
    }
    if (AOTInductorModelContainerRunSingleThreaded(
            container, given.data(), count, nullptr, 0, nullptr, nullptr)) return 2;
    for (int64_t i = 0; i < writes; ++i) {
      std::memcpy(written[i].rows + step * written[i].bytes, written[i].row, written[i].bytes);
    }
  }
  return 0;
}
"""

#: steps between two chances for the user to interrupt; a call costs microseconds
_AT_ONCE = 32
_STEPS = "pyro_klmodes_steps"

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_int64
_address = ctypes.PYFUNCTYPE(_POINTER, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Table(ctypes.Structure):
    """Rows in memory, one for every step, and where the library has that of the present step."""

    _fields_ = (("rows", _POINTER), ("row", _POINTER), ("bytes", _SIZE))

    @classmethod
    def all(cls, pairs: Sequence[tuple[Tensor, Tensor]]) -> Any:
        """An array of them."""
        tables = [cls(a.data_ptr(), b.data_ptr(), b.numel() * b.element_size()) for a, b in pairs]
        return (cls * len(tables))(*tables)


class StepLoop:
    """The function of one library, with the constants that it needs.

    Args:
        library: in memory.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._steps = library[_STEPS]
        self._steps.argtypes = (_POINTER, _POINTER, _SIZE, *(_POINTER, _SIZE) * 2, _SIZE, _SIZE)
        self._container = _POINTER()
        failed = library.AOTInductorModelContainerCreateWithDevice(
            ctypes.byref(self._container), ctypes.c_size_t(1), b"cpu", None
        )
        if failed:
            raise OSError("torch does not find its way in the library")
        weakref.finalize(self, library.AOTInductorModelContainerDelete, self._container)

    @classmethod
    def of(cls, path: Path) -> StepLoop | None:
        """That of a library; None if it has none."""
        try:
            library = ctypes.CDLL(str(path))
            return cls(library) if hasattr(library, _STEPS) else None
        except OSError:
            return None

    def __call__(
        self,
        tensors: Sequence[Tensor],
        read: Sequence[tuple[Tensor, Tensor]],
        written: Sequence[tuple[Tensor, Tensor]],
        count: int,
    ) -> None:
        """Take many steps.

        Args:
            tensors: what the library is called with in every step.
            read: rows, ``(count, ...)``, and those of the tensors that they are copied into.
            written: rows and those of the tensors that are copied into them after every step.
            count: how many steps.

        Raises:
            RuntimeError: if an operation fails.
        """
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
        try:
            handles = (_POINTER * len(capsules))(*(_address(c, None) for c in capsules))
            tables = [_Table.all(read), len(read), _Table.all(written), len(written)]
            for first in range(0, count, _AT_ONCE):
                steps = first, min(first + _AT_ONCE, count)
                if self._steps(self._container, handles, len(handles), *tables, *steps):
                    raise RuntimeError("an operation of the compiled library has failed")
        finally:  # which frees them
            torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(capsules)
