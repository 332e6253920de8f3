"""The run's record (``record``, light) and the report a person reads: an HTML page with pictures (``report``)."""
