"""Run in pysof's own environment: CPU seconds for an NDJSON file through a ViewDefinition, and the rows it wrote.

python peer_pysof.py VIEW.json DATA.ndjson OUT.ndjson
"""

import json
import sys
import time
from pathlib import Path

import pysof

view = json.loads(Path(sys.argv[1]).read_text("utf-8"))
started = time.process_time()
told = pysof.process_ndjson_to_file(view, sys.argv[2], sys.argv[3], "ndjson")
print(json.dumps({"seconds": time.process_time() - started, "rows": told["output_rows"]}))
