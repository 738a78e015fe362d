"""The server: a page that shows a model think, and an API that other programs know.

`python -m minigen serve` starts it. The folder needs the packages of the extra `[web]`.
"""
