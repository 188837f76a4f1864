"""How each network is trained: what a batch becomes, and which losses it meets. `ctlib.train` runs them."""
