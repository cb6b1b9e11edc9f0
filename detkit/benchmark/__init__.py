"""What a detector costs and gives in each runtime: latency, memory, size and AP, side by side."""
