-- What the shop itself keeps: its orders, and the products as it changed them (filled from products.csv).
CREATE TABLE products (
  id TEXT PRIMARY KEY,
  name TEXT,
  price INTEGER,
  category_id INTEGER,
  description TEXT
);

CREATE TABLE orders (
  id TEXT PRIMARY KEY,
  product_id TEXT NOT NULL,
  quantity INTEGER NOT NULL,
  price INTEGER NOT NULL,
  customer TEXT,
  status TEXT
);

INSERT INTO orders (id, product_id, quantity, price, customer, status) VALUES
  ('1001', 'sourdough', 2, 1380, 'Ada', 'paid'),
  ('1002', 'butter-croissant', 4, 1160, 'Grace', 'paid'),
  ('1003', 'flat-white', 1, 380, 'Grace', 'paid'),
  ('1004', 'black-forest', 1, 520, 'Linus', 'paid'),
  ('1005', 'pretzel', 6, 1620, 'Edsger', 'paid'),
  ('1006', 'espresso', 2, 500, 'Barbara', 'paid'),
  ('1007', 'cinnamon-roll', 3, 1140, 'Margaret', 'paid'),
  ('1008', 'rye', 1, 740, 'Donald', 'paid'),
  ('1009', 'lemon-tart', 2, 920, 'Frances', 'paid'),
  ('1010', 'baguette', 5, 1600, 'Ken', 'paid'),
  ('1011', 'macaron', 12, 3000, 'Radia', 'paid'),
  ('1012', 'hot-chocolate', 2, 840, 'Alan', 'paid'),
  ('1013', 'opera', 1, 540, 'Hedy', 'ready'),
  ('1014', 'kouign-amann', 2, 880, 'Tony', 'ready'),
  ('1015', 'shortbread', 10, 1800, 'Ada', 'ready'),
  ('1016', 'victoria', 1, 430, 'Katherine', 'baking'),
  ('1017', 'sourdough', 1, 690, 'Dennis', 'baking'),
  ('1018', 'cardamom-bun', 4, 1440, 'Shafi', 'baking'),
  ('1019', 'blueberry-muffin', 3, 930, 'Leslie', 'new'),
  ('1020', 'focaccia', 2, 900, 'Sophie', 'new');
