"""The ways in: from a function and its arguments to an explanation."""
