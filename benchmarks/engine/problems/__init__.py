"""The models of the grid: their data, and each of them in Pyro, in NumPyro and by hand."""
