-- A file of schema 1 with a little in it, as `sqlite3 budget.db .dump` shows it.
PRAGMA application_id = 1111647335;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE configs (
        org_id TEXT NOT NULL, app_id TEXT NOT NULL, item TEXT NOT NULL,
        PRIMARY KEY (org_id, app_id)) WITHOUT ROWID;
INSERT INTO "configs" VALUES('acme','chat','{"quotas": {"premium": 5}}');
CREATE TABLE overrides (
        org_id TEXT NOT NULL, app_id TEXT NOT NULL, label TEXT NOT NULL, reason TEXT NOT NULL,
        created_by TEXT NOT NULL, created_at_epoch INTEGER NOT NULL, expires_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (org_id, app_id)) WITHOUT ROWID;
INSERT INTO "overrides" VALUES('acme','','economy','incident 7','ann',1769180400,1769184000);
CREATE TABLE shards (
        scope TEXT NOT NULL, label TEXT NOT NULL, day TEXT NOT NULL, shard INTEGER NOT NULL, cost_pico_usd INTEGER NOT NULL CHECK (typeof(cost_pico_usd) = 'integer' AND cost_pico_usd >= 0), input_tokens INTEGER NOT NULL CHECK (typeof(input_tokens) = 'integer' AND input_tokens >= 0), output_tokens INTEGER NOT NULL CHECK (typeof(output_tokens) = 'integer' AND output_tokens >= 0), cache_read_tokens INTEGER NOT NULL CHECK (typeof(cache_read_tokens) = 'integer' AND cache_read_tokens >= 0), cache_write_5m_tokens INTEGER NOT NULL CHECK (typeof(cache_write_5m_tokens) = 'integer' AND cache_write_5m_tokens >= 0), cache_write_1h_tokens INTEGER NOT NULL CHECK (typeof(cache_write_1h_tokens) = 'integer' AND cache_write_1h_tokens >= 0), requests INTEGER NOT NULL CHECK (typeof(requests) = 'integer' AND requests >= 0),
        updated_at_epoch INTEGER NOT NULL, shard_count INTEGER NOT NULL, active_hour TEXT NOT NULL,
        PRIMARY KEY (scope, label, day, shard)) WITHOUT ROWID;
INSERT INTO "shards" VALUES('ORG#acme#APP#chat','premium','20260123',3,1400000,20,5,0,0,0,1,1769180400,8,'2026012315');
CREATE TABLE stickies (
        scope TEXT NOT NULL, day TEXT NOT NULL, label TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL,
        previous_label TEXT NOT NULL, activated_at_epoch INTEGER NOT NULL, expires_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (scope, day)) WITHOUT ROWID;
INSERT INTO "stickies" VALUES('ORG#acme#APP#chat','20260123','standard',1,'QUOTA_EXCEEDED','premium',1769180400,1769184000);
CREATE TABLE totals (
        scope TEXT NOT NULL, label TEXT NOT NULL, day TEXT NOT NULL, cost_pico_usd INTEGER NOT NULL CHECK (typeof(cost_pico_usd) = 'integer' AND cost_pico_usd >= 0), input_tokens INTEGER NOT NULL CHECK (typeof(input_tokens) = 'integer' AND input_tokens >= 0), output_tokens INTEGER NOT NULL CHECK (typeof(output_tokens) = 'integer' AND output_tokens >= 0), cache_read_tokens INTEGER NOT NULL CHECK (typeof(cache_read_tokens) = 'integer' AND cache_read_tokens >= 0), cache_write_5m_tokens INTEGER NOT NULL CHECK (typeof(cache_write_5m_tokens) = 'integer' AND cache_write_5m_tokens >= 0), cache_write_1h_tokens INTEGER NOT NULL CHECK (typeof(cache_write_1h_tokens) = 'integer' AND cache_write_1h_tokens >= 0), requests INTEGER NOT NULL CHECK (typeof(requests) = 'integer' AND requests >= 0), updated_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (scope, label, day)) WITHOUT ROWID;
INSERT INTO "totals" VALUES('ORG#acme#APP#chat','premium','20260123',1400000,20,5,0,0,0,1,1769180401);
CREATE TABLE writers (
        scope TEXT NOT NULL, label TEXT NOT NULL, day TEXT NOT NULL, shard INTEGER NOT NULL, writer_id TEXT NOT NULL, sequence INTEGER NOT NULL,
        PRIMARY KEY (scope, label, day, shard, writer_id)) WITHOUT ROWID;
INSERT INTO "writers" VALUES('ORG#acme#APP#chat','premium','20260123',3,'wAAAAAAAAAA',1);
CREATE INDEX shards_active_hour ON shards (active_hour);
COMMIT;
