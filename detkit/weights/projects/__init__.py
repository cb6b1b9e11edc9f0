"""Weights of other projects: their names and layouts, one file a project."""
