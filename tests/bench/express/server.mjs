// The same two things that the shop does, on the same tables, as one writes them with Express and pg: JSON bodies,
// a pool of the same size, prepared statements, a transaction for an order. Nothing is kept between requests unless
// CATALOGUE_CACHE_MS says so, which then does what the shop does.

import express from "express";
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.DATABASE_POOL_SIZE || 8) });
const keep = Number(process.env.CATALOGUE_CACHE_MS || 0);
const kept = new Map();
const app = express();
app.disable("x-powered-by");
app.use(express.json({ limit: "64kb" }));

const product = (row) => ({
  id: row.id, name: row.name, description: row.description, priceMinor: Number(row.price_minor), currency: "BDT",
  stock: row.stock, category: row.category,
});

app.get("/api/products", async (request, response) => {
  const limit = Number(request.query.limit ?? 24);
  if (!Number.isInteger(limit) || limit < 1 || limit > 100) return response.status(400).json({ title: "limit" });
  const key = request.originalUrl;
  const known = kept.get(key);
  if (known && Date.now() - known.at < keep) return response.json(known.body);
  const { rows } = await pool.query({
    name: "list",
    text: `SELECT id, name, description, (price * 100)::bigint AS price_minor, stock, category FROM products
           WHERE ($1::text IS NULL OR category = $1) ORDER BY id LIMIT $2`,
    values: [request.query.category ?? null, limit + 1],
  });
  const body = {
    items: rows.slice(0, limit).map(product),
    nextCursor: rows.length > limit ? "after-" + rows[limit - 1].id : null,
  };
  if (keep) kept.set(key, { at: Date.now(), body });
  return response.json(body);
});

app.post("/api/orders", async (request, response) => {
  const items = request.body?.items;
  if (!Array.isArray(items) || !items.length || items.some((i) => !(i.productId > 0 && i.quantity > 0 && i.quantity <= 100))) {
    return response.status(400).json({ title: "items" });
  }
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const lines = [];
    for (const { productId, quantity } of [...items].sort((a, b) => a.productId - b.productId)) {
      const { rows } = await client.query({
        name: "take",
        text: `UPDATE products SET stock = stock - $1, updated_at = NOW() WHERE id = $2 AND stock >= $1
               RETURNING name, (price * 100)::bigint AS price_minor`,
        values: [quantity, productId],
      });
      if (!rows.length) {
        await client.query("ROLLBACK");
        return response.status(409).json({ title: "Not enough in stock" });
      }
      lines.push({ productId, name: rows[0].name, quantity, unitPriceMinor: Number(rows[0].price_minor) });
    }
    const totalMinor = lines.reduce((sum, line) => sum + line.quantity * line.unitPriceMinor, 0);
    const number = "DC-" + crypto.randomUUID();
    const placed = await client.query({
      name: "order",
      text: `INSERT INTO orders (order_number, session, total_amount, status)
             VALUES ($1, $2, $3::numeric / 100, 'placed') RETURNING id, created_at`,
      values: [number, crypto.randomUUID(), totalMinor],
    });
    for (const line of lines) {
      await client.query({
        name: "line",
        text: `INSERT INTO order_items (order_id, product_id, product_name, quantity, unit_price)
               VALUES ($1, $2, $3, $4, $5::numeric / 100)`,
        values: [placed.rows[0].id, line.productId, line.name, line.quantity, line.unitPriceMinor],
      });
    }
    await client.query("COMMIT");
    return response.status(201).json({
      number, status: "placed", items: lines, totalMinor, currency: "BDT", createdAt: placed.rows[0].created_at,
    });
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
});

app.listen(Number(process.env.PORT || 3000), "127.0.0.1");
