"""The founding question alone, with what is asked of it: `bench.questions` asks every ready question, for hours.

    make bench-founding                            all sizes; about 40 GB of disk
    python -m bench.founding --patients 10000 --keep FOLDER --no-spark

At each size, in the same run: the founding question beside the SQL a person would write and Spark, and forty like it
about other diagnoses, ages and modalities.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.questions import FOUNDING, RUNS, SEED, arguments, at_sizes
from bench.results_file import write


def main() -> None:
    wanted = arguments().parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder) as scratch:
        rows, sizes = at_sizes(wanted, Path(scratch), (FOUNDING,))
    write("founding", SEED, sizes, rows, RUNS)


if __name__ == "__main__":
    main()
