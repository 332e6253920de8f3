"""Networks by name, and the model bundle."""
