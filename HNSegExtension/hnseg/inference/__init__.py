"""Tiles, streaming predictor, post-processing."""
