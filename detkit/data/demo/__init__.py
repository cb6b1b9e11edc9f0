"""The built-in data set: drawn on first use, the same on every machine."""
