"""An answer as an Arrow IPC stream. Needs PyArrow (the extra `arrow`)."""

from __future__ import annotations

import io

from bridge.errors import ConfigError
from cohort.answer import Answer
from cohort.engine.columnar import relation


def arrow_ipc(answer: Answer) -> bytes:
    """The answer's rows as a stream of record batches. Raises ConfigError where PyArrow is not installed."""
    try:
        import pyarrow.ipc
    except ImportError:
        raise ConfigError("format arrow: PyArrow is not installed: pip install 'imaging-bridge[arrow]'") from None
    table = relation(answer).to_arrow_table()
    out = io.BytesIO()
    with pyarrow.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()
