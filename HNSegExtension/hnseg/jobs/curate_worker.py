"""A worker process that curates and nothing else, so that it starts without torch."""

from __future__ import annotations

import logging
import sys

from hnseg.jobs.curate import CurateRequest, worker_job
from hnseg.jobs.worker import serve


def main() -> None:
    """Serve until the other side hangs up."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    serve({CurateRequest.job: worker_job})


if __name__ == "__main__":
    main()
