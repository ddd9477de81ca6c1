"""One rule for each family: nodes, and updates from gradients at them."""
