"""What is known: one database that is the truth, two indexes that are caches of it."""
