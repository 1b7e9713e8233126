#!/bin/sh
# Run once by the PostgreSQL image, when its volume is new: HAPI gets a database of its own beside the bridge's.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" -v password="$HAPI_DB_PASSWORD" <<'SQL'
CREATE ROLE hapi LOGIN PASSWORD :'password';
CREATE DATABASE hapi OWNER hapi;
SQL
