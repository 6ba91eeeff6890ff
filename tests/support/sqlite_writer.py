"""Writes to a SQLite database as fast as it can, in a container, and says so after each commit.

Arguments: the database and its journal mode. A line is `<number> <seconds since the epoch>`. Each transaction adds a
row of that number and rewrites some older ones, so that pages all over the file change; `total` counts the rows.
"""

import random
import sqlite3
import sys
import time

path, mode = sys.argv[1:]
database = sqlite3.connect(path, timeout=30, isolation_level=None)
database.execute(f"PRAGMA journal_mode = {mode}")
database.execute("CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, text TEXT)")
database.execute("CREATE INDEX IF NOT EXISTS by_text ON events (text)")
database.execute("CREATE TABLE IF NOT EXISTS total (count INTEGER)")
(number,) = database.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
if not number:
    database.execute("INSERT INTO total VALUES (0)")
while True:
    number += 1
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO events VALUES (?, ?)", (number, random.randbytes(200).hex()))
    for _ in range(5):
        database.execute(
            "UPDATE events SET text = ? WHERE number = ?", (random.randbytes(200).hex(), random.randint(1, number))
        )
    database.execute("UPDATE total SET count = count + 1")
    database.execute("COMMIT")
    print(number, f"{time.time():.6f}", flush=True)
    time.sleep(0.001)
