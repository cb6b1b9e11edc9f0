"""What was found, into files."""
