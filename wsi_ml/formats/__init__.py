"""Annotation files: read strictly with a loss report, and written."""
