//! One workload: what the metrics say beside what the kernel says.

use kernel_gossip::names::{attribute, metric, whisper};

use super::panel::{BLUE, Dashboard, GREEN, GREY, LOST, ORANGE, Panel, RED};
use super::query::*;
use super::variable;

pub const UID: &str = "kernel-gossip-workload";

pub fn dashboard() -> Dashboard {
    let state = label(attribute::THREAD_STATE);
    let neighbour = label(attribute::NEIGHBOUR_NAME);
    let per = |of: &metric::Metric| sum(&WHO, &rate(of, &[WORKLOADS], POINT));
    let of_all = |of: &metric::Metric| sum(&[], &rate(of, &[WORKLOADS], POINT));
    let used_of_limit = format!(
        "{}\n/\n{}",
        per(&metric::CPU_USAGE_TIME),
        sum(&WHO, &series(&metric::CPU_LIMIT, &[WORKLOADS, NO_POD]))
    );
    let periods = format!("{}\n/\n{}", per(&metric::CPU_THROTTLED_PERIODS), per(&metric::CPU_PERIODS));
    let waiting = |cause: &str| {
        sum(&[], &rate(&metric::CPU_WAIT_TIME, &[WORKLOADS, &is(attribute::WAIT_CAUSE, cause)], POINT))
    };
    let (signal, severity) = (label(whisper::SIGNAL), label(whisper::SEVERITY));
    let active = format!(
        "max by ({}, {signal}, {severity}) ({})",
        WHO.join(", "),
        series(&metric::WHISPER_ACTIVE, &[WORKLOADS])
    );
    // Pods as culprits: their names are labels of the victims' series.
    let culprit = format!(
        "{}=~\"$namespace\",{}=~\"$pod\"",
        label(attribute::NEIGHBOUR_NAMESPACE),
        label(attribute::NEIGHBOUR_POD)
    );
    let slow = |title: &str, of: &metric::Metric, description: &str| {
        Panel::graph(title, description, "s")
            .query(&quantile(0.5, of, &[WORKLOADS], POINT, &[]), "half within")
            .query(&quantile(0.9, of, &[WORKLOADS], POINT, &[]), "90 % within")
            .query(&quantile(0.99, of, &[WORKLOADS], POINT, &[]), "99 % within")
    };
    let pressure = |title: &str, of: &metric::Metric, description: &str| {
        let resource = label(attribute::PRESSURE_RESOURCE);
        // A pod as a whole has its containers' once more.
        let of = rate(of, &[WORKLOADS, NO_POD], POINT);
        Panel::graph(title, description, "percentunit").query(
            &named(&aggregate("max", &[&WHO[..], &[&*resource]].concat(), &of)),
            &format!("{{{{{resource}}}}}: {{{{who}}}}"),
        )
    };
    let (reason, direction) = (label(attribute::DROP_REASON), label(attribute::DIRECTION));
    let event = label(attribute::TCP_EVENT);
    // Of whom packets are counted and no drop was, the share is zero.
    let of_packets = |of: &metric::Metric, all: &metric::Metric| {
        let all = per(all);
        format!("({}\nor\n0 * {all})\n/\n{all}", per(of))
    };
    Dashboard {
        uid: UID,
        title: "Kernel Gossip / Workload",
        description: "What the usual metrics say of a workload beside what the kernel did to it, and who did.",
        variables: vec![
            variable::cluster(),
            variable::nodes(),
            variable::namespaces(),
            variable::pods(),
            variable::containers(),
            variable::cgroups(),
        ],
        links: vec![],
        rows: vec![
            ("Now", vec![
                Panel::stat("CPU used", "", "suffix: cores").query(&of_all(&metric::CPU_USAGE_TIME), "used"),
                Panel::stat("Limit", "The CPU quota that binds each, its own or an ancestor's, summed. Without one: may be empty.", "suffix: cores")
                    .query(&sum(&[], &series(&metric::CPU_LIMIT, &[WORKLOADS, NO_POD])), "limit"),
                Panel::stat("Stopped by its limit", "The share of time in which some of it was stopped; of several containers, of the one stopped the most.", "percentunit")
                    .query(&format!("max({})", per(&metric::CPU_THROTTLED_WALL_TIME)), "stopped").thresholds(&[(None, GREEN), (Some(0.25), ORANGE), (Some(0.5), RED)]),
                Panel::stat("Lost to its limit", "Summed over threads.", LOST).query(&waiting("throttle"), "throttle"),
                Panel::stat("Lost to neighbours", "Summed over threads.", LOST).query(&waiting("neighbour"), "neighbour"),
                Panel::stat("Whispers", "Active now. Zero is what the agents say; no data is that no agent says anything.", "short")
                    .query(&or_none(&sum(&[], &series(&metric::WHISPER_ACTIVE, &[WORKLOADS])), NODES), "whispers").thresholds(&[(None, GREEN), (Some(1.0), RED)]),
            ]),
            ("What the metrics say, what the kernel says", vec![
                Panel::graph("What the metrics say: CPU used, of its limit", "Averages: under 100 % there seems to be room. Without a limit: may be empty.", "percentunit")
                    .query(&named(&used_of_limit), "{{who}}"),
                Panel::graph("What the kernel says: time stopped by the limit", "The share of time in which at least one CPU was refused to it.", "percentunit")
                    .query(&named(&per(&metric::CPU_THROTTLED_WALL_TIME)), "{{who}}").share().lines(&[(0.25, ORANGE), (0.5, RED)]),
                Panel::graph("Where the time of its threads went", "Of all threads, seconds a second: ran, or were ready to run and waited, and for what, or slept for memory or a disk. Asleep for anything else is not there.", LOST)
                    .query(&sum(&[&state], &rate(&metric::THREAD_TIME, &[WORKLOADS], POINT)), &format!("{{{{{state}}}}}"))
                    .stacked().color("ran", GREEN).color("throttled", RED).color("neighbour", ORANGE).color("own", BLUE).color("unattributed", GREY),
                Panel::graph("Throttled, in three ways", "Wall: some of it was stopped. Full: no CPU ran it. Per CPU: the sum over CPUs, by its own limit and its pod's. cpu.stat: what it reports of the container's own limit.", LOST)
                    .query(&of_all(&metric::CPU_THROTTLED_WALL_TIME), "wall").query(&of_all(&metric::CPU_THROTTLED_FULL_TIME), "full")
                    .query(&of_all(&metric::CPU_THROTTLED_PER_CPU_TIME), "per CPU").query(&sum(&[], &rate(&metric::CPU_THROTTLED_REPORTED_TIME, &[WORKLOADS, NO_POD], POINT)), "cpu.stat"),
                Panel::graph("What the usual alert counts: throttled periods, of all", "A stall of 0.1 ms counts as a period of 100 ms: compare with the time stopped. Without a limit of its own: may be empty.", "percentunit")
                    .query(&named(&periods), "{{who}}").share(),
                Panel::states("Whispers", "When it whispered, of what. May be empty.").query(&named(&active), &format!("{{{{who}}}} {{{{{signal}}}}} {{{{{severity}}}}}")),
            ]),
            ("Waits and stalls", vec![
                Panel::heat_map("How long it waited for a CPU", "Each wait of a thread, from runnable to running. From the agent's own page what is longer than 1 s is in the last row.")
                    .query(&heat(&metric::CPU_WAIT_DURATION, &[WORKLOADS]), "{{le}}"),
                Panel::heat_map("How long it was stopped", "Each stall of one CPU by the CPU limit.")
                    .query(&heat(&metric::CPU_STALL_DURATION, &[WORKLOADS]), "{{le}}"),
                slow("Waits", &metric::CPU_WAIT_DURATION, "From histograms of powers of two. From the agent's own page 1 s is 1 s or more."),
                slow("Stalls", &metric::CPU_STALL_DURATION, "From histograms of powers of two. Without stalls there is no line."),
            ]),
            ("Neighbours", vec![
                Panel::graph("Who kept it waiting", "Its threads' time ready to run while these ran on the CPU they waited for: the ten greatest.", LOST)
                    .query(&greatest(10, &[&neighbour], &metric::CPU_NEIGHBOUR_TIME, &[WORKLOADS]), &format!("{{{{{neighbour}}}}}")).stacked(),
                Panel::graph("Whom it kept waiting", "Others' time ready to run while it ran: the ten greatest. Of a pod as a whole; nobody, or no pod's: may be empty.", LOST)
                    .query(&named(&greatest(10, &WHO, &metric::CPU_NEIGHBOUR_TIME, &[NODES, &culprit])), "{{who}}").stacked(),
            ]),
            ("Network", vec![
                Panel::graph("Packets that the kernel dropped, of all", "Rules, full sockets and queues: interface counters say 0 of most of them. Of pods with a network of their own.", "percentunit")
                    .query(&named(&of_packets(&metric::NETWORK_DROPPED, &metric::NETWORK_PACKETS)), "{{who}}").lines(&[(0.01, ORANGE), (0.05, RED)]),
                Panel::graph("Why, and which way", "Packets a second by the kernel's own reason. Nothing dropped, or a kernel before 6.1: may be empty.", "pps")
                    .query(&sum(&[&reason, &direction], &rate(&metric::NETWORK_DROPPED, &[WORKLOADS], POINT)), &format!("{{{{{direction}}}}} {{{{{reason}}}}}")).stacked(),
                Panel::graph("TCP segments sent again, of all sent", "Segments are sent again without a loss, too: compare with the timeouts and tail losses.", "percentunit")
                    .query(&named(&of_packets(&metric::NETWORK_TCP_RETRANSMITTED, &metric::NETWORK_TCP_SEGMENTS)), "{{who}}").lines(&[(0.01, ORANGE), (0.05, RED)]),
                Panel::graph("What went wrong on connections", "By the kernel's counters: a timeout is a wait of at least 200 ms for an acknowledgement that did not come; a tail loss is one that a probe repaired before.", "short")
                    .query(&sum(&[&event], &rate(&metric::NETWORK_TCP_EVENTS, &[WORKLOADS], POINT)), &format!("{{{{{event}}}}}")),
            ]),
            ("Pressure (PSI)", vec![
                pressure("Some waited", &metric::PRESSURE_SOME_TIME, "The share of time in which at least one task waited. CPU's rises from throttling alone."),
                pressure("All waited", &metric::PRESSURE_FULL_TIME, "The share of time in which every task waited, and nothing was done."),
            ]),
        ],
    }
}
