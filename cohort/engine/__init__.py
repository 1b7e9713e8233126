"""Engines that answer queries over a generation."""
