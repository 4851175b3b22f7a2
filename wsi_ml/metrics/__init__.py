"""Figures of merit: picture fidelity; later classification and segmentation. Numpy only."""
