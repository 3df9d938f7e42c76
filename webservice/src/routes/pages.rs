//! The pages: files that are compiled into the binary.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::encode::Encoded;
use crate::problem::Problem;
use crate::session::Session;

/// Only files of this shop run on its pages.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
     object-src 'none'",
);

/// A file and what it is.
struct File {
    name: &'static str,
    content_type: &'static str,
    body: Encoded,
}

/// Every file by its name; pages have names without a dot.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
    let file =
        |name, content_type, text: &'static str| File { name, content_type, body: Encoded::new(text.into()) };
    vec![
        file("shop", HTML, include_str!("../../pages/index.html")),
        file("order", HTML, include_str!("../../pages/order.html")),
        file("dashboard", HTML, include_str!("../../pages/dashboard.html")),
        file("shop.css", CSS, include_str!("../../pages/shop.css")),
        file("dashboard.css", CSS, include_str!("../../pages/dashboard.css")),
        file("common.js", JAVASCRIPT, include_str!("../../pages/common.js")),
        file("shop.js", JAVASCRIPT, include_str!("../../pages/shop.js")),
        file("order.js", JAVASCRIPT, include_str!("../../pages/order.js")),
        file("dashboard.js", JAVASCRIPT, include_str!("../../pages/dashboard.js")),
    ]
});

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    let shop = warp::path::end().map(|| "/".to_owned());
    let dashboard = warp::path!("dashboard").map(|| "/dashboard".to_owned());
    let order = warp::path!("orders" / String).map(|number| format!("/orders/{number}"));
    let asset = warp::path!("assets" / String).map(|name| format!("/assets/{name}"));
    shop.or(asset)
        .unify()
        .or(order)
        .unify()
        .or(dashboard)
        .unify()
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .map(|path: String, headers: HeaderMap| {
            page(&path, &headers).unwrap_or_else(|| Problem::not_found("check the path").into_response())
        })
        .boxed()
}

/// The page or file at `path`, if `path` is one of theirs.
pub(crate) fn page(path: &str, headers: &HeaderMap) -> Option<Response> {
    let name = match path {
        "/" => "shop",
        "/dashboard" => "dashboard",
        _ => match (path.strip_prefix("/orders/"), path.strip_prefix("/assets/")) {
            (Some(number), _) if !number.is_empty() && !number.contains('/') => "order",
            (_, Some(name)) if name.contains('.') => name,
            _ => return None,
        },
    };
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return Some(Problem::not_found("there is no such file").into_response());
    };
    // Names carry no version, and two versions serve beside each other during a rollout: files are kept, but asked
    // for again, which costs an answer without a body.
    let mut response = file.body.answer(headers, file.content_type);
    if file.content_type.starts_with("text/html") {
        // With 304 too: browsers replace the headers of what they kept by those.
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
        Session::of(headers).keep(response.headers_mut());
    }
    Some(response)
}
