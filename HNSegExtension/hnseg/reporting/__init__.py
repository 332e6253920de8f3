"""The run's record as JSON, and the report a person reads: an HTML page with pictures."""

from hnseg.reporting.record import RunRecord, read_record, write_record
from hnseg.reporting.report import ReportImages, write_run_report

__all__ = ["ReportImages", "RunRecord", "read_record", "write_record", "write_run_report"]
