"""Compact versions of architectures that people train, written as people write them."""
