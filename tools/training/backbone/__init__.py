"""The backbone: EfficientNet-Lite, its rounding to 8 bits, and the features of photos."""
