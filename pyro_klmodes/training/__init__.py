"""``klmodes train``: learn a model with networks by a loss of one's choice, from the shell."""

from pyro_klmodes.training.command import train
from pyro_klmodes.training.task import Task, load_task

__all__ = ["Task", "load_task", "train"]
