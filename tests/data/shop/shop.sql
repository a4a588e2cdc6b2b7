CREATE TABLE products (id TEXT PRIMARY KEY, name TEXT NOT NULL, price INTEGER, category_id TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, product_id TEXT NOT NULL, quantity INTEGER NOT NULL, paid BOOLEAN, note TEXT);
INSERT INTO orders VALUES (1, 'muffin', 12, 1, NULL), (2, 'rye', 1, 0, 'sliced'), (3, 'eclair', 6, NULL, NULL);
