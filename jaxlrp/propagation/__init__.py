"""Relevance on its way through a network."""
