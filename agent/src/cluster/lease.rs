//! Leader election by a Lease, after the algorithm of client-go's `leaderelection`: clocks of other
//! machines are not trusted, only how long the lease has not changed as seen from here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::Error;
use super::request::{Call, Target};
use super::{Cluster, kinds::Kind};

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long others wait for a leader that has gone silent. At least a second.
    pub lease: Duration,
    /// How long a leader goes on without having renewed. Less than `lease`.
    pub renew_deadline: Duration,
    /// Time between attempts to get or to renew.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    /// The times that Kubernetes' own components use: 15 s, 10 s, 2 s.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The right to write, asked for at the moment of writing.
#[derive(Debug, Clone)]
pub struct Leadership {
    /// Until when this agent leads: none is never, and an `Unlimited` needs no lease.
    state: watch::Receiver<Term>,
    /// Kept so that an unlimited leadership's channel stays open.
    _open: Option<Arc<watch::Sender<Term>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    Unlimited,
    /// Leads before `until`; a write that began then must be over at `end`.
    Until {
        until: Instant,
        end: Instant,
    },
    None,
}

impl Term {
    fn leads(self) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Until { until, .. } => Instant::now() < until,
            Self::None => false,
        }
    }
}

impl Leadership {
    /// For an agent that is alone: it always leads.
    pub fn always() -> Self {
        let (sender, state) = watch::channel(Term::Unlimited);
        Self { state, _open: Some(Arc::new(sender)) }
    }

    /// Whether this agent leads at this moment.
    pub fn is_leader(&self) -> bool {
        self.state.borrow().leads()
    }

    /// How long a write that begins now may take; none if nothing may be written.
    pub(crate) fn time_to_write(&self) -> Option<Duration> {
        let term = *self.state.borrow();
        match term {
            Term::Unlimited => Some(Duration::MAX),
            Term::Until { end, .. } if term.leads() => Some(end.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    /// Waits until this agent leads.
    pub async fn acquired(&self) {
        let mut state = self.state.clone();
        while !state.borrow_and_update().leads() {
            if state.changed().await.is_err() {
                // The election has ended: this agent will never lead.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this agent does not lead any more.
    pub async fn lost(&self) {
        let mut state = self.state.clone();
        loop {
            let term = *state.borrow_and_update();
            match term {
                Term::None => return,
                Term::Until { until, .. } if Instant::now() >= until => return,
                Term::Until { until, .. } => tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    changed = state.changed() => if changed.is_err() {
                        tokio::time::sleep_until(until).await;
                        return;
                    },
                },
                Term::Unlimited => {
                    if state.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}

/// One agent's part in the election.
#[derive(Debug)]
pub struct Election {
    namespace: String,
    name: String,
    identity: String,
    times: LeaseTimes,
    term: watch::Sender<Term>,
    /// The lease as it was last seen, and since when it has been so.
    seen: Option<(Value, Instant)>,
}

impl Election {
    /// Takes part in the election for the Lease `namespace/name` as `identity`, which must differ
    /// between agents. Nothing happens before [`Election::run`].
    pub fn new(namespace: &str, name: &str, identity: &str, times: LeaseTimes) -> (Self, Leadership) {
        let (term, state) = watch::channel(Term::None);
        let election = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            times,
            term,
            seen: None,
        };
        (election, Leadership { state, _open: None })
    }

    /// Gets the lease and renews it until `stop` resolves, then gives it back so that another agent can
    /// take over at once.
    pub async fn run(mut self, cluster: Cluster, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let round = async {
                // One attempt that hangs must leave time for another before the deadline.
                let attempt =
                    tokio::time::timeout(self.times.renew_deadline / 2, self.attempt(&cluster)).await;
                match attempt {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be read or written"),
                    Err(_) => tracing::warn!("the API server does not answer about the lease"),
                }
                tokio::time::sleep(self.times.retry).await;
            };
            tokio::select! {
                () = round => {}
                () = &mut stop => break,
            }
        }
        let led = self.term.borrow().leads();
        self.term.send_replace(Term::None);
        if led && let Err(error) = self.release(&cluster).await {
            tracing::warn!(%error, "the lease cannot be given back; others wait until it expires");
        }
    }

    /// One look at the lease, and a write if it is, or can be, this agent's.
    async fn attempt(&mut self, cluster: &Cluster) -> Result<(), Error> {
        // What counts is when the request began: the server's answer may have taken its time.
        let began = Instant::now();
        let kind = lease_kind();
        let target = Target::object(&kind, Some(&self.namespace), &self.name);
        let lease = match cluster.call(Call::get(target).urgent()).await {
            Ok(lease) => lease,
            Err(Error::NotFound { .. }) => {
                let created = self.write(cluster, None).await;
                return self.written(created, began);
            }
            Err(error) => return Err(error),
        };
        let changed = self.seen.as_ref().is_none_or(|(spec, _)| *spec != lease["spec"]);
        if changed {
            self.seen = Some((lease["spec"].clone(), began));
        }
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let ours = holder == self.identity;
        let silent = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let promised = lease["spec"]["leaseDurationSeconds"].as_u64().map(Duration::from_secs);
        if !ours && !holder.is_empty() && silent < promised.unwrap_or(self.times.lease) {
            self.term.send_replace(Term::None);
            return Ok(());
        }
        let written = self.write(cluster, Some(&lease)).await;
        self.written(written, began)
    }

    fn written(&mut self, result: Result<Value, Error>, began: Instant) -> Result<(), Error> {
        match result {
            Ok(lease) => {
                self.seen = Some((lease["spec"].clone(), began));
                let term =
                    Term::Until { until: began + self.times.renew_deadline, end: began + self.times.lease };
                let led = self.term.send_replace(term).leads();
                if !led {
                    tracing::info!(lease = self.name, identity = self.identity, "this agent leads");
                }
                Ok(())
            }
            // Somebody else was faster; what they wrote is seen at the next look.
            Err(Error::Conflict { .. } | Error::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, cluster: &Cluster, lease: Option<&Value>) -> Result<Value, Error> {
        let kind = lease_kind();
        let now = micro_time();
        let before = lease.map_or(&Value::Null, |lease| &lease["spec"]);
        let ours = before["holderIdentity"].as_str() == Some(&self.identity);
        let transitions = before["leaseTransitions"].as_u64().unwrap_or(0);
        let acquired = if ours { before["acquireTime"].clone() } else { Value::Null };
        let spec = json!({
            "holderIdentity": self.identity,
            // Whole seconds, rounded up: others must not wait for less than was promised.
            "leaseDurationSeconds": self.times.lease.as_millis().div_ceil(1000).max(1) as u64,
            "acquireTime": if acquired.is_null() { json!(now) } else { acquired },
            "renewTime": now,
            "leaseTransitions": if ours || lease.is_none() { transitions } else { transitions + 1 },
        });
        let call = match lease {
            Some(lease) => {
                let mut lease = lease.clone();
                lease["spec"] = spec;
                Call::update(Target::object(&kind, Some(&self.namespace), &self.name), &lease)
            }
            None => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace},
                    "spec": spec,
                });
                Call::create(Target::collection(&kind, Some(&self.namespace)), &lease)
            }
        };
        cluster.call(call.urgent()).await
    }

    async fn release(&self, cluster: &Cluster) -> Result<(), Error> {
        let kind = lease_kind();
        let target = Target::object(&kind, Some(&self.namespace), &self.name);
        let mut lease = cluster.call(Call::get(target).urgent()).await?;
        if lease["spec"]["holderIdentity"].as_str() != Some(&self.identity) {
            return Ok(());
        }
        lease["spec"]["holderIdentity"] = json!("");
        lease["spec"]["leaseDurationSeconds"] = json!(1);
        lease["spec"]["renewTime"] = json!(micro_time());
        cluster.call(Call::update(target, &lease).urgent()).await.map(drop)
    }
}

fn lease_kind() -> Kind {
    Kind::known("coordination.k8s.io/v1", "Lease", "leases")
}

/// The time as `metav1.MicroTime` has it.
pub(crate) fn micro_time() -> String {
    format!("{:.6}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_times_have_six_digits() {
        let text = micro_time();
        assert_eq!(text.len(), "2026-01-01T00:00:00.000000Z".len(), "{text}");
        assert!(text.ends_with('Z') && text.parse::<Timestamp>().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_by_itself() {
        let (election, leadership) = Election::new("ops", "holdfast", "a", LeaseTimes::default());
        assert!(!leadership.is_leader() && leadership.time_to_write().is_none());
        let now = Instant::now();
        let second = Duration::from_secs(1);
        election.term.send_replace(Term::Until { until: now + 10 * second, end: now + 15 * second });
        leadership.acquired().await;
        assert_eq!(leadership.time_to_write(), Some(15 * second));
        leadership.lost().await;
        assert_eq!(now.elapsed(), 10 * second);
        assert!(!leadership.is_leader() && leadership.time_to_write().is_none());
    }

    #[tokio::test]
    async fn an_agent_that_is_alone_leads() {
        let leadership = Leadership::always();
        assert!(leadership.is_leader());
        leadership.acquired().await;
        assert_eq!(leadership.time_to_write(), Some(Duration::MAX));
    }
}
