"""Losses: (logits, target) -> scalar; one file a family, the shared contract in `loss.py`."""
