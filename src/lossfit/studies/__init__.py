"""Studies: what is measured of their runs, and the tables, pages and pictures that are made of it.

    measured.py   a run folder -> its metrics                  tables.py     study.json -> tables in Markdown
    results.py    run folders -> the content of study.json     pictures.py   study.json -> pictures
    statistic.py  mean, deviation, paired difference           pages.py      study.json -> a page of docs/studies
    checked.py    what a study.json must hold

pictures.py imports matplotlib, and measured.py torch when it evaluates a checkpoint.
"""

from lossfit.studies.checked import problem
from lossfit.studies.pages import page, title
from lossfit.studies.results import best, check_curves, circumstances, search_run, seed_run
from lossfit.studies.tables import tables

__all__ = ["best", "check_curves", "circumstances", "page", "problem", "search_run", "seed_run", "tables", "title"]
