"""Run by `bench.peer_environment` in Procrastinate's own environment: ADDRESS BACKLOG AT_MOST_S."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import procrastinate

CONCURRENCY = 10
PAGE = 5_000


async def main(address: str, backlog: int, at_most_s: float) -> dict[str, float]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=address))
    ended = 0

    @app.task(name="nothing")
    async def nothing(key: str) -> None:
        nonlocal ended
        ended += 1

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, backlog, PAGE):
            keys = [f"1.2.826.0.1.3680043.10.1561.{n}" for n in range(first, min(first + PAGE, backlog))]
            # the lock of each job: no two workers on one key, as in the work table
            rows = [procrastinate.jobs.Job(id=None, queue="study", lock=key, queueing_lock=None, task_name="nothing",
                                           task_kwargs={"key": key}) for key in keys]  # fmt: skip
            await app.job_manager.batch_defer_jobs_async(rows)
        async with app.connector.pool.connection() as connection:
            await connection.set_autocommit(True)
            await connection.execute("ANALYZE")
            await connection.set_autocommit(False)
        worker = asyncio.create_task(
            app.run_worker_async(queues=["study"], concurrency=CONCURRENCY, wait=False, install_signal_handlers=False)
        )
        while not ended and not worker.done():
            await asyncio.sleep(0.001)
        began, before = time.perf_counter(), ended
        await asyncio.wait([worker], timeout=at_most_s)
        seconds, jobs = time.perf_counter() - began, ended - before
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return {"seconds": seconds, "jobs": jobs}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
