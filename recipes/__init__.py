"""One experiment a module: `python -m recipes.quickstart`, from the repository.

Modules that begin with an underscore are what several experiments share.
"""
