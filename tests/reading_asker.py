"""A process that has one object read by tests.hanging_worker, and tells where: something to kill.

python -m tests.reading_asker WORD      of an object with that word; "" ends with it read, and the reader waiting
"""

from __future__ import annotations

import sys
import threading
import time

from bridge.document_process import DocumentProcesses
from bridge.errors import InvalidFile
from bridge.model import InstanceName
from tests.hanging_worker import TELLS

NAME = InstanceName("1.2.3", "1.2.3.4", "1.2.3.4.5", "1.2.840.10008.5.1.4.1.1.88.11")


def main() -> None:
    processes = DocumentProcesses(1, module="tests.hanging_worker")
    try:
        processes.kept_part(TELLS, NAME)
    except InvalidFile as error:
        sys.stdout.write(str(error).split(",")[0] + "\n")
        sys.stdout.flush()
    if sys.argv[1]:
        # of a thread that ends before its reader does, as requests to a server are answered
        threading.Thread(target=processes.kept_part, args=(sys.argv[1].encode(), NAME), daemon=True).start()
    time.sleep(99)


if __name__ == "__main__":
    main()
