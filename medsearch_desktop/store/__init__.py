"""What is known: one database that is the truth, and indexes that are caches of it."""
