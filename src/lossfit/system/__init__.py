"""The operating system: files, locks, signals and ranks. Knows nothing of training and imports no torch."""
