-- Runs on SQLite and Postgres alike. The tables live in the inbox's database, so that a reservation, its inbox row and
-- its outbox row are one commit.
CREATE TABLE IF NOT EXISTS stock (
  sku TEXT PRIMARY KEY,
  available INTEGER NOT NULL CHECK (available >= 0)
);

-- No unique constraint on order_id, on purpose: here nothing but the inbox keeps an order from being reserved twice, and
-- whoever doubts it can count. In a shop of your own, have both.
CREATE TABLE IF NOT EXISTS reservations (
  order_id TEXT NOT NULL,
  sku TEXT NOT NULL,
  quantity INTEGER NOT NULL CHECK (quantity > 0)
);
