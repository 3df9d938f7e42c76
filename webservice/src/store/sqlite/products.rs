//! The catalogue.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{SqliteStore, admin};
use crate::admin::AuditEntry;
use crate::product::{CURRENCY, Category, Position, Product, ProductBody, ProductQuery, Sort};
use crate::store::{ChangeError, StoreError};

/// A list in the order `$order`, continued where `$behind` holds. Parameters: 1 category, 2 search, 3 and 4 prices,
/// 5 limit, 6 to 8 id, price and name of the last product.
macro_rules! list {
    ($behind:literal, $order:literal) => {
        concat!(
            "SELECT id, name, description, price_minor, stock, category FROM products
             WHERE deleted_at IS NULL
               AND ($1 IS NULL OR category = $1)
               AND ($2 IS NULL OR lower(name) LIKE $2 ESCAPE '\\' OR lower(description) LIKE $2 ESCAPE '\\')
               AND ($3 IS NULL OR price_minor >= $3)
               AND ($4 IS NULL OR price_minor <= $4)
               AND ($6 IS NULL OR $7 IS NULL OR $8 IS NULL OR ",
            $behind,
            ") ORDER BY ",
            $order,
            " LIMIT $5"
        )
    };
}

fn list(sort: Sort) -> &'static str {
    match sort {
        Sort::Id => list!("id > $6", "id"),
        Sort::Newest => list!("id < $6", "id DESC"),
        Sort::Price => list!("(price_minor, id) > ($7, $6)", "price_minor, id"),
        Sort::PriceDown => list!("(price_minor, id) < ($7, $6)", "price_minor DESC, id DESC"),
        Sort::Name => list!("(name, id) > ($8, $6)", "name, id"),
    }
}

impl SqliteStore {
    pub(in crate::store) async fn products(&self, query: &ProductQuery) -> Result<Vec<Product>, StoreError> {
        let after = query.after.as_ref();
        let rows = sqlx::query(list(query.sort))
            .bind(query.category.as_deref())
            .bind(query.like_pattern())
            .bind(query.min_price)
            .bind(query.max_price)
            .bind(query.limit)
            .bind(after.map(|position| position.id))
            .bind(after.map(|position| position.price_minor))
            .bind(after.map(|Position { name, .. }| name))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(product).collect()
    }

    pub(in crate::store) async fn product(&self, id: i64) -> Result<Option<Product>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        one(&mut connection, id).await
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
        let mut writing = self.write().await?;
        let row = sqlx::query(
            "INSERT INTO products (name, description, price_minor, stock, category, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6)
             RETURNING id, name, description, price_minor, stock, category",
        )
        .bind(&body.name)
        .bind(&body.description)
        .bind(body.price_minor)
        .bind(body.stock)
        .bind(&body.category)
        .bind(Timestamp::now().as_millisecond())
        .fetch_one(&mut *writing.tx)
        .await?;
        let product = product(&row)?;
        let audit = AuditEntry { target: product.id.to_string(), ..audit.clone() };
        admin::record(&mut writing.tx, &audit).await?;
        writing.tx.commit().await?;
        Ok(product)
    }

    pub(in crate::store) async fn update_product(
        &self,
        id: i64,
        body: &ProductBody,
        expected: &(dyn Fn(&Product) -> bool + Sync),
        audit: &AuditEntry,
    ) -> Result<Product, ChangeError> {
        let mut writing = self.write().await?;
        let before = one(&mut writing.tx, id).await?.ok_or(ChangeError::Missing)?;
        if !expected(&before) {
            return Err(ChangeError::Changed);
        }
        let row = sqlx::query(
            "UPDATE products SET name = $2, description = $3, price_minor = $4, stock = $5, category = $6,
                                 updated_at = $7
             WHERE id = $1 RETURNING id, name, description, price_minor, stock, category",
        )
        .bind(id)
        .bind(&body.name)
        .bind(&body.description)
        .bind(body.price_minor)
        .bind(body.stock)
        .bind(&body.category)
        .bind(Timestamp::now().as_millisecond())
        .fetch_one(&mut *writing.tx)
        .await?;
        admin::record(&mut writing.tx, audit).await?;
        writing.tx.commit().await?;
        Ok(product(&row)?)
    }

    pub(in crate::store) async fn delete_product(
        &self,
        id: i64,
        expected: &(dyn Fn(&Product) -> bool + Sync),
        audit: &AuditEntry,
    ) -> Result<(), ChangeError> {
        let mut writing = self.write().await?;
        let before = one(&mut writing.tx, id).await?.ok_or(ChangeError::Missing)?;
        if !expected(&before) {
            return Err(ChangeError::Changed);
        }
        sqlx::query("UPDATE products SET deleted_at = $2, updated_at = $2, stock = 0 WHERE id = $1")
            .bind(id)
            .bind(Timestamp::now().as_millisecond())
            .execute(&mut *writing.tx)
            .await?;
        sqlx::query("DELETE FROM cart_items WHERE product_id = $1")
            .bind(id)
            .execute(&mut *writing.tx)
            .await?;
        admin::record(&mut writing.tx, audit).await?;
        Ok(writing.tx.commit().await?)
    }
}

async fn one(connection: &mut SqliteConnection, id: i64) -> Result<Option<Product>, StoreError> {
    let row = sqlx::query(
        "SELECT id, name, description, price_minor, stock, category FROM products
         WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(product).transpose()
}

fn product(row: &SqliteRow) -> Result<Product, StoreError> {
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
