"""A small grammar of gates for the toy task, with all that a grammar has."""

RULES = """
activation:
  F:
    - x * G
    - x * G * (1 + g * tanh(std(x)))  where g in [0, 0.3]
  G:
    - sigmoid(ARG)
    - gompertz(ARG)
  ARG:
    - x
    - s * x  where s in log[0.5, 2]
depth: 3
"""
