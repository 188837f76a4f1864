"""Networks, one file an architecture. None of them knows how it is trained."""
