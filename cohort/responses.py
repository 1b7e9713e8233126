"""Answers and errors of the cohort as HTTP has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException, Response

from bridge.errors import ConfigError, InvalidQuery, NotAllowed, Unavailable
from cohort.answer import Answer
from cohort.render import MEDIA_TYPES, rendered


def download(answer: Answer, kind: str, name: str) -> Response:
    """The answer in a format, as a file called `name` but for JSON."""
    headers = {"X-Lake-Generation": answer.generation}
    if kind != "json":
        headers["Content-Disposition"] = f'attachment; filename="{name}.{kind}"'
    return Response(rendered(answer, kind), media_type=MEDIA_TYPES[kind], headers=headers)


@contextmanager
def as_http() -> Iterator[None]:
    """Errors of the project as statuses of HTTP."""
    try:
        yield
    except NotAllowed as error:
        raise HTTPException(403, str(error)) from None
    except InvalidQuery as error:
        status = 404 if str(error).startswith(("no question", "no outcome")) else 400
        raise HTTPException(status, str(error)) from None
    except Unavailable as error:
        headers = {"Retry-After": f"{error.retry_after_s:g}"} if error.retry_after_s else None
        raise HTTPException(503, str(error), headers) from None
    except ConfigError as error:
        raise HTTPException(501, str(error)) from None
