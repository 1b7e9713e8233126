"""Some clients who ask every ready question of a lake at once, each in an order of its own, as the API asks them.

python -m bench.questions_clients LAKE CLIENTS RUNS SEED      JSON on standard output
"""

from __future__ import annotations

import random
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from bench.population import TODAY
from bridge.errors import ProjectError
from cohort import sandbox
from cohort.catalogue import question, questions
from cohort.lake import Lake

LIMITS = sandbox.Limits(cpu_s=600, deadline_s=300)
"""As the API has them, but that slow ones are waited for."""


def main() -> None:
    """Tells `seconds` (question → of each asking), `refused` (question → why) and `peak_mb` of the largest process."""
    root, clients, runs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    generation, names = Lake(root).current(), list(questions())
    assert generation is not None
    seconds: dict[str, list[float]] = {name: [] for name in names}
    refused: dict[str, str] = {}

    def client(number: int) -> None:
        for name in random.Random(seed + number).sample(names * runs, len(names) * runs):
            started = time.perf_counter()
            try:
                sandbox.ask(generation, question(name), {}, TODAY, LIMITS)
            except ProjectError as error:
                refused[name] = str(error)
            seconds[name].append(time.perf_counter() - started)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    sandbox.WORKERS.close()  # only those that ended are counted
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    sys.stdout.buffer.write(orjson.dumps({"seconds": seconds, "refused": refused, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
