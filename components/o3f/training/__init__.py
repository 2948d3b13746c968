"""Builds objects from the configuration and drives updates."""
