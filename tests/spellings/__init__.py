"""Pairs of spellings of the same function, which must get the same relevance."""
