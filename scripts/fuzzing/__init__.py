"""Parts of scripts/fuzz.py: one module for each kind of input, and the processes that read them."""
