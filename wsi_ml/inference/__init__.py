"""Whole-slide inference: windows of tissue through a predictor, stitched to maps, drawn as polygons."""
