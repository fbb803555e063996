"""Search radiology images and reports on one workstation, offline."""

__version__ = "0.1.0"
