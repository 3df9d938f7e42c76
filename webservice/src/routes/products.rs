//! The catalogue: for everybody to read, for administrators to change.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::call::{Call, call, identifier};
use super::{answer, nothing};
use crate::app::{App, store_problem};
use crate::encode::Encoded;
use crate::problem::Problem;
use crate::product::{Product, ProductBody, ProductQuery};
use crate::store::ChangeError;

const JSON: &str = "application/json";

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let all = || warp::path!("api" / "products");
    let one = || warp::path!("api" / "products" / String);
    let listed = all().and(warp::get()).and(call(app)).then(|call| answer(list(call)));
    let created = all().and(warp::post()).and(call(app)).then(|call| answer(create(call)));
    let got = one().and(warp::get()).and(call(app)).then(|id, call| answer(get(id, call)));
    let updated = one().and(warp::put()).and(call(app)).then(|id, call| answer(update(id, call)));
    let deleted = one().and(warp::delete()).and(call(app)).then(|id, call| answer(delete(id, call)));
    let counted = warp::path!("api" / "categories")
        .and(warp::get())
        .and(call(app))
        .then(|call| answer(categories(call)));
    listed
        .or(got)
        .unify()
        .or(counted)
        .unify()
        .or(created)
        .unify()
        .or(updated)
        .unify()
        .or(deleted)
        .unify()
        .boxed()
}

fn encoded(body: &impl Serialize) -> Encoded {
    // Structs of strings and numbers always serialise.
    Encoded::new(serde_json::to_vec(body).unwrap_or_default().into())
}

async fn list(call: Call) -> Result<Response, Problem> {
    let query = ProductQuery::from_pairs(&call.query)?;
    let app = &call.app;
    let key = query.key();
    let asking = async {
        // One more than asked for tells whether there is a next page.
        let wider = ProductQuery { limit: query.limit + 1, ..query.clone() };
        let mut items = app.store()?.products(&wider).await.map_err(|e| store_problem(&e))?;
        let more = items.len() as i64 > query.limit;
        items.truncate(query.limit as usize);
        let next = if more { items.last().map(|last| query.cursor(last)) } else { None };
        Ok::<_, Problem>(encoded(&json!({ "items": items, "nextCursor": next })))
    };
    let (body, source) = app.cache.get(&key, asking).await?;
    app.edge.metrics.catalogue(source);
    Ok(body.answer(&call.headers, JSON))
}

async fn categories(call: Call) -> Result<Response, Problem> {
    let asking = async {
        let items = call.store()?.categories().await.map_err(|e| store_problem(&e))?;
        Ok::<_, Problem>(encoded(&json!({ "items": items })))
    };
    let (body, source) = call.app.cache.get("categories", asking).await?;
    call.app.edge.metrics.catalogue(source);
    Ok(body.answer(&call.headers, JSON))
}

fn missing() -> Problem {
    Problem::not_found("there is no such product")
}

async fn get(id: String, call: Call) -> Result<Response, Problem> {
    let id = identifier(&id).ok_or_else(missing)?;
    let product = call.store()?.product(id).await.map_err(|e| store_problem(&e))?;
    Ok(encoded(&product.ok_or_else(missing)?).answer(&call.headers, JSON))
}

async fn create(call: Call) -> Result<Response, Problem> {
    let admin = call.admin()?;
    let body: ProductBody = call.json()?;
    body.check()?;
    let audit = call.audit(admin, "product.create", "", json!(body));
    let created = call.store()?.create_product(&body, &audit).await;
    let product = created.map_err(|error| store_problem(&error))?;
    call.app.cache.clear();
    crate::admin::AuditEntry { target: product.id.to_string(), ..audit }.log();
    let mut response = with_tag(&product);
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/products/{}", product.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn update(id: String, call: Call) -> Result<Response, Problem> {
    let admin = call.admin()?;
    let body: ProductBody = call.json()?;
    body.check()?;
    let number = identifier(&id).ok_or_else(missing)?;
    let audit = call.audit(admin, "product.update", &id, json!(body));
    let expected = |product: &Product| call.expects(product);
    let updated = call.store()?.update_product(number, &body, &expected, &audit).await;
    let product = updated.map_err(refused)?;
    call.app.cache.clear();
    audit.log();
    Ok(with_tag(&product))
}

async fn delete(id: String, call: Call) -> Result<Response, Problem> {
    let admin = call.admin()?;
    let number = identifier(&id).ok_or_else(missing)?;
    let audit = call.audit(admin, "product.delete", &id, json!({}));
    let expected = |product: &Product| call.expects(product);
    call.store()?.delete_product(number, &expected, &audit).await.map_err(refused)?;
    call.app.cache.clear();
    audit.log();
    Ok(nothing())
}

fn refused(error: ChangeError) -> Problem {
    match error {
        ChangeError::Missing => missing(),
        ChangeError::Changed => Problem::changed_meanwhile(),
        ChangeError::Illegal { .. } => Problem::conflict(error.to_string()),
        ChangeError::Store(error) => store_problem(&error),
    }
}

/// The answer to whoever made the product what it is: its tag is the one for the next change.
fn with_tag(product: &Product) -> Response {
    let mut response = super::json(product);
    crate::encode::set_tag(response.headers_mut(), &product.tag(), false);
    response
}
