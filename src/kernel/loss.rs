//! What is lost on the way from the kernel. Every loss is counted where it happens, and named by the probe it happens in.

/// A reason for which a probe loses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The value of `kernel_gossip.agent.loss.reason`.
    pub reason: &'static str,
    /// Of a table that is full: what is missing now, and what to set. `None`: it is no table.
    pub advice: Option<&'static str>,
}

/// How much was lost for a reason since the probe was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub why: Loss,
    pub total: u64,
}

impl Loss {
    /// One that is counted alone.
    pub const fn new(reason: &'static str) -> Loss {
        Loss { reason, advice: None }
    }

    /// One of a table: the first time the log says what is missing, and what to set.
    pub const fn of_table(reason: &'static str, advice: &'static str) -> Loss {
        Loss { reason, advice: Some(advice) }
    }

    /// So much was lost.
    pub const fn lost(self, total: u64) -> Lost {
        Lost { why: self, total }
    }
}
