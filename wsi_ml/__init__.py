"""The library of Ocular: slides, super-resolution, models, layers; no web, no settings."""
