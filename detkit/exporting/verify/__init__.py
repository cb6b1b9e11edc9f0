"""Proof that an exported file is the same detector."""
