"""Whoever takes part: each makes a `Run` of a `Cell`."""
