//! What can go wrong while a controller works.

/// A failed request of a controller, with what it was meant to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or could not be reached.
    #[error(
        "could not {action}: {source}. The controller tries again; look at the API server's log if this stays"
    )]
    Request {
        /// What was attempted, as the rest of a sentence that begins with "could not".
        action: String,
        /// The client's error.
        source: kube::Error,
    },
    /// The API server refuses the client: its credentials or rights do not suffice.
    #[error(
        "the API server refuses to list {resource}: {source}. Give the controllers a client with full rights"
    )]
    Refused {
        /// The resource that was listed.
        resource: String,
        /// The client's error.
        source: kube::Error,
    },
    /// An object that should be written lacks a field that every stored object has.
    #[error("{object} has no {field}; it did not come from an API server")]
    Incomplete {
        /// The object.
        object: String,
        /// The missing field.
        field: &'static str,
    },
    /// A label selector that cannot be understood.
    #[error("the selector of {object} is invalid: {message}. Correct its matchExpressions")]
    Selector {
        /// The object with the selector.
        object: String,
        /// What is wrong.
        message: String,
    },
}

impl Error {
    /// Whether a newer version of the object exists than the one the decision was made on.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_exists()
    }

    /// Whether an object of that name exists already.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some("AlreadyExists")
    }

    /// Whether the object, or what it lives in, is not there any more.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The HTTP status code of the server's answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    fn reason(&self) -> Option<&str> {
        self.status().map(|status| status.reason.as_str())
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Request { source: kube::Error::Api(status), .. }
            | Error::Refused { source: kube::Error::Api(status), .. } => Some(status),
            _ => None,
        }
    }
}

/// Adds to a client's error what was attempted.
pub(crate) trait Attempt<T> {
    /// `action` is the rest of a sentence that begins with "could not".
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Attempt<T> for Result<T, kube::Error> {
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Request { action: action(), source })
    }
}
