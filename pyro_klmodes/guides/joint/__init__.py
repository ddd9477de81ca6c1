"""Joint densities over the flat vector of all unconstrained latents."""
