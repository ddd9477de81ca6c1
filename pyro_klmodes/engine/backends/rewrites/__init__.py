"""What compilers do not see for themselves: the same graph up to rounding, in a form they fuse."""

from pyro_klmodes.engine.backends.rewrites.rewrite import rewrite

__all__ = ["rewrite"]
