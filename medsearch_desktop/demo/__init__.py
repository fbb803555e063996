"""A synthetic radiology department, drawn and written by the project itself."""
