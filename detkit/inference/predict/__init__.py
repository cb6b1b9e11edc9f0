"""A detector over many images and videos, from what was asked for to what is kept."""
