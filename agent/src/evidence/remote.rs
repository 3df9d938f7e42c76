//! The remote side of an evidence branch: fetching it and pushing to it. Blocks.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, PushOptions, RemoteCallbacks,
    Repository,
};

use crate::source::{
    Credentials, HttpContext, HttpFailure, HttpTimeouts, RepositoryUrl, Transport, http_client,
};

/// A remote repository.
pub(super) struct Remote {
    url: RepositoryUrl,
    credentials: Option<Credentials>,
    client: Option<reqwest::Client>,
    runtime: tokio::runtime::Handle,
}

/// Why the remote could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RemoteError {
    /// Somebody else moved the branch.
    NotFastForward,
    /// Anything else, in a sentence.
    Failed(String),
}

impl Remote {
    pub(super) fn new(
        url: RepositoryUrl,
        credentials: Option<Credentials>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, String> {
        let client = match url.transport() {
            Transport::Http => {
                let timeouts =
                    HttpTimeouts { connect: Duration::from_secs(10), read: Duration::from_secs(30) };
                Some(http_client(credentials.as_ref(), timeouts)?)
            }
            Transport::Local | Transport::Git => None,
        };
        Ok(Self { url, credentials, client, runtime })
    }

    pub(super) fn url(&self) -> &RepositoryUrl {
        &self.url
    }

    /// Fetches references by their full names into `refs/remote/…`; those that the remote lacks are
    /// removed there.
    pub(super) fn fetch(
        &self,
        repository: &Repository,
        names: &[&str],
        timeout: Duration,
    ) -> Result<(), RemoteError> {
        self.with(timeout, || {
            let deadline = Instant::now() + timeout;
            let mut remote = repository.remote_anonymous(self.url.address())?;
            let callbacks = || {
                let mut callbacks = RemoteCallbacks::new();
                callbacks.transfer_progress(move |_| Instant::now() < deadline);
                callbacks.sideband_progress(move |_| Instant::now() < deadline);
                callbacks
            };
            let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks()), None)?;
            let tips: Vec<(String, Option<Oid>)> = {
                let heads = connection.list()?;
                let tip =
                    |name: &str| heads.iter().find(|head| head.name() == name).map(git2::RemoteHead::oid);
                names.iter().map(|name| ((*name).to_owned(), tip(name))).collect()
            };
            let odb = repository.odb()?;
            let specs: Vec<String> = tips
                .iter()
                .filter(|(_, tip)| tip.is_some_and(|tip| !odb.exists(tip)))
                .map(|(name, _)| format!("+{name}:{}", mirrored(name)))
                .collect();
            if !specs.is_empty() {
                let mut options = FetchOptions::new();
                options
                    .remote_callbacks(callbacks())
                    .download_tags(AutotagOption::None)
                    .update_fetchhead(false);
                connection.remote().download(&specs, Some(&mut options))?;
            }
            for (name, tip) in tips {
                match tip {
                    Some(tip) => drop(repository.reference(&mirrored(&name), tip, true, "fetch")?),
                    None => {
                        if let Ok(mut gone) = repository.find_reference(&mirrored(&name)) {
                            gone.delete()?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Pushes a reference as it is now, never by force.
    pub(super) fn push(
        &self,
        repository: &Repository,
        name: &str,
        timeout: Duration,
    ) -> Result<(), RemoteError> {
        let rejected: RefCell<Option<String>> = RefCell::default();
        // A reference of its own: while this pushes, somebody may write the next record, and what is
        // remembered as pushed must be what was pushed.
        let fixed = format!("refs/pushing/{}", name.trim_start_matches("refs/"));
        let id = self.with(timeout, || {
            let id = repository.refname_to_id(name)?;
            repository.reference(&fixed, id, true, "push")?;
            let mut remote = repository.remote_anonymous(self.url.address())?;
            let mut callbacks = RemoteCallbacks::new();
            callbacks.push_update_reference(|_, status| {
                *rejected.borrow_mut() = status.map(ToOwned::to_owned);
                Ok(())
            });
            let mut options = PushOptions::new();
            options.remote_callbacks(callbacks);
            remote.push(&[format!("{fixed}:{name}")], Some(&mut options))?;
            Ok(id)
        })?;
        match rejected.take() {
            None => {
                // Without this note the next round only asks the remote once more.
                let _ = repository.reference(&mirrored(name), id, true, "push");
                Ok(())
            }
            // Servers word it differently; all of these mean that the branch moved.
            Some(status)
                if ["non-fast", "fetch first", "stale", "failed to update", "cannot lock"]
                    .iter()
                    .any(|word| status.contains(word)) =>
            {
                Err(RemoteError::NotFastForward)
            }
            Some(status) => Err(RemoteError::Failed(format!("{} refuses {name}: {status}", self.url))),
        }
    }

    fn with<T>(
        &self,
        timeout: Duration,
        work: impl FnOnce() -> Result<T, git2::Error>,
    ) -> Result<T, RemoteError> {
        let auth = self.credentials.as_ref().and_then(|credentials| credentials.auth.clone());
        let context =
            HttpContext::new(self.client.clone(), self.runtime.clone(), auth, Instant::now() + timeout);
        let (result, failure) = context.scope(work);
        result.map_err(|error| {
            if error.code() == ErrorCode::NotFastForward
                || (error.class() == ErrorClass::Reference && error.message().contains("not present locally"))
            {
                return RemoteError::NotFastForward;
            }
            let detail = match failure {
                Some(HttpFailure::Refused(status)) => {
                    format!("the server answers {status}; the credentials must be allowed to push")
                }
                Some(failure) => failure.sentence(),
                None => error.message().to_owned(),
            };
            RemoteError::Failed(format!("{}: {detail}", self.url))
        })
    }
}

/// Where what the remote has is remembered.
pub(super) fn mirrored(name: &str) -> String {
    format!("refs/remote/{}", name.trim_start_matches("refs/"))
}
