"""The photos of a training run: found in folders, without copies, split into training and validation."""
