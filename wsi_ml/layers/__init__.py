"""Layers of features on slides: store, import, export."""
