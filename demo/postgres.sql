CREATE SCHEMA IF NOT EXISTS bakery;
SET LOCAL search_path = bakery;
CREATE TABLE IF NOT EXISTS categories (
  id integer PRIMARY KEY,
  name text NOT NULL,
  shelf text,
  vat numeric
);
CREATE TABLE IF NOT EXISTS products (
  id text PRIMARY KEY,
  name text NOT NULL,
  price integer NOT NULL,
  category_id integer REFERENCES categories,
  description text
);
CREATE TABLE IF NOT EXISTS orders (
  id text PRIMARY KEY,
  product_id text NOT NULL REFERENCES products,
  quantity integer NOT NULL CHECK (quantity > 0),
  price integer NOT NULL,
  customer text,
  status text
);
