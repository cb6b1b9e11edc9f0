"""The run around the training: its folder, resume, loggers, interrupts."""
