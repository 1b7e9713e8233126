-- Every table as version 4 has it. Never changed: what came later stands in later revisions.
CREATE TABLE IF NOT EXISTS ai_result (
    run_id VARCHAR NOT NULL,
    study_instance_uid VARCHAR NOT NULL,
    content {binary} NOT NULL,
    received_at FLOAT NOT NULL,
    PRIMARY KEY (run_id)
);
CREATE INDEX IF NOT EXISTS ai_result_study ON ai_result (study_instance_uid);
CREATE TABLE IF NOT EXISTS ai_result_review (
    run_id VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    content {binary} NOT NULL,
    received_at FLOAT NOT NULL,
    PRIMARY KEY (run_id, number)
);
CREATE TABLE IF NOT EXISTS cursor (
    source VARCHAR NOT NULL,
    position TEXT NOT NULL,
    PRIMARY KEY (source)
);
CREATE TABLE IF NOT EXISTS delivered (
    sink VARCHAR NOT NULL,
    study_instance_uid VARCHAR NOT NULL,
    reference TEXT NOT NULL,
    version_id VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,
    delivered_at FLOAT NOT NULL,
    PRIMARY KEY (sink, study_instance_uid)
);
CREATE TABLE IF NOT EXISTS export_job (
    id VARCHAR NOT NULL,
    request TEXT NOT NULL,
    resource_types {binary} NOT NULL,
    since FLOAT NOT NULL,
    revision BIGINT NOT NULL,
    transaction_time FLOAT NOT NULL,
    created_at FLOAT NOT NULL,
    written INTEGER NOT NULL,
    finished_at FLOAT,
    files {binary} NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS file (
    id {serial} NOT NULL,
    source VARCHAR NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL,
    study_instance_uid VARCHAR NOT NULL,
    sop_instance_uid VARCHAR NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (source, path)
);
CREATE INDEX IF NOT EXISTS file_instance ON file (source, sop_instance_uid);
CREATE INDEX IF NOT EXISTS file_study ON file (source, study_instance_uid);
CREATE TABLE IF NOT EXISTS holding (
    source VARCHAR NOT NULL,
    study_instance_uid VARCHAR NOT NULL,
    hint INTEGER NOT NULL,
    read_hint INTEGER NOT NULL,
    instances INTEGER NOT NULL,
    headers {binary},
    digest VARCHAR NOT NULL,
    rejected {binary},
    read_at FLOAT,
    procedure_steps {binary},
    PRIMARY KEY (source, study_instance_uid)
);
CREATE INDEX IF NOT EXISTS holding_instances ON holding (source, instances, hint, read_hint);
CREATE INDEX IF NOT EXISTS holding_study ON holding (study_instance_uid);
CREATE TABLE IF NOT EXISTS resource (
    resource_type VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    last_updated FLOAT NOT NULL,
    revision BIGINT NOT NULL,
    deleted BOOLEAN NOT NULL,
    digest VARCHAR NOT NULL,
    study_instance_uid VARCHAR,
    PRIMARY KEY (resource_type, id)
);
CREATE INDEX IF NOT EXISTS resource_revision ON resource (revision);
CREATE INDEX IF NOT EXISTS resource_updated ON resource (resource_type, last_updated, id);
CREATE TABLE IF NOT EXISTS resource_index (
    resource_type VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    param VARCHAR NOT NULL,
    system VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    low FLOAT,
    high FLOAT
);
CREATE INDEX IF NOT EXISTS resource_index_low ON resource_index (resource_type, param, low);
CREATE INDEX IF NOT EXISTS resource_index_owner ON resource_index (resource_type, id);
CREATE INDEX IF NOT EXISTS resource_index_value ON resource_index (resource_type, param, value);
CREATE TABLE IF NOT EXISTS resource_version (
    resource_type VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    last_updated FLOAT NOT NULL,
    revision BIGINT NOT NULL,
    content {binary},
    PRIMARY KEY (resource_type, id, version)
);
CREATE UNIQUE INDEX IF NOT EXISTS resource_version_revision ON resource_version (revision);
CREATE INDEX IF NOT EXISTS resource_version_type ON resource_version (resource_type, revision);
CREATE TABLE IF NOT EXISTS setting (
    name VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE IF NOT EXISTS study (
    study_instance_uid VARCHAR NOT NULL,
    patient_key VARCHAR NOT NULL,
    patient_rank VARCHAR NOT NULL,
    patient {binary} NOT NULL,
    resources {binary} NOT NULL,
    remarks {binary} NOT NULL,
    digest VARCHAR NOT NULL,
    PRIMARY KEY (study_instance_uid)
);
CREATE INDEX IF NOT EXISTS study_patient ON study (patient_key, patient_rank, study_instance_uid);
CREATE TABLE IF NOT EXISTS subscription (
    id VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    fhir_version VARCHAR NOT NULL,
    content {binary} NOT NULL,
    status VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    error TEXT NOT NULL,
    position BIGINT NOT NULL,
    events BIGINT NOT NULL,
    delivered BIGINT NOT NULL,
    greeted_at FLOAT NOT NULL,
    notified_at FLOAT NOT NULL,
    failures INTEGER NOT NULL,
    failing_since FLOAT,
    PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS subscription_event (
    subscription VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (subscription, number)
);
CREATE TABLE IF NOT EXISTS work (
    queue VARCHAR NOT NULL,
    "key" VARCHAR NOT NULL,
    generation INTEGER NOT NULL,
    due_at FLOAT NOT NULL,
    first_marked_at FLOAT NOT NULL,
    attempts INTEGER NOT NULL,
    leased_by VARCHAR,
    leased_until FLOAT,
    parked BOOLEAN DEFAULT {false} NOT NULL,
    error TEXT DEFAULT '' NOT NULL,
    evidence {binary},
    PRIMARY KEY (queue, "key")
);
CREATE INDEX IF NOT EXISTS work_next ON work (queue, parked, due_at, "key");
