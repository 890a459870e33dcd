"""lossfit: train image classifiers well. Importing this package imports no torch."""
