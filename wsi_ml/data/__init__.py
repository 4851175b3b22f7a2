"""Training data: pairs, augmentations, drawn slides."""
