"""Spark reads a table of a lake by s3a://, as docs/lake.md shows it, in a process of its own.

python -m tests.services.s3a_reading URL TABLE COLUMN,COLUMN      credentials and endpoint as AWS's own tools read them
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any

from tests.services.peers import missing, program
from tests.services.spark_session import SETTINGS

POM = Path(__file__).parent / "s3a" / "pom.xml"
FETCH_S = 300


def s3a_jars() -> list[Path]:
    """Fetched by Maven once, some 20 MB, and kept outside the repository."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imaging-bridge" / "s3a"
    held = cache / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not held.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as folder:
                command = [str(program("mvn")), "-B", "-ntp", "-q", "-f", str(POM), "dependency:copy-dependencies"]
                command.append(f"-DoutputDirectory={folder}/lib")
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=FETCH_S)
                if done.returncode:
                    missing(f"hadoop-aws from Maven ({done.stdout.strip().splitlines()[:1]})")
                (Path(folder) / "lib").rename(held)
    return sorted(held.glob("*.jar"))


def main() -> None:
    url, table, columns = sys.argv[1:]
    from pyspark.sql import DataFrame, SparkSession

    s3a = {
        "endpoint": os.environ["AWS_ENDPOINT_URL_S3"],
        "endpoint.region": os.environ["AWS_REGION"],
        "access.key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret.key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "path.style.access": "true",
        "connection.ssl.enabled": "false",
    }
    builder = SparkSession.builder.master("local[2]").config("spark.jars", ",".join(map(str, s3a_jars())))
    for name, value in (SETTINGS | {f"spark.hadoop.fs.s3a.{key}": value for key, value in s3a.items()}).items():
        builder = builder.config(name, value)
    spark, root = builder.getOrCreate(), url.replace("s3://", "s3a://")

    def whole(path: str) -> str:
        return str(spark.read.text(f"{root}/{path}", wholetext=True).first()[0]).strip()

    def layer(one: dict[str, Any]) -> DataFrame:
        rows = spark.read.parquet(f"{root}/files/{one['file']}")
        if "gone" not in one:
            return rows
        gone = spark.read.parquet(f"{root}/files/{one['gone']}")
        numbered = rows.withColumn("row_number", rows["_metadata.row_index"])
        return numbered.join(gone, "row_number", "left_anti").drop("row_number")

    manifest = json.loads(whole(f"generations/{whole('CURRENT')}.json"))
    found = reduce(DataFrame.unionByName, map(layer, manifest["tables"][table]["layers"]))
    sys.stdout.write(json.dumps(sorted(list(row) for row in found.select(*columns.split(",")).collect())))


if __name__ == "__main__":
    main()
