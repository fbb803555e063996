"""How people and programs reach a library."""
