//! What people ask for by annotating an Environment: each request is acted on once.

use engine::rollout::{Command, Rollout};

use super::status::Handled;
use crate::api::{Environment, annotation};

/// Something a person asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Look at the source now.
    Reconcile,
    /// A command to the rollout, and who gave it as far as it is known.
    Command(Command, String),
}

/// The requests that were not acted on yet. They count as handled from now on.
pub fn new(environment: &Environment, handled: &mut Handled, rollout: &Rollout) -> Vec<Request> {
    let actor = environment.annotation(annotation::ACTOR).unwrap_or("somebody").to_owned();
    let mut requests = Vec::new();
    let mut take = |key: &str, slot: &mut Option<String>, request: Request| {
        let value = environment.annotation(key);
        if value.is_some() && value != slot.as_deref() {
            *slot = value.map(str::to_owned);
            requests.push(request);
        }
    };
    take(annotation::RECONCILE, &mut handled.reconcile, Request::Reconcile);
    take(annotation::RETRY, &mut handled.retry, Request::Command(Command::Retry, actor.clone()));
    take(annotation::ROLLBACK, &mut handled.rollback, Request::Command(Command::Rollback, actor.clone()));
    // An approval names its bundle, `digest@time`: it waits for that bundle to be held, and counts once.
    let text = environment.annotation(annotation::APPROVE);
    let approved = text.and_then(|text| text.split('@').next()?.parse().ok());
    if let (Some(digest), Some(held)) = (approved, &rollout.held)
        && held.release.digest == digest
        && text != handled.approve.as_deref()
    {
        handled.approve = text.map(str::to_owned);
        requests.push(Request::Command(Command::Approve(digest), actor));
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn a_request_is_acted_on_once() {
        let mut environment = Environment::test("dev");
        let rollout = Rollout::new("holdfast-system/dev", Timestamp::UNIX_EPOCH);
        let mut handled = Handled::default();
        assert_eq!(new(&environment, &mut handled, &rollout), []);
        let annotations = environment.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::RETRY.into(), "1".into());
        annotations.insert(annotation::ACTOR.into(), "mina".into());
        let retry = Request::Command(Command::Retry, "mina".into());
        assert_eq!(new(&environment, &mut handled, &rollout), std::slice::from_ref(&retry));
        assert_eq!(new(&environment, &mut handled, &rollout), []);
        environment.metadata.annotations.get_or_insert_default().insert(annotation::RETRY.into(), "2".into());
        assert_eq!(new(&environment, &mut handled, &rollout), [retry]);
    }
}
