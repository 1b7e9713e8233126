"""What can be asked over HTTP: questions, documents, comparisons, SELECTs."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Format = Literal["csv", "json", "ndjson", "parquet", "arrow"]


class Asked(BaseModel):
    """A ready question asked: values of its parameters, the day ages and periods count from (today if none)."""

    model_config = ConfigDict(extra="forbid")
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=50)
    on: date | None = Field(default=None, alias="date")
    generation: str = Field(default="", max_length=64, description="Ask this one, by id or name; empty: the newest")
    format: Format = "json"


class Document(Asked):
    """A question document asked, as docs/questions.md describes it."""

    document: dict[str, Any]


class Cohort(BaseModel):
    """A ready question with values of its parameters."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(max_length=100)
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=50)


class Compared(BaseModel):
    """Two cohorts to be put beside each other."""

    model_config = ConfigDict(extra="forbid")
    first: Cohort
    second: Cohort
    on: date | None = Field(default=None, alias="date")
    generation: str = Field(default="", max_length=64, description="Ask this one, by id or name; empty: the newest")
    format: Format = "json"


class Sql(BaseModel):
    """A SELECT over the tables of `GET api/tables`."""

    model_config = ConfigDict(extra="forbid")
    sql: str = Field(min_length=1, max_length=100_000)
    generation: str = Field(default="", max_length=64, description="Ask this one, by id or name; empty: the newest")
    format: Format = "json"
