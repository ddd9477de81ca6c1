"""What a training step costs, in time and memory, next to Pyro's own losses."""
