"""A relation as SQL: `duckdb.sql(relation)`, `spark.sql(relation)`. Same rows, or refused."""
