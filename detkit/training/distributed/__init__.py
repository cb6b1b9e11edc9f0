"""Several ranks of one run: common decisions, batch norm over all ranks, and the end of a failed rank."""
