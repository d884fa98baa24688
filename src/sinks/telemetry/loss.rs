//! The reasons for which the agent loses something, but for its probes, which name their own ([`crate::kernel::Loss`]).

/// Why something was lost: the values of `kernel_gossip.agent.loss.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Cgroups whose path follows no known rule.
    UnknownPath,
    /// Cgroups that had numbers before their path was known.
    UnresolvedCgroup,
    /// Events without a pod's name because none was known in time.
    LateName,
    /// Containers whose runtime's files were not found or understood.
    BundleMissed,
    /// Cgroups not taken in because there were too many.
    CgroupDropped,
    /// Pairs of victim and culprit not taken in because there were too many.
    PairDropped,
    /// Samples not judged because too many workloads were watched.
    SampleUntracked,
    /// Blame not judged because one victim had too many culprits.
    BlameUntracked,
    /// Numbers left out of whispers because they cannot be.
    ImpossibleNumber,
    /// Whispers the terminal did not show.
    TerminalDropped,
    /// Workloads whose last numbers were not exported, or not on /metrics for a minute, because too many went at once.
    DepartedDropped,
    /// Scrapes refused because others were still being answered.
    ScrapeRefused,
    /// Items larger than any request may be.
    TooLarge,
    /// Data points dropped because the export queue was full.
    MetricsQueueFull,
    /// Events dropped because the export queue was full.
    EventsQueueFull,
    /// Data points in requests refused for good.
    MetricsRefused,
    EventsRefused,
    /// Data points rejected of requests that were accepted (partial success).
    MetricsRejected,
    EventsRejected,
    /// Spans, likewise.
    TracesQueueFull,
    TracesRefused,
    TracesRejected,
    /// Births not watched because there were too many at once.
    BirthDropped,
    /// Records of births not kept because there were too many.
    BirthRecord,
}

impl Loss {
    pub const ALL: [Loss; 24] = [
        Loss::UnknownPath,
        Loss::UnresolvedCgroup,
        Loss::LateName,
        Loss::BundleMissed,
        Loss::CgroupDropped,
        Loss::PairDropped,
        Loss::SampleUntracked,
        Loss::BlameUntracked,
        Loss::ImpossibleNumber,
        Loss::TerminalDropped,
        Loss::DepartedDropped,
        Loss::ScrapeRefused,
        Loss::TooLarge,
        Loss::MetricsQueueFull,
        Loss::EventsQueueFull,
        Loss::MetricsRefused,
        Loss::EventsRefused,
        Loss::MetricsRejected,
        Loss::EventsRejected,
        Loss::TracesQueueFull,
        Loss::TracesRefused,
        Loss::TracesRejected,
        Loss::BirthDropped,
        Loss::BirthRecord,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Loss::UnknownPath => "unknown_path",
            Loss::UnresolvedCgroup => "unresolved_cgroup",
            Loss::LateName => "late_name",
            Loss::BundleMissed => "bundle_missed",
            Loss::CgroupDropped => "cgroup_dropped",
            Loss::PairDropped => "pair_dropped",
            Loss::SampleUntracked => "sample_untracked",
            Loss::BlameUntracked => "blame_untracked",
            Loss::ImpossibleNumber => "impossible_number",
            Loss::TerminalDropped => "terminal_dropped",
            Loss::DepartedDropped => "departed_dropped",
            Loss::ScrapeRefused => "scrape_refused",
            Loss::TooLarge => "too_large",
            Loss::MetricsQueueFull => "metrics_queue_full",
            Loss::EventsQueueFull => "events_queue_full",
            Loss::MetricsRefused => "metrics_refused",
            Loss::EventsRefused => "events_refused",
            Loss::MetricsRejected => "metrics_rejected",
            Loss::EventsRejected => "events_rejected",
            Loss::TracesQueueFull => "traces_queue_full",
            Loss::TracesRefused => "traces_refused",
            Loss::TracesRejected => "traces_rejected",
            Loss::BirthDropped => "birth_dropped",
            Loss::BirthRecord => "birth_record",
        }
    }

    /// Of a table that is full: what is missing now, and what to set. `None`: no table, or its owner tells.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Loss::CgroupDropped => Some(
                "more cgroups than can be known (65536), the others have no numbers: fewer on this node, for \
                 there is no setting for it",
            ),
            Loss::PairDropped => Some(
                "more pairs of victim and culprit than can be known (65536), the others are not named; there is no \
                 setting for it",
            ),
            Loss::SampleUntracked => Some(
                "more workloads than are watched, nothing is said of the others: raise `agent.max_cgroups`",
            ),
            Loss::BlameUntracked => Some(
                "a workload has more culprits than are kept (512), the others are not named; there is no setting for it",
            ),
            Loss::DepartedDropped => Some(
                "more workloads ended at once than are kept (1024), the last numbers of the eldest are not \
                 exported, or not on /metrics for a minute; there is no setting for it",
            ),
            Loss::BirthDropped => Some(
                "more pods start at once than are watched (1024), the others get no certificate; there is no setting for it",
            ),
            Loss::BirthRecord => Some(
                "more records of pods' starts than are kept: certificates of these starts say that they lack some; \
                 there is no setting for it",
            ),
            Loss::UnknownPath
            | Loss::UnresolvedCgroup
            | Loss::LateName
            | Loss::BundleMissed
            | Loss::ImpossibleNumber
            | Loss::TerminalDropped
            | Loss::ScrapeRefused
            | Loss::TooLarge
            | Loss::MetricsQueueFull
            | Loss::EventsQueueFull
            | Loss::MetricsRefused
            | Loss::EventsRefused
            | Loss::MetricsRejected
            | Loss::EventsRejected
            | Loss::TracesQueueFull
            | Loss::TracesRefused
            | Loss::TracesRejected => None,
        }
    }
}
