"""Expression → program → torch, C, Triton. The names alone are here: they need no torch."""

KERNELS = ("auto", "torch", "c", "triton", "composed")
"""auto: the quickest that serves the tensor; torch: its operations, everywhere; composed: those,
differentiated by torch's autograd, as one would write the formula by hand (for comparisons)."""
