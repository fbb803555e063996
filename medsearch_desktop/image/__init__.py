"""Bytes to pixels to a vector."""
