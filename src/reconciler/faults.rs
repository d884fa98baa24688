//! What is wrong with the API server, by kind, and said once: not at every try.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Faults of one activity that stand at a time; more are one line.
const STANDING_MAX: usize = 16;
/// One not met again for so long, without a success, is forgotten where there is no room.
const STALE: Duration = Duration::from_secs(600);
/// An API server that starts answers before it knows who may what, or which definitions there are. What it says
/// after it could not be reached, and before anything succeeds, is believed after so long.
const STARTING: Duration = Duration::from_secs(30);

/// What stands: a fault, of what kind of request, in which namespace; each as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    fault: &'static str,
    kind: &'static str,
    namespace: Cow<'static, str>,
}

impl Place {
    /// A server that does not answer is one fault, wherever it is met; a kind it does not know is
    /// unknown in every namespace.
    fn of(fault: Fault, kind: &'static str, namespace: &str) -> Place {
        let (kind, namespace) = match fault {
            Fault::Unavailable | Fault::Unauthorized | Fault::TooMany(_) => ("", ""),
            Fault::NoSuchResource => (kind, ""),
            _ => (kind, namespace),
        };
        Place { fault: fault.key(), kind, namespace: namespace.to_owned().into() }
    }

    /// For those there is no room for.
    fn elsewhere(fault: Fault) -> Place {
        Place { fault: fault.key(), kind: "", namespace: "more namespaces".into() }
    }

    /// Whether a success of this kind there shows that it is over.
    fn over(&self, kind: &str, namespace: &str) -> bool {
        (self.kind.is_empty() || self.kind == kind)
            && (self.namespace.is_empty() || self.namespace == namespace)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault)?;
        match (self.kind, &*self.namespace) {
            (_, "") => Ok(()),
            ("", namespace) => write!(f, ", in {namespace}"),
            (kind, namespace) => write!(f, ", {kind} in {namespace}"),
        }
    }
}

struct Standing {
    since: Instant,
    last: Instant,
    tries: u64,
    said: bool,
}

/// Says each fault of one activity once when it begins, and once that it is over.
pub struct FaultLog {
    /// The activity: "writing KernelWhispers".
    what: &'static str,
    standing: Mutex<HashMap<Place, Standing>>,
}

impl FaultLog {
    pub fn new(what: &'static str) -> FaultLog {
        FaultLog { what, standing: Mutex::default() }
    }

    /// A try failed; `hint` says what to do about it.
    pub fn failed(&self, fault: Fault, error: &kube::Error, hint: &str) {
        self.failed_in("", "", fault, error, hint);
    }

    /// A try of this kind failed in this namespace.
    pub fn failed_in(
        &self,
        kind: &'static str,
        namespace: &str,
        fault: Fault,
        error: &kube::Error,
        hint: &str,
    ) {
        let now = Instant::now();
        let mut standing = self.lock();
        let mut place = Place::of(fault, kind, namespace);
        // What is not of one namespace is of a handful.
        let many = !place.namespace.is_empty() && !standing.contains_key(&place);
        if many && standing.len() >= STANDING_MAX {
            standing.retain(|_, s| now.duration_since(s.last) < STALE);
            if standing.len() >= STANDING_MAX {
                place = Place::elsewhere(fault);
            }
        }
        let text = place.to_string();
        let starting = matches!(fault, Fault::Forbidden | Fault::Unauthorized | Fault::NoSuchResource)
            && standing.contains_key(&Place::of(Fault::Unavailable, "", ""));
        let entry =
            standing.entry(place).or_insert(Standing { since: now, last: now, tries: 0, said: false });
        entry.last = now;
        entry.tries += 1;
        let waits = starting && now.duration_since(entry.since) < STARTING;
        if !entry.said && !waits {
            entry.said = true;
            let error = one_line(error);
            tracing::warn!(error, "{}: {text}; {hint}", self.what);
        }
    }

    /// A try succeeded: whatever was wrong is over.
    pub fn succeeded(&self) {
        self.end(|_| true);
    }

    /// A try of this kind succeeded in this namespace: what was wrong there is over, and with the server as a whole.
    pub fn succeeded_in(&self, kind: &str, namespace: &str) {
        self.end(|place| place.over(kind, namespace));
    }

    fn end(&self, over: impl Fn(&Place) -> bool) {
        let mut standing = self.lock();
        if standing.is_empty() {
            return;
        }
        let ended: Vec<_> = standing.extract_if(|place, _| over(place)).collect();
        // What there was no room for is over when the rest is.
        let rest = if standing.keys().all(|p| p.namespace == "more namespaces") {
            standing.drain().collect()
        } else {
            Vec::new()
        };
        let said = ended.into_iter().chain(rest).filter(|(_, standing)| standing.said);
        for (place, Standing { since, tries, .. }) in said {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, tries, "{}: works again (was: {place})", self.what);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error in one line.
pub fn one_line(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.replace('\n', " "),
        other => other.to_string().replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> kube::Error {
        kube::Error::LinesCodecMaxLineLengthExceeded
    }

    fn standing(log: &FaultLog) -> Vec<String> {
        let mut all: Vec<_> = log.lock().keys().map(ToString::to_string).collect();
        all.sort();
        all
    }

    #[test]
    fn a_success_ends_what_it_disproves_and_no_more() {
        let log = FaultLog::new("writing");
        let fail = |kind, namespace, fault| log.failed_in(kind, namespace, fault, &error(), "");
        for _ in 0..3 {
            fail("whisper", "shop", Fault::Forbidden);
            fail("whisper", "bank", Fault::Forbidden);
            fail("birth", "shop", Fault::NoSuchResource);
            fail("birth", "bank", Fault::NoSuchResource);
            fail("whisper", "shop", Fault::Unavailable);
            fail("birth", "bank", Fault::Unavailable);
        }
        let all = [
            "not allowed (RBAC), whisper in bank",
            "not allowed (RBAC), whisper in shop",
            "the API server cannot be reached",
            "the API server does not know the resource",
        ];
        assert_eq!(standing(&log), all);
        assert!(log.lock().values().all(|s| s.tries >= 3), "each is said at its first try alone");
        log.succeeded_in("whisper", "home");
        assert_eq!(standing(&log), [all[0], all[1], all[3]]);
        log.succeeded_in("whisper", "shop");
        assert_eq!(standing(&log), [all[0], all[3]]);
        log.succeeded_in("birth", "home");
        assert_eq!(standing(&log), [all[0]]);
        log.succeeded();
        assert!(standing(&log).is_empty());
    }

    #[test]
    fn a_server_that_starts_is_not_believed_at_once() {
        let log = FaultLog::new("writing");
        let fail = |fault| log.failed_in("whisper", "shop", fault, &error(), "");
        let refused = Place::of(Fault::Forbidden, "whisper", "shop");
        let said = || log.lock()[&refused].said;
        fail(Fault::Unavailable);
        fail(Fault::Forbidden);
        assert!(!said(), "it may not have read the roles yet");
        log.lock().get_mut(&refused).unwrap().since -= STARTING;
        fail(Fault::Forbidden);
        assert!(said(), "it has had the time");

        log.succeeded_in("whisper", "shop");
        fail(Fault::Forbidden);
        assert!(said(), "it was reached before");
    }

    #[test]
    fn a_fault_everywhere_is_not_a_line_a_namespace() {
        let log = FaultLog::new("writing");
        for i in 0..1000 {
            log.failed_in("whisper", &format!("n{i}"), Fault::Forbidden, &error(), "");
        }
        assert_eq!(log.lock().len(), STANDING_MAX + 1);
        assert_eq!(standing(&log)[0], "not allowed (RBAC), in more namespaces");
        log.failed_in("whisper", "n0", Fault::Unavailable, &error(), "");
        assert!(standing(&log).contains(&Fault::Unavailable.key().to_string()));
        for i in 0..STANDING_MAX {
            log.succeeded_in("whisper", &format!("n{i}"));
        }
        assert!(standing(&log).is_empty());
    }
}
