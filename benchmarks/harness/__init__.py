"""How benchmarks measure, take turns and report."""
