"""Text to entities to codes."""
