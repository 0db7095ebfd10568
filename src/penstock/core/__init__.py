"""The rules of Penstock as plain values and functions.

The rule of this layer: no input or output, no clock, no randomness, no thread, no logging. It imports
nothing of Penstock but ``penstock.errors`` and itself.
"""
