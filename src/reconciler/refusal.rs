//! Why something that came in was not taken, and why a caller was not let in.

use std::borrow::Cow;
use std::fmt;

/// The kinds of refusal: one counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not the format at all: no JSON, no attribute that is needed.
    Malformed,
    /// A field that cannot be true.
    BadField,
    /// A signal or type of event not known here.
    UnknownSignal,
    /// No such pod, or another of the same name.
    NoSuchPod,
    /// The pod has no such container.
    NoSuchContainer,
    /// The pod runs on another node than the sender may speak for.
    OtherNode,
    /// This reconciler serves another namespace alone.
    OtherNamespace,
    /// More than one message, request or cluster may hold.
    TooMuch,
    /// Not a report: something that decorates one, which was taken without it.
    LeftOut,
}

impl Reason {
    pub const ALL: [Reason; 9] = [
        Reason::Malformed,
        Reason::BadField,
        Reason::UnknownSignal,
        Reason::NoSuchPod,
        Reason::NoSuchContainer,
        Reason::OtherNode,
        Reason::OtherNamespace,
        Reason::TooMuch,
        Reason::LeftOut,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::BadField => "bad_field",
            Reason::UnknownSignal => "unknown_signal",
            Reason::NoSuchPod => "no_such_pod",
            Reason::NoSuchContainer => "no_such_container",
            Reason::OtherNode => "other_node",
            Reason::OtherNamespace => "other_namespace",
            Reason::TooMuch => "too_much",
            Reason::LeftOut => "left_out",
        }
    }
}

/// One refusal; printed it is one line that names the field.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub reason: Reason,
    pub field: Option<Cow<'static, str>>,
    pub why: String,
}

impl Refusal {
    /// A refusal that is about no single field.
    pub fn new(reason: Reason, why: impl Into<String>) -> Refusal {
        Refusal { reason, field: None, why: why.into() }
    }

    /// A refusal of one field.
    pub fn of(reason: Reason, field: &'static str, why: impl Into<String>) -> Refusal {
        Refusal { reason, field: Some(Cow::Borrowed(field)), why: why.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl std::error::Error for Refusal {}

/// Why a report was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotTaken {
    /// It is wrong, and will be wrong again.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Nothing is wrong with it: send it again.
    #[error("{0}, try again")]
    Later(&'static str),
}

/// Why a caller is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("authorization: a bearer token is needed, bound to the audience this reconciler is told")]
    NoToken,
    #[error("authorization: the token is not accepted by the cluster for this audience")]
    BadToken,
    #[error("authorization: RBAC does not allow this caller to post here")]
    NotAllowed,
    #[error("the token cannot be reviewed now, try again")]
    Busy,
}
