"""Spectral relevance analysis (SpRAy): what kinds of explanations a data set has."""
