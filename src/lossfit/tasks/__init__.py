"""Tasks: what a target is, what is measured, and what a trained model returns. A file for each task.

The data module makes its Task; the training, the evaluation and the export ask it, and know no task by name.
"""
