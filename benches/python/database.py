"""Makes an SQLite database, `old`, and the same after a thousand statements, `new`, in the directory given; by a seed."""

import random
import shutil
import sqlite3
import sys

ROWS, STATEMENTS = 400_000, 1_000
WORDS = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey xray yankee zulu order invoice customer shipped pending failed retry timeout "
    "connection session warehouse payment refund gateway request response error warning info"
).split()
SCHEMA = """
PRAGMA journal_mode=DELETE;
PRAGMA page_size=4096;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, qty INT, price REAL, note TEXT, blob BLOB);
CREATE INDEX item_name ON item(name);
"""
INSERT = "INSERT INTO item(name,qty,price,note,blob) VALUES(?,?,?,?,?)"

folder, seed = sys.argv[1:]
rng = random.Random(f"{seed}/w10")


def name():
    return f"{rng.choice(WORDS)}-{rng.choice(WORDS)}-{rng.getrandbits(24):06x}"


def row():
    note = lambda: " ".join(rng.choices(WORDS, k=rng.randint(5, 20)))
    return name(), rng.randrange(10000), rng.random() * 1000, note(), rng.randbytes(rng.randint(20, 100))


database = sqlite3.connect(f"{folder}/old")
database.executescript(SCHEMA)
with database:
    database.executemany(INSERT, (row() for _ in range(ROWS)))
database.close()

shutil.copyfile(f"{folder}/old", f"{folder}/new")
database = sqlite3.connect(f"{folder}/new")
with database:
    for _ in range(STATEMENTS):
        kind, which = rng.random(), rng.randint(1, ROWS)
        if kind < 0.6:
            values = rng.randrange(10000), rng.random() * 1000, which
            database.execute("UPDATE item SET qty=?,price=? WHERE id=?", values)
        elif kind < 0.7:
            database.execute("UPDATE item SET name=? WHERE id=?", (name(), which))
        else:
            database.execute(INSERT, row())
database.close()
