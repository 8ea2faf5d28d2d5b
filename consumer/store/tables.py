"""The statements of the local store.

Values lie in ordinary tables and not in ``WITHOUT ROWID`` ones: an image is larger than a B-tree of keys takes in one
piece, and would spill into pages of its own (SQLite "Clustered Indexes and the WITHOUT ROWID Optimization").
"""

from __future__ import annotations

FORMAT = 2
"""Version of these tables; a file of another version is rebuilt."""

CREATE = """
CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE objects (number INTEGER PRIMARY KEY, entity TEXT NOT NULL UNIQUE, records INTEGER NOT NULL DEFAULT 0);
CREATE TABLE states (object INTEGER NOT NULL, id TEXT NOT NULL, deleted_ms INTEGER, value BLOB NOT NULL);
CREATE UNIQUE INDEX states_key ON states (object, id);
CREATE INDEX states_deleted ON states (object, deleted_ms) WHERE deleted_ms IS NOT NULL;
CREATE TRIGGER states_more AFTER INSERT ON states BEGIN
    UPDATE objects SET records = records + 1 WHERE number = NEW.object;
END;
CREATE TRIGGER states_less AFTER DELETE ON states BEGIN
    UPDATE objects SET records = records - 1 WHERE number = OLD.object;
END;
CREATE TABLE ledger (
    object INTEGER NOT NULL, id TEXT NOT NULL, due_ms INTEGER, facts INTEGER NOT NULL, shares_due_ms INTEGER,
    written INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE UNIQUE INDEX ledger_key ON ledger (object, id);
CREATE INDEX ledger_due ON ledger (object, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX ledger_facts ON ledger (object, written) WHERE facts;
CREATE INDEX ledger_shares_due ON ledger (object, shares_due_ms) WHERE shares_due_ms IS NOT NULL;
CREATE TABLE access (object INTEGER NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL);
CREATE UNIQUE INDEX access_key ON access (object, id);
CREATE TABLE offsets (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE jobs (number INTEGER PRIMARY KEY, object INTEGER NOT NULL, job TEXT NOT NULL, UNIQUE (object, job));
CREATE TABLE seen (job INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (job, id)) WITHOUT ROWID;
"""

SET_IDENTITY = "INSERT INTO identity VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
SET_OFFSET = "INSERT INTO offsets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next"
SET_STATE = """
INSERT INTO states (object, id, deleted_ms, value) VALUES (?, ?, ?, ?)
ON CONFLICT (object, id) DO UPDATE SET deleted_ms = excluded.deleted_ms, value = excluded.value
"""
SET_LEDGER = """
INSERT INTO ledger (object, id, due_ms, facts, shares_due_ms, written, value) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (object, id) DO UPDATE SET
    due_ms = excluded.due_ms, facts = excluded.facts, shares_due_ms = excluded.shares_due_ms,
    written = excluded.written, value = excluded.value
"""
SET_ACCESS = """
INSERT INTO access (object, id, value) VALUES (?, ?, ?) ON CONFLICT (object, id) DO UPDATE SET value = excluded.value
"""
GET_STATE = "SELECT value FROM states WHERE object = ? AND id = ?"
GET_LEDGER = "SELECT value FROM ledger WHERE object = ? AND id = ?"
GET_ACCESS = "SELECT value FROM access WHERE object = ? AND id = ?"
REMOVE_STATE = "DELETE FROM states WHERE object = ? AND id = ?"
REMOVE_LEDGER = "DELETE FROM ledger WHERE object = ? AND id = ?"
REMOVE_ACCESS = "DELETE FROM access WHERE object = ? AND id = ?"
GET_STATES = "SELECT id, value FROM states WHERE object = ? AND id IN (SELECT value FROM json_each(?))"
GET_LEDGERS = "SELECT id, value FROM ledger WHERE object = ? AND id IN (SELECT value FROM json_each(?))"
MANY = 100
"""Records that are read by one statement."""

DUE = "SELECT id FROM ledger WHERE object = ? AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"
SHARES_DUE = "SELECT id FROM ledger WHERE object = ? AND shares_due_ms <= ? ORDER BY shares_due_ms, id LIMIT ?"
UNSETTLED = "SELECT id FROM ledger WHERE object = ? AND facts ORDER BY written LIMIT ?"
EXPIRED = "SELECT id FROM states WHERE object = ? AND deleted_ms < ? ORDER BY deleted_ms, id LIMIT ?"
# Two sorted lists are merged, and only what is left is looked at: ten times faster than looking each record up.
UNSEEN = """
SELECT id FROM (
    SELECT id FROM states WHERE object = :object AND id > :after
    EXCEPT SELECT id FROM seen WHERE job = :job AND id > :after
    ORDER BY id
) AS missed
WHERE NOT EXISTS (
    SELECT 1 FROM states WHERE object = :object AND states.id = missed.id AND deleted_ms IS NOT NULL
)
LIMIT :limit
"""
UNSEEN_ACCESS = """
SELECT id FROM access WHERE object = :object AND id > :after
EXCEPT SELECT id FROM seen WHERE job = :job AND id > :after
ORDER BY id LIMIT :limit
"""
ENTITIES = "SELECT entity FROM objects WHERE records > 0 ORDER BY entity"
RECORDS = "SELECT records FROM objects WHERE entity = ?"
OFFSETS = "SELECT topic, partition, next FROM offsets"

ADD_JOB = "INSERT INTO jobs (object, job) VALUES (?, ?) ON CONFLICT DO NOTHING"
JOB = "SELECT number FROM jobs WHERE object = ? AND job = ?"
SEE = "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING"
OLD_JOBS = "SELECT number FROM jobs WHERE object = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
FORGET_SEEN = "DELETE FROM seen WHERE (job, id) IN (SELECT job, id FROM seen WHERE job = ? LIMIT ?)"
FORGET_JOB = "DELETE FROM jobs WHERE number = ?"
