//! Faults on demand: requests that are delayed, refused, cut off or answered with the past, for tests and game days.
//!
//! A seed decides what happens by chance: rules that were added in the same order befall the same requests of the same
//! sequence again. In process they are set with [`Server::faults`](crate::Server::faults); over HTTP the cluster
//! administrator sends them to `/playground/faults` (POST a rule or a list, GET to see them with their counts, DELETE one
//! by its number or all).

mod http;
mod lease;
mod rule;

pub(crate) use http::answer;
pub(crate) use lease::seen;
pub(crate) use rule::Facts;
pub use rule::{Error as RuleError, Fault, Rule};

use crate::app::App;
use crate::request::{self, Request, Target};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// A rule that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActiveRule {
    /// Its number, in order of addition.
    pub id: u64,
    /// What it says.
    pub rule: Rule,
    /// Requests (or watches) of those that it means.
    pub matched: u64,
    /// Faults that it caused.
    pub hits: u64,
    /// Revision of the store when it was added.
    pub revision: u64,
}

#[derive(Debug)]
struct State {
    seed: u64,
    next: u64,
    rules: Vec<ActiveRule>,
}

/// The rules in force at one server.
pub struct Faults {
    app: Weak<App>,
    state: Mutex<State>,
    /// Told of every added, removed or hit rule.
    changed: watch::Sender<u64>,
}

/// What befalls one request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// How long to wait first.
    pub delay: Duration,
    /// What to do instead of answering.
    pub fault: Option<Fault>,
    /// The revision that a list is to show.
    pub stale: Option<u64>,
}

/// What befalls an open watch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum WatchFault {
    /// It breaks off after this many events.
    Drop(u64),
    /// It tells nothing after this many events.
    Silence(u64),
}

/// Longest delay, so that a slip of the pen does not hold requests for ever: that is what `Hang` is for.
const LONGEST: Duration = Duration::from_secs(3600);

impl Faults {
    pub(crate) fn new(app: Weak<App>, seed: u64) -> Faults {
        let state = Mutex::new(State { seed, next: 1, rules: Vec::new() });
        Faults { app, state, changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Puts a rule in force; its number is returned. Earlier rules go first.
    pub fn add(&self, rule: Rule) -> u64 {
        let revision = self.app.upgrade().map_or(0, |app| app.store().revision());
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.rules.push(ActiveRule { id, rule, matched: 0, hits: 0, revision });
        drop(state);
        self.tell();
        id
    }

    /// Takes a rule away; `false` when there is none of this number. A watch that is silent already stays so.
    pub fn remove(&self, id: u64) -> bool {
        let mut state = self.state();
        let before = state.rules.len();
        state.rules.retain(|r| r.id != id);
        let removed = state.rules.len() < before;
        drop(state);
        self.tell();
        removed
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.state().rules.clear();
        self.tell();
    }

    /// Chooses another sequence of chances.
    pub fn reseed(&self, seed: u64) {
        self.state().seed = seed;
    }

    /// The rules in force, with what they did so far.
    pub fn active(&self) -> Vec<ActiveRule> {
        self.state().rules.clone()
    }

    /// Faults that a rule caused; 0 when there is no such rule.
    pub fn hits(&self, id: u64) -> u64 {
        self.state().rules.iter().find(|r| r.id == id).map_or(0, |r| r.hits)
    }

    /// Waits until a rule has caused this many faults. It returns at once when there is no such rule (any more).
    pub async fn wait_for_hits(&self, id: u64, hits: u64) {
        let mut changed = self.changed.subscribe();
        let done =
            |faults: &Faults| faults.state().rules.iter().find(|r| r.id == id).is_none_or(|r| r.hits >= hits);
        while !done(self) {
            // The sender lives in `self`, so it cannot be gone.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Told of every change of the rules.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What befalls a request.
    pub(crate) fn decide(&self, app: &App, request: &Request) -> Verdict {
        let mut verdict = Verdict::default();
        let mut state = self.state();
        if state.rules.is_empty() || request.path.first().is_some_and(|p| p == "playground") {
            return verdict;
        }
        let facts = facts(app, request);
        let seed = state.seed;
        let mut hit = false;
        let of_requests = |a: &&mut ActiveRule| {
            let fault = a.rule.fault();
            !fault.is_of_watches() && !fault.is_of_leases()
        };
        for active in state.rules.iter_mut().filter(of_requests) {
            let idle = *active.rule.fault() == Fault::StaleList && facts.verb != "list";
            if idle || !active.take(seed, &facts) {
                continue;
            }
            hit = true;
            match active.rule.fault() {
                Fault::Delay { milliseconds } => {
                    verdict.delay = (verdict.delay + Duration::from_millis(*milliseconds)).min(LONGEST);
                }
                Fault::StaleList => verdict.stale = Some(active.revision),
                fault => {
                    verdict.fault = Some(fault.clone());
                    break;
                }
            }
        }
        drop(state);
        if hit {
            self.tell();
        }
        verdict
    }

    /// How a Lease's clock goes for a reader; `facts` name the Lease.
    pub(crate) fn lease_clock(&self, facts: &Facts) -> lease::Clock {
        let mut clock = lease::Clock::default();
        let mut state = self.state();
        let seed = state.seed;
        let mut hit = false;
        for active in state.rules.iter_mut().filter(|a| a.rule.fault().is_of_leases()) {
            if !active.take(seed, facts) {
                continue;
            }
            hit = true;
            match active.rule.fault() {
                Fault::ShiftLeases { milliseconds } => {
                    clock.shift = clock.shift.saturating_add(*milliseconds)
                }
                // The rule that has been in force for longest says since when.
                _ => clock.frozen_at = clock.frozen_at.or(Some(active.revision)),
            }
        }
        drop(state);
        if hit {
            self.tell();
        }
        clock
    }

    /// What befalls an open watch by rules that it has not met yet; `met` is the number of the last one that it has.
    pub(crate) fn decide_watch(&self, facts: &Facts, met: &mut u64) -> Option<WatchFault> {
        let mut state = self.state();
        let seed = state.seed;
        let mut found = None;
        let rules = state.rules.iter_mut().filter(|a| a.id > *met && a.rule.fault().is_of_watches());
        let mut last = *met;
        for active in rules {
            last = active.id;
            if active.take(seed, facts) {
                found = match active.rule.fault() {
                    Fault::DropWatch { after_events } => Some(WatchFault::Drop(*after_events)),
                    Fault::SilenceWatch { after_events } => Some(WatchFault::Silence(*after_events)),
                    _ => None,
                };
                break;
            }
        }
        *met = last;
        drop(state);
        if found.is_some() {
            self.tell();
        }
        found
    }
}

impl ActiveRule {
    /// Counts a request that is meant; whether the fault befalls it.
    fn take(&mut self, seed: u64, facts: &Facts) -> bool {
        if !self.rule.is_for(facts) {
            return false;
        }
        self.matched += 1;
        let befalls = self.rule.befalls(self.matched, self.hits, chance(seed, self.id, self.matched));
        self.hits += u64::from(befalls);
        befalls
    }
}

/// A number from 0 to below 1 that depends on nothing else (the finaliser of SplitMix64).
fn chance(seed: u64, rule: u64, request: u64) -> f64 {
    let mut z = seed
        .wrapping_add(rule.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(request.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 53) as f64
}

/// What rules look at.
fn facts(app: &App, request: &Request) -> Facts {
    match Target::find(&app.catalogue(), &request.path) {
        Ok(target) => {
            let verb = request::verb(&request.method, &target, &request.query);
            of_target(&target, request, verb)
        }
        Err(_) => Facts {
            verb: request.method.as_str().to_lowercase(),
            path: format!("/{}", request.path.join("/")),
            agent: request.header("user-agent").to_owned(),
            ..Facts::default()
        },
    }
}

/// What rules look at in a request for a resource.
pub(crate) fn of_target(target: &Target, request: &Request, verb: &str) -> Facts {
    Facts {
        verb: verb.to_owned(),
        resource: target.resource.table(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        path: format!("/{}", request.path.join("/")),
        agent: request.header("user-agent").to_owned(),
        manager: request.query.get("fieldManager").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_repeatable_and_fair() {
        let run = |seed| -> Vec<bool> { (0..2000).map(|n| chance(seed, 1, n) < 0.3).collect() };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let hits = run(7).iter().filter(|hit| **hit).count();
        assert!((500..700).contains(&hits), "{hits}");
    }

    #[test]
    fn a_rule_skips_then_hits_so_many_times() {
        let rule = Rule::new(Fault::Hang).skip(1).times(2);
        let mut active = ActiveRule { id: 1, rule, matched: 0, hits: 0, revision: 0 };
        let taken: Vec<bool> = (0..5).map(|_| active.take(1, &Facts::default())).collect();
        assert_eq!(taken, [false, true, true, false, false]);
        assert_eq!((active.matched, active.hits), (5, 2));
    }

    #[test]
    fn a_watch_meets_each_rule_once() {
        let faults = Faults::new(Weak::new(), 1);
        let mut met = 0;
        let facts = Facts { verb: "watch".into(), ..Facts::default() };
        assert_eq!(faults.decide_watch(&facts, &mut met), None);
        faults.add(Rule::new(Fault::DropWatch { after_events: 3 }));
        assert_eq!(faults.decide_watch(&facts, &mut met), Some(WatchFault::Drop(3)));
        assert_eq!(faults.decide_watch(&facts, &mut met), None);
    }
}
