"""Random programs of JAX primitives, each with its relevance under LRP-0 by another way."""
