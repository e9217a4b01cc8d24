"""The paper's tables: rows, statistics, figures, page; from the repository.

`python -m evidence.tables` runs the rows, `python -m evidence.report` makes the page.
"""
