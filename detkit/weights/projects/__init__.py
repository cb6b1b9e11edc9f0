"""Weights of other projects under detkit's names, one file per project."""
