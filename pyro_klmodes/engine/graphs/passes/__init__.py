"""Clean-up passes, one concept each: a graph that gives the same bits at less cost."""
