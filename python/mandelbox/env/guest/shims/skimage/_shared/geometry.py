"""Stand-in for skimage._shared.geometry, which the package imports to see whether it was built."""
