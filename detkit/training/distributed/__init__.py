"""Several ranks of one run: what they agree on, and batch norm over their images."""
