//! Tokens of service accounts, for the pods that mount them.
//!
//! Rules: Kubernetes' `pkg/kubelet/token/token_manager.go`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};

/// Lifetime that is asked for when the volume names none.
const LIFETIME: i64 = 3600;
/// A token is replaced at this age at the latest.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// For whom a token is, and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    audience: Option<String>,
    seconds: i64,
}

impl Wanted {
    fn of(source: &ServiceAccountTokenProjection) -> Wanted {
        Wanted { audience: source.audience.clone(), seconds: source.expiration_seconds.unwrap_or(LIFETIME) }
    }
}

struct Token {
    text: String,
    /// When it is to be replaced.
    replace: Timestamp,
}

/// The tokens of one pod.
#[derive(Default)]
pub(crate) struct Tokens {
    known: Mutex<BTreeMap<Wanted, Token>>,
}

impl Tokens {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Wanted, Token>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token that a volume is to hold, once there is one.
    pub fn get(&self, source: &ServiceAccountTokenProjection) -> Option<String> {
        self.known().get(&Wanted::of(source)).map(|token| token.text.clone())
    }

    /// Fetches the tokens that the pod's volumes lack or that are old; returns when the next one will be.
    ///
    /// # Errors
    /// Why the API server gives none, in the words of a `FailedMount` event.
    pub async fn refresh(&self, client: &Client, pod: &Pod) -> Result<Option<Timestamp>, String> {
        let now = Timestamp::now();
        for wanted in wanted(pod) {
            if self.known().get(&wanted).is_some_and(|token| now < token.replace) {
                continue;
            }
            let token = fetch(client, pod, &wanted, now).await?;
            self.known().insert(wanted, token);
        }
        Ok(self.known().values().map(|token| token.replace).min())
    }
}

fn wanted(pod: &Pod) -> Vec<Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources =
        volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|all| all.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(Wanted::of).collect()
}

async fn fetch(client: &Client, pod: &Pod, wanted: &Wanted, now: Timestamp) -> Result<Token, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let named = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = named.filter(|name| !name.is_empty()).unwrap_or("default");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: wanted.audience.clone().map(|audience| vec![audience]),
            expiration_seconds: Some(wanted.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = api.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
    let status = answer.status.and_then(|status| Some((status.token?, status.expiration_timestamp?)));
    let (text, end) = status.ok_or("failed to fetch token: the answer has none")?;
    let life = end.0.duration_since(now);
    // At four fifths of its life, as kubelet does.
    let age = (life * 4 / 5).min(LONGEST);
    let replace = now.checked_add(age).unwrap_or(now);
    Ok(Token { text, replace })
}
