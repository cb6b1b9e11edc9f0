"""One row of a benchmark: a process that opens a runtime and is timed."""
