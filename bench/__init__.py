"""Side-by-side measurements: each module prints a table, `python -m bench.generate` for one."""
