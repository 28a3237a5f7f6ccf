"""Queries that duckdb plans once and runs on table after table: planning takes as long as some megabytes of text."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb
    import pyarrow


class Planned:
    """Runs queries on tables named `segment`, in any number of threads; each at work has a cursor of its own."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Run queries by cursors of `connection`."""
        self._connection = connection
        self._idle: deque[_Cursor] = deque()

    def rows(self, query: str, table: pyarrow.Table) -> list[Any]:
        """The rows that a query gives of a table; all tables must have one schema."""
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = _Cursor(self._connection.cursor())
        found = cursor.rows(query, table)
        self._idle.append(cursor)
        return found


class _Cursor:
    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._source = _Source()
        self._planned = ""

    def rows(self, query: str, table: pyarrow.Table) -> list[Any]:
        self._source.table = table
        if query != self._planned:
            self._cursor.register("segment", self._source)
            self._cursor.execute(f"prepare planned as {query}")
            self._planned = query
        found = self._cursor.execute("execute planned").fetchall()
        self._source.table = None
        return found


class _Source:
    """What duckdb asks for a stream at each run; a table itself it would remember."""

    table: pyarrow.Table | None = None

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        assert self.table is not None
        return self.table.__arrow_c_stream__(requested_schema)
