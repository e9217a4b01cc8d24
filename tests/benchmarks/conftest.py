"""The benchmarks are scripts; their folder is made importable."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks"))
