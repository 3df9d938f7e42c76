//! The catalogue.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::{PostgresStore, admin};
use crate::admin::AuditEntry;
use crate::product::{CURRENCY, Category, Position, Product, ProductBody, ProductQuery, Sort};
use crate::store::{ChangeError, StoreError};

/// A list in the order `$order`, continued where `$behind` holds. Parameters: 1 category, 2 search, 3 and 4 prices,
/// 5 limit, 6 to 8 id, price and name of the last product.
macro_rules! list {
    ($behind:literal, $order:literal) => {
        concat!(
            "SELECT id::bigint, name, description, (price * 100)::bigint, stock::bigint, category FROM products
             WHERE deleted_at IS NULL
               AND ($1::text IS NULL OR category = $1)
               AND ($2::text IS NULL OR lower(name) LIKE $2 ESCAPE '\\' OR lower(description) LIKE $2 ESCAPE '\\')
               AND ($3::bigint IS NULL OR price >= $3::numeric / 100)
               AND ($4::bigint IS NULL OR price <= $4::numeric / 100)
               AND ($6::int IS NULL OR $7::bigint IS NULL OR $8::text IS NULL OR ",
            $behind,
            ") ORDER BY ",
            $order,
            " LIMIT $5::bigint"
        )
    };
}

fn list(sort: Sort) -> &'static str {
    match sort {
        Sort::Id => list!("id > $6::int", "id"),
        Sort::Newest => list!("id < $6::int", "id DESC"),
        Sort::Price => list!("(price, id) > ($7::numeric / 100, $6::int)", "price, id"),
        Sort::PriceDown => list!("(price, id) < ($7::numeric / 100, $6::int)", "price DESC, id DESC"),
        Sort::Name => list!("(name COLLATE \"C\", id) > ($8, $6::int)", "name COLLATE \"C\", id"),
    }
}

impl PostgresStore {
    pub(in crate::store) async fn products(&self, query: &ProductQuery) -> Result<Vec<Product>, StoreError> {
        let after = query.after.as_ref();
        let rows = sqlx::query(list(query.sort))
            .bind(query.category.as_deref())
            .bind(query.like_pattern())
            .bind(query.min_price)
            .bind(query.max_price)
            .bind(query.limit)
            .bind(after.map(|position| position.id as i32))
            .bind(after.map(|position| position.price_minor))
            .bind(after.map(|Position { name, .. }| name))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(product).collect()
    }

    pub(in crate::store) async fn product(&self, id: i64) -> Result<Option<Product>, StoreError> {
        let row = sqlx::query(
            "SELECT id::bigint, name, description, (price * 100)::bigint, stock::bigint, category FROM products
             WHERE id = $1::int AND deleted_at IS NULL",
        )
        .bind(id as i32)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(product).transpose()
    }

    pub(in crate::store) async fn categories(&self) -> Result<Vec<Category>, StoreError> {
        let rows = sqlx::query(
            "SELECT category, count(*) FROM products WHERE deleted_at IS NULL GROUP BY category ORDER BY category",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(Category { name: row.try_get(0)?, products: row.try_get(1)? })).collect()
    }

    pub(in crate::store) async fn create_product(
        &self,
        body: &ProductBody,
        audit: &AuditEntry,
    ) -> Result<Product, StoreError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query(
            "INSERT INTO products (name, description, price, stock, category)
             VALUES ($1, $2, $3::numeric / 100, $4::bigint, $5)
             RETURNING id::bigint, name, description, (price * 100)::bigint, stock::bigint, category",
        )
        .bind(&body.name)
        .bind(&body.description)
        .bind(body.price_minor)
        .bind(body.stock)
        .bind(&body.category)
        .fetch_one(&mut *tx)
        .await?;
        let product = product(&row)?;
        let audit = AuditEntry { target: product.id.to_string(), ..audit.clone() };
        admin::record(&mut tx, &audit).await?;
        tx.commit().await?;
        Ok(product)
    }

    pub(in crate::store) async fn update_product(
        &self,
        id: i64,
        body: &ProductBody,
        expected: &(dyn Fn(&Product) -> bool + Sync),
        audit: &AuditEntry,
    ) -> Result<Product, ChangeError> {
        let mut tx = self.pool.begin().await?;
        let before = locked(&mut tx, id).await?.ok_or(ChangeError::Missing)?;
        if !expected(&before) {
            return Err(ChangeError::Changed);
        }
        let row = sqlx::query(
            "UPDATE products SET name = $2, description = $3, price = $4::numeric / 100, stock = $5::bigint,
                                 category = $6, updated_at = NOW()
             WHERE id = $1::int
             RETURNING id::bigint, name, description, (price * 100)::bigint, stock::bigint, category",
        )
        .bind(id as i32)
        .bind(&body.name)
        .bind(&body.description)
        .bind(body.price_minor)
        .bind(body.stock)
        .bind(&body.category)
        .fetch_one(&mut *tx)
        .await?;
        admin::record(&mut tx, audit).await?;
        tx.commit().await?;
        Ok(product(&row)?)
    }

    pub(in crate::store) async fn delete_product(
        &self,
        id: i64,
        expected: &(dyn Fn(&Product) -> bool + Sync),
        audit: &AuditEntry,
    ) -> Result<(), ChangeError> {
        let mut tx = self.pool.begin().await?;
        let before = locked(&mut tx, id).await?.ok_or(ChangeError::Missing)?;
        if !expected(&before) {
            return Err(ChangeError::Changed);
        }
        sqlx::query(
            "UPDATE products SET deleted_at = NOW(), updated_at = NOW(), stock = 0 WHERE id = $1::int",
        )
        .bind(id as i32)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM cart_items WHERE product_id = $1::int")
            .bind(id as i32)
            .execute(&mut *tx)
            .await?;
        admin::record(&mut tx, audit).await?;
        Ok(tx.commit().await?)
    }
}

/// The product as it is, and stays until the transaction ends.
async fn locked(connection: &mut PgConnection, id: i64) -> Result<Option<Product>, StoreError> {
    let row = sqlx::query(
        "SELECT id::bigint, name, description, (price * 100)::bigint, stock::bigint, category FROM products
         WHERE id = $1::int AND deleted_at IS NULL FOR UPDATE",
    )
    .bind(id as i32)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(product).transpose()
}

fn product(row: &PgRow) -> Result<Product, StoreError> {
    Ok(Product {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        description: row.try_get(2)?,
        price_minor: row.try_get(3)?,
        currency: CURRENCY,
        stock: row.try_get(4)?,
        category: row.try_get(5)?,
    })
}
