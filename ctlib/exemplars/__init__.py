"""Coloring a gray picture after another one: the chain of two networks, and three ways without learning.

Taught in: notebooks/51_exemplar_colorization.
"""
