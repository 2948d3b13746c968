"""Plays or reads, and returns numbers; never trains."""
