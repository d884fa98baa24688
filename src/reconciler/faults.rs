//! What is wrong with the API server, told apart, and said once: not at every try.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a failed request to the API server means for the one who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The object is not there.
    NotFound,
    /// The server does not know the resource: the CRD or the aggregated API is missing.
    NoSuchResource,
    /// The namespace is being deleted: nothing can be created in it any more.
    Terminating,
    /// Not allowed: RBAC.
    Forbidden,
    /// The credentials are not accepted.
    Unauthorized,
    /// Somebody else wrote at the same time, or the object is being deleted.
    Conflict,
    /// The object breaks a rule of its schema.
    Invalid,
    /// Asked to slow down, for so long if it says.
    TooMany(Option<Duration>),
    /// No answer, or a broken one: unreachable, restarting, timed out.
    Unavailable,
}

impl Fault {
    /// What this error is.
    pub fn of(error: &kube::Error) -> Fault {
        let kube::Error::Api(status) = error else { return Fault::Unavailable };
        let details = status.details.as_ref();
        match status.code {
            // Without the object's name it is the path that was not found, not the object.
            404 if details.is_none_or(|d| d.name.is_empty()) => Fault::NoSuchResource,
            404 | 410 => Fault::NotFound,
            403 if details.is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating")) => {
                Fault::Terminating
            }
            403 => Fault::Forbidden,
            401 => Fault::Unauthorized,
            409 => Fault::Conflict,
            400 | 422 => Fault::Invalid,
            429 => {
                let seconds = details.map(|d| d.retry_after_seconds).filter(|s| *s > 0);
                Fault::TooMany(seconds.map(|s| Duration::from_secs(s.into())))
            }
            _ => Fault::Unavailable,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Fault::NotFound => "not found",
            Fault::NoSuchResource => "the API server does not know the resource",
            Fault::Terminating => "the namespace is being deleted",
            Fault::Forbidden => "not allowed (RBAC)",
            Fault::Unauthorized => "credentials not accepted",
            Fault::Conflict => "conflict",
            Fault::Invalid => "invalid",
            Fault::TooMany(_) => "asked to slow down",
            Fault::Unavailable => "the API server cannot be reached",
        }
    }
}

/// Says each kind of fault of one activity once when it begins, and once that it is over.
pub struct FaultLog {
    /// The activity: "writing KernelWhispers".
    what: &'static str,
    standing: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

impl FaultLog {
    pub fn new(what: &'static str) -> FaultLog {
        FaultLog { what, standing: Mutex::default() }
    }

    /// A try failed; `hint` says what to do about it.
    pub fn failed(&self, fault: Fault, error: &kube::Error, hint: &str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, tries) = standing.entry(fault.key()).or_insert((Instant::now(), 0));
        *tries += 1;
        if *tries == 1 {
            let error = one_line(error);
            tracing::warn!(error, "{}: {}; {hint}", self.what, fault.key());
        }
    }

    /// A try succeeded: whatever was wrong is over.
    pub fn succeeded(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, (since, tries)) in standing.drain() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, tries, "{}: works again (was: {key})", self.what);
        }
    }
}

/// The error in one line.
pub fn one_line(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.replace('\n', " "),
        other => other.to_string().replace('\n', " "),
    }
}
