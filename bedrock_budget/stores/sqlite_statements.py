"""The SQLite store's schema and statements."""

# ruff: noqa: S608 - the statements are put together from the constants below and nothing else

COUNTERS = (
    "cost_pico_usd",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "requests",
)
_COUNTERS = ", ".join(COUNTERS)
_COUNTER_TYPES = ", ".join(
    # typeof: an addition beyond 2^63-1 gives a REAL, which must not get in, because it has lost digits
    f"{name} INTEGER NOT NULL CHECK (typeof({name}) = 'integer' AND {name} >= 0)"
    for name in COUNTERS
)
_KEY_TYPES = "scope TEXT NOT NULL, label TEXT NOT NULL, day TEXT NOT NULL"
_KEY = "scope = ? AND label = ? AND day = ?"

#: Version 1 of the schema.
_FIRST = (
    f"""CREATE TABLE shards (
        {_KEY_TYPES}, shard INTEGER NOT NULL, {_COUNTER_TYPES},
        updated_at_epoch INTEGER NOT NULL, shard_count INTEGER NOT NULL, active_hour TEXT NOT NULL,
        PRIMARY KEY (scope, label, day, shard)) WITHOUT ROWID""",
    "CREATE INDEX shards_active_hour ON shards (active_hour)",
    # The last sequence number applied of each writer. Never pruned: a replay after pruning would count twice.
    f"""CREATE TABLE writers (
        {_KEY_TYPES}, shard INTEGER NOT NULL, writer_id TEXT NOT NULL, sequence INTEGER NOT NULL,
        PRIMARY KEY (scope, label, day, shard, writer_id)) WITHOUT ROWID""",
    f"""CREATE TABLE totals (
        {_KEY_TYPES}, {_COUNTER_TYPES}, updated_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (scope, label, day)) WITHOUT ROWID""",
    """CREATE TABLE stickies (
        scope TEXT NOT NULL, day TEXT NOT NULL, label TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL,
        previous_label TEXT NOT NULL, activated_at_epoch INTEGER NOT NULL, expires_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (scope, day)) WITHOUT ROWID""",
    # app_id '' is the org itself: ids are never empty
    """CREATE TABLE overrides (
        org_id TEXT NOT NULL, app_id TEXT NOT NULL, label TEXT NOT NULL, reason TEXT NOT NULL,
        created_by TEXT NOT NULL, created_at_epoch INTEGER NOT NULL, expires_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (org_id, app_id)) WITHOUT ROWID""",
    """CREATE TABLE configs (
        org_id TEXT NOT NULL, app_id TEXT NOT NULL, item TEXT NOT NULL,
        PRIMARY KEY (org_id, app_id)) WITHOUT ROWID""",
)

_LEASES = (
    f"""CREATE TABLE leases (
        {_KEY_TYPES}, granted_pico_usd INTEGER NOT NULL CHECK (typeof(granted_pico_usd) = 'integer'),
        expires_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (scope, label, day)) WITHOUT ROWID""",
    # The last sequence number applied of each holder.
    f"""CREATE TABLE lease_holders (
        {_KEY_TYPES}, holder_id TEXT NOT NULL, sequence INTEGER NOT NULL,
        PRIMARY KEY (scope, label, day, holder_id)) WITHOUT ROWID""",
)

_STOPS = (
    # expires_at_epoch NULL: until it is lifted. automatic_day: the last org day that an automatic stop was made for
    """CREATE TABLE stops (
        org_id TEXT NOT NULL, app_id TEXT NOT NULL, stopped_by TEXT NOT NULL, reason TEXT NOT NULL,
        stopped_at_epoch INTEGER NOT NULL, expires_at_epoch INTEGER, automatic_day TEXT NOT NULL DEFAULT '',
        lifted_by TEXT, lifted_at_epoch INTEGER,
        PRIMARY KEY (org_id, app_id)) WITHOUT ROWID""",
)

_PRICES = (
    # variants: JSON, price in pico-USD by what it is the price of
    """CREATE TABLE prices (
        model_id TEXT NOT NULL, price_key TEXT NOT NULL, variants TEXT NOT NULL, fetched_at_epoch INTEGER NOT NULL,
        expires_at_epoch INTEGER NOT NULL, label TEXT NOT NULL, family TEXT NOT NULL, description TEXT NOT NULL,
        PRIMARY KEY (model_id, price_key)) WITHOUT ROWID""",
)

_PROFILES = (
    """CREATE TABLE profiles (
        org_id TEXT NOT NULL, app_id TEXT NOT NULL, label TEXT NOT NULL, arn TEXT NOT NULL, description TEXT NOT NULL,
        created_at_epoch INTEGER NOT NULL, updated_at_epoch INTEGER NOT NULL,
        PRIMARY KEY (org_id, app_id, label)) WITHOUT ROWID""",
)

#: What makes each version of the schema from the one before; the first from an empty file.
MIGRATIONS = {1: _FIRST, 2: _STOPS, 3: _LEASES, 4: _PRICES, 5: _PROFILES}
SCHEMA_VERSION = max(MIGRATIONS)

GET_SEQUENCE = f"SELECT sequence FROM writers WHERE {_KEY} AND shard = ? AND writer_id = ?"
GET_LAST_SEQUENCE = f"SELECT max(sequence) FROM writers WHERE {_KEY} AND shard < ? AND writer_id = ?"
PUT_SEQUENCE = (
    "INSERT INTO writers (scope, label, day, shard, writer_id, sequence) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (scope, label, day, shard, writer_id) DO UPDATE SET sequence = excluded.sequence"
)

GET_SHARDS = f"SELECT {_COUNTERS}, shard_count FROM shards WHERE {_KEY}"
ADD_TO_SHARD = (
    f"INSERT INTO shards (scope, label, day, shard, {_COUNTERS}, updated_at_epoch, shard_count, active_hour) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope, label, day, shard) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTERS)
    + ", updated_at_epoch = excluded.updated_at_epoch, shard_count = max(shard_count, excluded.shard_count), "
    "active_hour = excluded.active_hour"
)
GET_ACTIVE = "SELECT scope, label, day, max(shard) FROM shards WHERE active_hour = ? GROUP BY scope, label, day"

GET_TOTAL = f"SELECT {_COUNTERS}, updated_at_epoch FROM totals WHERE {_KEY}"
PUT_TOTAL = (
    f"INSERT OR REPLACE INTO totals (scope, label, day, {_COUNTERS}, updated_at_epoch) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

GET_STICKY = (
    "SELECT label, position, reason, previous_label, activated_at_epoch, expires_at_epoch FROM stickies "
    "WHERE scope = ? AND day = ?"
)
PUT_STICKY = (
    "INSERT OR REPLACE INTO stickies (scope, day, label, position, reason, previous_label, activated_at_epoch, "
    "expires_at_epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
DELETE_STICKY = "DELETE FROM stickies WHERE scope = ? AND day = ?"

# The app's override before the org's: '' sorts first.
GET_OVERRIDE = (
    "SELECT label, reason, created_by, created_at_epoch, expires_at_epoch FROM overrides "
    "WHERE org_id = ? AND app_id IN ('', ?) AND expires_at_epoch > ? ORDER BY app_id DESC LIMIT 1"
)
PUT_OVERRIDE = (
    "INSERT OR REPLACE INTO overrides (org_id, app_id, label, reason, created_by, created_at_epoch, "
    "expires_at_epoch) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
DELETE_OVERRIDE = "DELETE FROM overrides WHERE org_id = ? AND app_id = ?"

_STOP = "nullif(app_id, ''), stopped_by, reason, stopped_at_epoch, expires_at_epoch"
_STOP_COLUMNS = "org_id, app_id, stopped_by, reason, stopped_at_epoch, expires_at_epoch, automatic_day"
_STANDS = "lifted_at_epoch IS NULL AND (expires_at_epoch IS NULL OR expires_at_epoch > ?)"
# The org's before its apps': '' sorts first.
GET_STOPS = f"SELECT {_STOP} FROM stops WHERE org_id = ? AND app_id IN ('', ?) AND {_STANDS} ORDER BY app_id"
GET_ALL_STOPS = f"SELECT {_STOP} FROM stops WHERE org_id = ? AND {_STANDS} ORDER BY app_id"
GET_STOP = f"SELECT {_STOP}, automatic_day, lifted_by, lifted_at_epoch FROM stops WHERE org_id = ? AND app_id = ?"
PUT_STOP = (
    f"INSERT INTO stops ({_STOP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (org_id, app_id) DO UPDATE SET "
    "stopped_by = excluded.stopped_by, reason = excluded.reason, stopped_at_epoch = excluded.stopped_at_epoch, "
    "expires_at_epoch = excluded.expires_at_epoch, automatic_day = max(automatic_day, excluded.automatic_day), "
    "lifted_by = NULL, lifted_at_epoch = NULL"
)
LIFT_STOP = "UPDATE stops SET lifted_by = ?, lifted_at_epoch = ? WHERE org_id = ? AND app_id = ?"

GET_CONFIGS = "SELECT app_id, item FROM configs WHERE org_id = ? AND app_id IN ('', ?)"
PUT_CONFIG = "INSERT OR REPLACE INTO configs (org_id, app_id, item) VALUES (?, ?, ?)"
GET_APPS = "SELECT app_id FROM configs WHERE org_id = ? AND app_id != ''"

# The org's before the app's: '' sorts first.
GET_PROFILES = (
    "SELECT nullif(app_id, ''), label, arn, description, created_at_epoch, updated_at_epoch FROM profiles "
    "WHERE org_id = ? AND app_id IN ('', ?) ORDER BY app_id, label"
)
PUT_PROFILE = (
    "INSERT INTO profiles (org_id, app_id, label, arn, description, created_at_epoch, updated_at_epoch) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (org_id, app_id, label) DO UPDATE SET arn = excluded.arn, "
    "description = excluded.description, updated_at_epoch = excluded.updated_at_epoch"
)
DELETE_PROFILE = "DELETE FROM profiles WHERE org_id = ? AND app_id = ? AND label = ?"

GET_POOL = f"SELECT granted_pico_usd FROM leases WHERE {_KEY}"
PUT_POOL = (
    "INSERT OR REPLACE INTO leases (scope, label, day, granted_pico_usd, expires_at_epoch) VALUES (?, ?, ?, ?, ?)"
)
GET_HOLDER = f"SELECT sequence FROM lease_holders WHERE {_KEY} AND holder_id = ?"
PUT_HOLDER = "INSERT OR REPLACE INTO lease_holders (scope, label, day, holder_id, sequence) VALUES (?, ?, ?, ?, ?)"
