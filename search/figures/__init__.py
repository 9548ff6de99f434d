"""Figures and the report: numbers from records first, then drawings of the numbers."""
