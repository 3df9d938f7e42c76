-- Carts, what administrators do, products that are no longer sold.
-- A deleted product stays for the orders that name it; its stock is 0, so that an older shop on this database,
-- which does not know deleted_at, shows it as sold out.
ALTER TABLE products ADD COLUMN deleted_at TIMESTAMPTZ;
ALTER TABLE orders ADD COLUMN updated_at TIMESTAMPTZ;

CREATE TABLE cart_items (
  session VARCHAR(64) NOT NULL,
  product_id INT NOT NULL REFERENCES products (id),
  quantity INT NOT NULL CHECK (quantity BETWEEN 1 AND 100),
  updated_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (session, product_id)
);

CREATE TABLE audit_log (
  id SERIAL PRIMARY KEY,
  at TIMESTAMPTZ NOT NULL,
  actor VARCHAR(128) NOT NULL,
  client VARCHAR(45) NOT NULL,
  request_id VARCHAR(64) NOT NULL,
  action VARCHAR(50) NOT NULL,
  target VARCHAR(64) NOT NULL,
  detail TEXT NOT NULL
);

-- What was done stays done: records can be added, not changed.
CREATE FUNCTION audit_log_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'records of the audit log are final';
END
$$;
CREATE TRIGGER audit_log_is_final BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION audit_log_is_final();

CREATE INDEX idx_cart_items_updated ON cart_items (updated_at);
CREATE INDEX idx_products_price ON products (price, id);
CREATE INDEX idx_products_name ON products (name COLLATE "C", id);
CREATE INDEX idx_orders_status ON orders (status, id);
