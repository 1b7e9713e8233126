"""Revisions, oldest first. They are added, never changed, and only add to the tables."""
