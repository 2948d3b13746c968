"""A run's folder: what is in it, whose it is, and how it survives."""
