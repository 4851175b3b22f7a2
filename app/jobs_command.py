"""`ocular jobs`: the queue of background work in a terminal."""

from __future__ import annotations

import argparse

from app.commands import library_of, say, slide_id_of
from wsi_ml.errors import BadRequestError
from wsi_ml.jobs.job import Job
from wsi_ml.jobs.queue import JobQueue


def run_jobs(options: argparse.Namespace) -> None:
    """List jobs, or show or cancel one."""
    library = library_of(options)
    queue = JobQueue(library.root)
    if options.cancel and options.id is None:
        raise BadRequestError("--cancel cancels one job; give its ID (`ocular jobs` lists them).")
    if options.id is not None:
        job = queue.cancel(options.id) if options.cancel else queue.job(options.id)
        say(options, job.to_json(), job_text(job))
        return
    slide_id = slide_id_of(library, options.slide) if options.slide else None
    jobs = queue.jobs(slide_id, options.state)
    text = "\n".join(job_text(job) for job in jobs) or "There are no jobs."
    say(options, {"jobs": [job.to_json() for job in jobs]}, text)


def job_text(job: Job) -> str:
    """A job in one line."""
    where = f"region {','.join(map(str, job.region))}" if job.region else "whole slide"
    return f"{job.id}  {_state(job):<24} {job.model} on {job.slide_id}, {where}{_end(job)}"


def _state(job: Job) -> str:
    if job.position is not None:
        return f"queued, place {job.position}"
    if job.cancelling:
        return "being cancelled"
    if job.state == "running" and job.progress:
        return f"running, {job.progress.done} of {job.progress.total} {job.progress.unit}"
    return job.state


def _end(job: Job) -> str:
    return f": layer {job.layer_id}" if job.layer_id else f": {job.reason}" if job.reason else ""
