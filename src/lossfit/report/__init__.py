"""A run, or many, as one HTML file that loads nothing, for people who have neither lossfit nor the run folder.

    documents.py  the two kinds of report, put together
    run.py       a run folder -> what its report says          svg.py        matplotlib's figures as SVG in the page
    defaults.py  which options differ from the defaults        charts.py     the curves of a run
    findings.py  diagnosis.json                                confusion.py  the confusion matrix, confused pairs
    measured.py  the model on its test split, with pictures    page.py       the templates, filled in
    sweep.py     many runs -> what their report says           effects.py    which option mattered
    against_best.py  how sure the difference to the best is

Only measured.py and pictures.py import torch, and a sweep's report does not use them.
"""

from lossfit.report.documents import of_run, of_sweep

__all__ = ["of_run", "of_sweep"]
