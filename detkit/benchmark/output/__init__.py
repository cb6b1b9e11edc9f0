"""Measurements as tables, files and a picture."""
