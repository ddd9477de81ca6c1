"""The experiments behind the decision guide, one concept per file, all with exact answers."""
