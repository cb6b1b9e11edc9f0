"""Which samples make a batch, and how they are read and put together."""
