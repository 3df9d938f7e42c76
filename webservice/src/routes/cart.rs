//! The session's cart, and ordering it.

use std::sync::Arc;

use jiff::Timestamp;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::call::{Call, call, identifier};
use super::{answer, json, nothing, orders};
use crate::app::{App, store_problem};
use crate::cart::{Cart, CartRefusal, QuantityBody};
use crate::order::{MAX_ITEMS, NewOrder};
use crate::problem::Problem;
use crate::session::Session;

pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let cart = || warp::path!("api" / "cart");
    let item = || warp::path!("api" / "cart" / "items" / String);
    let seen = cart().and(warp::get()).and(call(app)).then(|call| answer(get(call)));
    let emptied = cart().and(warp::delete()).and(call(app)).then(|call| answer(empty(call)));
    let set = item().and(warp::put()).and(call(app)).then(|id, call| answer(set(id, call)));
    let removed = item().and(warp::delete()).and(call(app)).then(|id, call| answer(remove(id, call)));
    let ordered = warp::path!("api" / "cart" / "checkout")
        .and(warp::post())
        .and(call(app))
        .then(|call| answer(check_out(call)));
    seen.or(set).unify().or(removed).unify().or(ordered).unify().or(emptied).unify().boxed()
}

async fn get(call: Call) -> Result<Response, Problem> {
    show(&call, &call.session()).await
}

async fn show(call: &Call, session: &Session) -> Result<Response, Problem> {
    let store = call.store()?;
    let cart = match session.is_new() {
        true => Cart::new(Vec::new()),
        false => store.cart(session.id()).await.map_err(|e| store_problem(&e))?,
    };
    Ok(json(&cart))
}

async fn set(id: String, call: Call) -> Result<Response, Problem> {
    let missing = || Problem::not_found("there is no such product");
    let quantity = call.json::<QuantityBody>()?.check()?;
    let id = identifier(&id).ok_or_else(missing)?;
    let session = call.session();
    let set = call.store()?.set_cart_item(session.id(), id, quantity).await;
    match set.map_err(|e| store_problem(&e))? {
        Ok(true) => call.app.edge.metrics.cart_started(),
        Ok(false) => {}
        Err(CartRefusal::UnknownProduct) => return Err(missing()),
        Err(CartRefusal::Full) => {
            return Err(Problem::conflict(format!("a cart holds at most {MAX_ITEMS} different products")));
        }
    }
    let cart = call.store()?.cart(session.id()).await.map_err(|e| store_problem(&e))?;
    let mut response = json(&cart);
    session.keep(response.headers_mut());
    Ok(response)
}

async fn remove(id: String, call: Call) -> Result<Response, Problem> {
    let id = identifier(&id).ok_or_else(|| Problem::not_found("there is no such product"))?;
    let session = call.session();
    if !session.is_new() {
        let removed = call.store()?.remove_cart_items(session.id(), Some(id)).await;
        removed.map_err(|e| store_problem(&e))?;
    }
    show(&call, &session).await
}

async fn empty(call: Call) -> Result<Response, Problem> {
    let session = call.session();
    if !session.is_new() {
        call.store()?.remove_cart_items(session.id(), None).await.map_err(|e| store_problem(&e))?;
    }
    Ok(nothing())
}

async fn check_out(call: Call) -> Result<Response, Problem> {
    let session = call.session();
    let read = || {
        if !call.body.is_empty() {
            call.require_json()?;
        }
        let key = call.idempotency_key()?;
        NewOrder::read_checkout(&call.body, key, session.id().to_owned(), Timestamp::now())
    };
    let order = read();
    orders::place(&call, order, &session).await
}
