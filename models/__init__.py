"""Vanilla Pyro models with their data and, where they are known, their exact answers.

Each module has a factory ``problem()`` (and further ``*_problem()``) that returns a
``models.problem.Problem``. Nothing here knows about any inference package other than Pyro, so
every model can be run with Pyro's own losses too.
"""
