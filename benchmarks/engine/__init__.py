"""What a whole training step costs: Pyro, NumPyro, torch by hand, and this package's engines."""
