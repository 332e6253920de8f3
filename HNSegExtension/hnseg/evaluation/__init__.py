"""Metrics, per-organ tables, figures."""
