"""Measurements, side by side in one run: ``scripts/bench``. What the figures mean: docs/benchmarks.md.

Nothing here is a test: a figure depends on the machine and on what else it does. So each measurement runs its
cases in turn, again and again (A B C A B C …), takes medians, and gives ratios to a case of the same round.
"""
