//! The storefront: files that are compiled into the binary.

use http::{HeaderMap, HeaderValue, header};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply};

use crate::problem::Problem;
use crate::session::Session;

/// Only files of this shop run on its pages.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'; object-src 'none'";

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    let index = warp::path::end().and(warp::get()).and(warp::header::headers_cloned()).map(index);
    let asset = warp::path!("assets" / String).and(warp::get()).map(asset);
    index.or(asset).unify().boxed()
}

fn index(headers: HeaderMap) -> Response {
    let mut response = warp::reply::html(include_str!("../../pages/index.html")).into_response();
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Session::of(&headers).keep(response.headers_mut());
    response
}

fn asset(name: String) -> Response {
    let (body, content_type) = match name.as_str() {
        "shop.css" => (include_str!("../../pages/shop.css"), "text/css; charset=utf-8"),
        "shop.js" => (include_str!("../../pages/shop.js"), "text/javascript; charset=utf-8"),
        _ => return Problem::not_found("there is no such file").into_response(),
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Names carry no version, and two versions serve beside each other during a rollout.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
