"""Temporaries on the stack: a small step takes longer to get memory for them than to compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["temporaries_on_stack"]


@contextmanager
def temporaries_on_stack() -> Iterator[None]:
    """Have packages keep temporaries on the stack, if they take no more than torch's 100 kB.

    Eight schools with one particle then takes 3 microseconds a step instead of 9. Torch looks at
    its setting only once, when the processor is registered with inductor; so the generator of code
    that can do it is registered for as long as this lasts. Another thread that compiles a package
    meanwhile gets it too, but leaves it turned off.
    """
    from torch._inductor import config
    from torch._inductor.codegen import common

    from pyro_klmodes.engine.backends.wrapper import Wrapper

    common.init_backend_registration()
    before = common.device_codegens["cpu"]
    common.register_backend_for_device(
        "cpu",
        before.scheduling,
        before.wrapper_codegen,
        Wrapper,
        before.fx_wrapper_codegen,
        common.custom_backend_passes.get("cpu"),
        common.custom_backend_codegen_configs.get("cpu"),
    )
    try:
        with config.patch({"aot_inductor.allow_stack_allocation": True}):
            yield
    finally:
        common.device_codegens["cpu"] = before
