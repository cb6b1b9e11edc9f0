"""The callbacks of a run, one per file: EMA, checkpoints, logs, images, checks."""
