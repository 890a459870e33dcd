"""Losses: (outputs, target) -> scalar; one file per family. `loss.py` has the contract that all share."""
