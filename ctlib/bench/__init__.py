"""Speed, memory and error of the ops beside those of other libraries; `benchmarks/bench_ops.py` runs it.

Measured in: notebooks/71_ops.
"""
