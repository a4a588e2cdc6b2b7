"""Times queries of DuckDB over the rows of benches/products, for benches/scans.rs: python3 scans.py ROWS SQL..."""

import sys
import time

import duckdb

ROWS = """
CREATE TABLE products AS SELECT
    printf('p%08d', i) AS id,
    'Product number ' || i || ' of the bakery' AS name,
    i % 50 AS category_id,
    i * 7919 % 10000 AS price,
    i % 300 AS stock,
    'A ' || ['round', 'flat', 'braided', 'sweet'][i % 4 + 1] || ' ' || ['bun', 'loaf', 'tart', 'muffin'][i // 4 % 4 + 1]
        || ' of the ' || i // 16 || 'th batch, baked in the morning, kept on the ' || i % 97 || 'th shelf, sold by weight' AS description
FROM range({}) AS rows(i)
"""


def main(rows, queries):
    database = duckdb.connect()
    database.execute("SET threads = 1")
    database.execute(ROWS.format(int(rows)))
    for sql in queries:
        database.execute(sql).fetchall()
        started, began, times = time.process_time(), time.monotonic(), 0
        while times < 3 or time.monotonic() - began < 0.5:
            database.execute(sql).fetchall()
            times += 1
        print((time.process_time() - started) / times)


main(sys.argv[1], sys.argv[2:])
