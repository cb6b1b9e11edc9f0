"""TrainingResult detectors to files that other runtimes run, each with proof that it is the same detector."""
