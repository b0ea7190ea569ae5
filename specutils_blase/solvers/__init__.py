"""Unit-free least squares: banded Levenberg-Marquardt, and first-order optimisation of any module."""
