"""Requests, progress, cancel, and the warm worker process."""
