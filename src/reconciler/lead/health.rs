//! Whether this replica can take reports.

use tokio::sync::watch;

use super::leader::Role;

/// What `/ready` answers from.
pub struct Health {
    role: watch::Receiver<Role>,
    /// The leader has taken over what the API knows and takes reports.
    open: watch::Receiver<bool>,
}

impl Health {
    pub fn new(role: watch::Receiver<Role>, open: watch::Receiver<bool>) -> Health {
        Health { role, open }
    }

    /// `None`: ready. A follower is ready once it knows a leader to hand connections to.
    pub fn not_ready(&self) -> Option<&'static str> {
        match &*self.role.borrow() {
            Role::Leader { .. } if *self.open.borrow() => None,
            Role::Paused { .. } => Some("the API server does not answer, so nobody can be leader"),
            Role::Leader { .. } => Some("this replica leads and reads the objects that are there"),
            Role::Follower { leader: Some(_) } => None,
            Role::Follower { leader: None } => Some("no replica leads"),
        }
    }
}
