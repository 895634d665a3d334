"""Training and evaluation of image restoration networks, DTPNet first among them."""

__version__ = "0.1.0"
