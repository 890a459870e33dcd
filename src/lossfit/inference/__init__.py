"""A trained model in use: load, evaluate, predict, export."""
