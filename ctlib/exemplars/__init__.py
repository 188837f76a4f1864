"""Coloring a gray picture after another one: the chain of two networks, matching, and three older ways.

Taught in: notebooks/51_exemplar_colorization.
"""
