"""Benchmarks: `python -m tests.bench [store|api|link|runtime|node]...` prints medians beside the machine's own floor, measured in the same run.

Never part of the tests: figures are for people, who compare the ratios.
"""
