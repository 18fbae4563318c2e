"""A function as a network of layers: traced, analyzed, cut up."""
