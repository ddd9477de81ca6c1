"""The generator of the code around the kernels of a library; importing it takes seconds."""

from __future__ import annotations

from typing import Any

from torch._inductor.codegen.cpp_wrapper_cpu_array_ref import CppWrapperCpuArrayRef
from torch._inductor.virtualized import V

from pyro_klmodes.engine.backends.step_loop import SOURCE

__all__ = ["Wrapper"]

#: Operations that a library calls by name need an object of torch's, which the function has not.
_BY_NAME = "aoti_torch_proxy_executor_call_function"


class Wrapper(CppWrapperCpuArrayRef):
    """Torch's generator of code that can keep temporaries on the stack, and ``SOURCE`` besides."""

    @staticmethod
    def create(*args: Any, **kwargs: Any) -> Wrapper:
        """As torch makes them, also for subgraphs."""
        return Wrapper()

    def generate_end(self, result: Any) -> None:
        """Add the function at the end of a library, not of a subgraph or a graph of constants."""
        super().generate_end(result)
        if not V.graph.is_const_graph and _BY_NAME not in result.getvalue():
            result.splice(SOURCE)
