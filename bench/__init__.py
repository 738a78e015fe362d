"""Measurements beside other programs: each module prints a table, e.g. `python -m bench.generate`.

docs/performance.md has the results and defines the terms, docs/notebook.md the experiments.
"""
