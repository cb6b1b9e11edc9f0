"""A detector in the form of an export format: captured, folded, written."""
