//! `/playground/faults`: the rules over HTTP.

use super::Rule;
use crate::app::App;
use crate::request::Request;
use crate::status::Refusal;
use http::Method;
use serde_json::{Value, json};

/// Answers a request below `/playground`; `path` is what follows. Who may do so has been checked.
pub(crate) fn answer(app: &App, request: &Request, path: &[&str]) -> Result<(u16, Value), Refusal> {
    let faults = &app.faults;
    match (&request.method, path) {
        (&Method::GET, ["faults"]) => {}
        (&Method::POST, ["faults"]) => {
            let rules = Rule::parse(&request.body).map_err(|e| Refusal::bad_request(e.to_string()))?;
            match request.query.get("seed") {
                "" => {}
                text => {
                    let seed = text.parse().map_err(|_| {
                        Refusal::bad_request(format!("{text:?} is no seed; give a number from 0 on"))
                    })?;
                    faults.reseed(seed);
                }
            }
            let added: Vec<u64> = rules.into_iter().map(|rule| faults.add(rule)).collect();
            return Ok((201, json!({"added": added})));
        }
        (&Method::DELETE, ["faults"]) => faults.clear(),
        (&Method::DELETE, ["faults", id]) => {
            let removed = id.parse().is_ok_and(|id| faults.remove(id));
            if !removed {
                let message = format!("no rule has the number {id:?}; GET /playground/faults lists them");
                return Err(Refusal { code: 404, reason: "NotFound", ..Refusal::bad_request(message) });
            }
        }
        (&Method::POST, ["compact"]) => app.store_mut().compact(),
        (_, ["faults" | "compact"] | ["faults", _]) => return Err(Refusal::method_not_allowed()),
        _ => return Err(Refusal::no_path()),
    }
    Ok((200, json!({"rules": faults.active()})))
}
