-- Carts, what administrators do, products that are no longer sold.
-- A deleted product stays for the orders that name it; its stock is 0, so that an older shop on this database,
-- which does not know deleted_at, shows it as sold out.
ALTER TABLE products ADD COLUMN deleted_at INTEGER;
ALTER TABLE orders ADD COLUMN updated_at INTEGER;

CREATE TABLE cart_items (
  session TEXT NOT NULL,
  product_id INTEGER NOT NULL REFERENCES products (id),
  quantity INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 100),
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (session, product_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  client TEXT NOT NULL,
  request_id TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;

-- What was done stays done: records can be added, not changed.
CREATE TRIGGER audit_log_is_final_update BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'records of the audit log are final'); END;
CREATE TRIGGER audit_log_is_final_delete BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'records of the audit log are final'); END;

CREATE INDEX idx_cart_items_updated ON cart_items (updated_at);
CREATE INDEX idx_products_price ON products (price_minor, id);
CREATE INDEX idx_products_name ON products (name, id);
CREATE INDEX idx_orders_status ON orders (status, id);
