//! CPU: throttled by its limit, or kept waiting by neighbours.

use std::fmt::Write;
use std::ops::RangeInclusive;

use super::command::{self, Change};
use super::{
    ContainerKind, Evidence, HEADROOM, Kind, MAX_CORES, MAX_FACTOR, NodeFacts, PodFacts, Recommendation,
    round_up_milli, sane, scope, window,
};
use crate::api::ResourceStep;
use crate::evidence::{CpuNumbers, HistoryPoint, NeighbourShare};
use crate::quantity::{from_milli, to_milli};

/// The kubelet's default enforcement period, seconds (`cpuCFSQuotaPeriod`): where the kernel's own is not known.
const PERIOD_SECONDS: f64 = 0.1;
/// The kernel takes no other periods.
const PERIODS: RangeInclusive<f64> = 0.001..=1.0;
/// Fewer stalls, or fewer throttled periods, say nothing about the next window.
const MIN_STALLS: i64 = 5;
/// Stopped for a smaller share of the window, no advice is worth a change.
const MIN_THROTTLED_PERCENT: f64 = 1.0;
/// Kept waiting by neighbours for a smaller share of the window, likewise.
const MIN_NEIGHBOUR_PERCENT: f64 = 5.0;
/// Throttled in a smaller share of the periods, its bursts came to an end within the window.
const BURSTS_END_BELOW: f64 = 0.75;
/// One neighbour with this share of the neighbours' part is the one to be kept apart from.
const MAIN_NEIGHBOUR: f64 = 0.5;

/// What the container would have needed, at most, in cores.
struct Need {
    cores: f64,
    mean_demand: f64,
    /// How `cores` was found, for the text.
    basis: &'static str,
}

/// See `docs/recommendations.md`. All of these are upper bounds, since a CPU counts as stopped until the end of a period,
/// however little was left to do there. `demand` is the least of them; what it wanted in the periods in which it was
/// stopped may be more, and the work that came in one burst bounds that again.
fn need(
    cpu: &CpuNumbers,
    window: f64,
    limit: f64,
    throttled: f64,
    history: &[HistoryPoint],
    node_cores: Option<f64>,
) -> Option<Need> {
    let usage = cpu.usage_cores?;
    // No more was refused than its threads waited for.
    let throttled = cpu.wait_seconds.filter(|w| sane(*w)).map_or(throttled, |wait| throttled.min(wait));
    // The agent's own bound, which knows the machine's CPUs; what was used is no estimate.
    let counted = usage + throttled / window;
    let mean_demand = cpu.demand_cores.filter(|d| sane(*d)).map_or(counted, |d| d.min(counted)).max(usage);
    let peak =
        intervals(history, window).map(|i| (i.used + i.throttled) / i.seconds).fold(mean_demand, f64::max);

    let period = cpu.period_seconds.filter(|s| PERIODS.contains(s)).unwrap_or(PERIOD_SECONDS);
    let stopped = match (cpu.throttled_periods, cpu.throttled_percent) {
        (Some(n), _) if n > 0 => Some(limit + throttled / (n as f64 * period)),
        // As many CPUs as were stopped at once.
        (_, Some(percent)) if percent > 0.0 => Some(throttled / (percent / 100.0 * window)),
        _ => None,
    };
    let ended = cpu.throttled_periods.is_some_and(|n| (n as f64) * period < BURSTS_END_BELOW * window);
    let burst_work = if ended { busiest(history, window).map(|work| work / period) } else { None };

    let mut found = Need { cores: mean_demand, mean_demand, basis: "its demand" };
    if peak > found.cores {
        (found.cores, found.basis) = (peak, "its demand in the busiest second");
    }
    if let Some(stopped) = stopped {
        let (cores, basis) = match burst_work {
            Some(work) if work < stopped => (work, "all the work of its largest burst in one period"),
            _ => (stopped, "its demand in the periods in which it was stopped"),
        };
        if cores > found.cores {
            (found.cores, found.basis) = (cores, basis);
        }
    }
    // No pod uses more than its node has.
    found.cores = node_cores.map_or(found.cores, |node| found.cores.min(node).max(usage));
    Some(found)
}

/// One interval of the history, in seconds.
struct Interval {
    seconds: f64,
    used: f64,
    throttled: f64,
}

/// The intervals of the history that lie in the last `window` seconds. A counter that fell (another
/// container of the name) gives no interval.
fn intervals(history: &[HistoryPoint], window: f64) -> impl Iterator<Item = Interval> + Clone {
    let end = history.last().map_or(0, |p| p.unix_ns);
    // Half a second of tolerance: readings are not taken on the dot.
    let begin = end.saturating_sub(((window + 0.5) * 1e9) as u64);
    history.windows(2).filter(move |w| w[0].unix_ns >= begin).filter_map(|w| {
        let (a, b) = (&w[0], &w[1]);
        // Shorter ones would turn a reading's own jitter into a peak.
        let ns = b.unix_ns.checked_sub(a.unix_ns).filter(|ns| *ns >= 500_000_000)?;
        Some(Interval {
            seconds: ns as f64 / 1e9,
            used: b.cpu_usage_ns.checked_sub(a.cpu_usage_ns)? as f64 / 1e9,
            throttled: b.throttled_ns.checked_sub(a.throttled_ns)? as f64 / 1e9,
        })
    })
}

/// CPU seconds used in the busiest two intervals that follow each other: a burst may lie across two.
fn busiest(history: &[HistoryPoint], window: f64) -> Option<f64> {
    let used = intervals(history, window).map(|i| i.used);
    used.clone().zip(used.skip(1)).map(|(a, b)| a + b).reduce(f64::max)
}

/// The limit the container has of its own, if that is the one that binds; else why no advice.
fn own_limit(evidence: &Evidence, binding: f64) -> Result<f64, String> {
    let Some(container) = evidence.pod.container(&evidence.container) else {
        return Ok(binding);
    };
    match container.cpu_limit_cores {
        // A runtime rounds a quota up (systemd to 10 ms), never down by a hundredth.
        Some(own) if binding >= own * 0.99 => Ok(own),
        Some(own) => Err(format!(
            "the limit that binds ({binding:.2} cores) is not the container's own ({own:.2}) but one set on the pod or above it."
        )),
        None => Err(format!(
            "the limit that binds ({binding:.2} cores) is set on the pod or above it, the container has none."
        )),
    }
}

/// Whether every container has requests equal to limits, for CPU and memory: the QoS class that a
/// new limit must not break. Ephemeral containers do not count, those of the init kind do.
fn guaranteed(pod: &PodFacts) -> bool {
    let mut counted = pod.containers.iter().filter(|c| c.kind != ContainerKind::Ephemeral).peekable();
    counted.peek().is_some()
        && counted.all(|c| {
            c.cpu_limit_cores.is_some()
                && c.cpu_limit_cores == c.cpu_request_cores
                && c.memory_limit_bytes.is_some()
                && c.memory_limit_bytes == c.memory_request_bytes
        })
}

/// Of a container that its own limit stopped.
pub fn throttled(evidence: &Evidence, node: NodeFacts) -> Recommendation {
    let window = match window(evidence) {
        Ok(window) => window,
        Err(why) => return Recommendation::none(why),
    };
    let Some(cpu) = &evidence.numbers.cpu else {
        return Recommendation::none("no CPU numbers came with it.");
    };
    let (Some(percent), Some(throttled), Some(usage), Some(binding)) =
        (cpu.throttled_percent, cpu.throttled_seconds, cpu.usage_cores, cpu.limit_cores)
    else {
        return Recommendation::none("throttled time, usage or the limit is unknown.");
    };
    if ![percent, throttled, usage, binding].into_iter().all(sane) || binding == 0.0 {
        return Recommendation::none("throttled time, usage or the limit makes no sense.");
    }
    let stalls = cpu.stalls.or(cpu.throttled_periods).unwrap_or(0);
    if percent < MIN_THROTTLED_PERCENT || stalls < MIN_STALLS {
        return Recommendation::none(format!(
            "stopped {percent:.1} % of {window:.0} s in {stalls} stalls: too little to judge by."
        ));
    }
    let limit = match own_limit(evidence, binding) {
        Ok(limit) => limit,
        Err(why) => return Recommendation::none(why),
    };
    let Some(need) = need(cpu, window, limit, throttled, &evidence.history, node.cpu_cores) else {
        return Recommendation::none("usage is unknown.");
    };

    let wanted = round_up_milli(need.cores * (1.0 + HEADROOM) * 1e3);
    let limit_milli = to_milli(limit);
    // What is recommended is more than there is, by a tenth at least: less is not worth a change.
    let least = round_up_milli(limit_milli as f64 * 1.1).max(limit_milli + 10);
    let used_milli = round_up_milli(usage * 1e3);
    let most = to_milli((limit * MAX_FACTOR).min(MAX_CORES)).max(least).max(used_milli);
    let mut to = wanted.clamp(least, most);

    let mut reason = format!(
        "Stopped {percent:.0} % of {window:.0} s by its CPU limit of {limit:.2} cores ({stalls} stalls): \
         it used {usage:.2} cores and would have used at most {:.2}.",
        need.mean_demand
    );
    let mut drop = false;
    if let Some(node) = node.cpu_cores
        && to >= to_milli(node)
    {
        to = to_milli(node).max(limit_milli);
        // Used all the time, such a limit still protects the rest of the node.
        drop = need.mean_demand < node / 2.0 && !guaranteed(&evidence.pod);
        if to == limit_milli {
            return Recommendation::none(format!(
                "{reason} The limit is the whole node's CPU ({node:.1} cores) already; a larger node or more replicas would help."
            ));
        }
    }
    let from = ResourceStep { cpu_limit_cores: Some(limit), ..ResourceStep::default() };
    if drop {
        let _ = write!(
            reason,
            " To meet {} (at most {:.2} cores) the limit would have to be the whole node's ({} cores), which restrains nothing: drop it; \
             its request keeps its share.",
            need.basis,
            need.cores,
            from_milli(to),
        );
        reason.push_str(&scope(evidence));
        let commands = command::all(evidence, &Change::drop_cpu_limit(), node);
        return Recommendation::new(
            Kind::DropLimit,
            Some(from),
            Some(ResourceStep::default()),
            reason,
            commands,
        );
    }

    if wanted < least {
        let _ = write!(
            reason,
            " The mean lies below the limit, so it comes in bursts: {} is the least step worth a change.",
            from_milli(to)
        );
    } else {
        let _ = write!(
            reason,
            " A limit of {} meets {} (at most {:.2} cores) with {:.0} % to spare.",
            from_milli(wanted),
            need.basis,
            need.cores,
            HEADROOM * 100.0
        );
    }
    if wanted > to {
        let _ = write!(
            reason,
            " From one window not more than {} is advised (at most {MAX_FACTOR:.0} times the limit, and no more than the node has).",
            from_milli(to)
        );
    }
    let mut change = Change::cpu_limit(to);
    let mut target = ResourceStep { cpu_limit_cores: Some(to as f64 / 1e3), ..ResourceStep::default() };
    let mut from = from;
    if guaranteed(&evidence.pod) {
        reason.push_str(" The pod is Guaranteed: the request goes with the limit.");
        change = change.with_cpu_request(to);
        target.cpu_request_cores = target.cpu_limit_cores;
        from.cpu_request_cores = from.cpu_limit_cores;
    }
    reason.push_str(&scope(evidence));
    let commands = command::all(evidence, &change, node);
    Recommendation::new(Kind::RaiseLimit, Some(from), Some(target), reason, commands)
}

/// Who most of the wait is blamed on.
enum Culprit<'a> {
    /// `namespace/pod/container`, and the first two of these.
    Pod(&'a str, (&'a str, &'a str)),
    /// A systemd unit or a cgroup path.
    System(&'a str),
    /// Pods of other namespaces; which and how many may not be said.
    Withheld,
}

impl<'a> Culprit<'a> {
    fn of(n: &'a NeighbourShare) -> Culprit<'a> {
        match n.name.as_str() {
            _ if n.withheld => Culprit::Withheld,
            name => match command::pod_of(name) {
                Some(pod) => Culprit::Pod(name, pod),
                None => Culprit::System(name),
            },
        }
    }

    fn name(&self) -> &'a str {
        match self {
            Culprit::Pod(name, _) | Culprit::System(name) => name,
            Culprit::Withheld => "other namespaces, whose names are withheld",
        }
    }
}

/// Of a container that its neighbours kept off the CPU.
pub fn contended(evidence: &Evidence, node: NodeFacts) -> Recommendation {
    let window = match window(evidence) {
        Ok(window) => window,
        Err(why) => return Recommendation::none(why),
    };
    let Some(cpu) = &evidence.numbers.cpu else {
        return Recommendation::none("no CPU numbers came with it.");
    };
    // Where the kernel cannot tell in how much of the time any thread waited, as long as they waited together.
    let (Some(wait), Some(usage)) = (cpu.contended_seconds.or(cpu.wait_neighbour_seconds), cpu.usage_cores)
    else {
        return Recommendation::none("usage or the wait behind neighbours is unknown.");
    };
    if ![wait, usage].into_iter().all(sane) {
        return Recommendation::none("usage or the wait behind neighbours makes no sense.");
    }
    let percent = (wait / window * 100.0).min(100.0);
    if percent < MIN_NEIGHBOUR_PERCENT {
        return Recommendation::none(format!(
            "it waited {percent:.1} % of {window:.0} s behind neighbours: too little to judge by."
        ));
    }
    // On each CPU on which a thread waited it could have run, as far as its limit and the machine go.
    let container = evidence.pod.container(&evidence.container);
    let bounds =
        [cpu.limit_cores, container.and_then(|c| c.cpu_limit_cores), node.cpu_cores, Some(MAX_CORES)];
    let demand = bounds.into_iter().flatten().fold(usage + wait / window, f64::min).max(usage);
    let request = container.map_or(cpu.request_cores, |c| c.cpu_request_cores);
    let main = evidence.numbers.neighbours.first().filter(|n| n.percent >= MAIN_NEIGHBOUR * percent);
    let mut reason = format!(
        "Waited {percent:.0} % of {window:.0} s for a CPU on which others ran: it used {usage:.2} cores, \
         would have used at most {demand:.2}, and requests {}.",
        request.map_or("none".to_string(), |r| format!("{r:.2}"))
    );
    let culprit = main.map(Culprit::of);
    if let (Some(share), Some(culprit)) = (main, &culprit) {
        let _ = write!(reason, " Most of it ({:.0} %) behind {}.", share.percent, culprit.name());
    }

    let request_milli = request.map_or(0, to_milli);
    let wanted = round_up_milli(demand * (1.0 + HEADROOM) * 1e3);
    let limit_milli = container.and_then(|c| c.cpu_limit_cores).map(to_milli);
    // Without a request there is nothing to multiply: the demand, bounded by the node alone. What it
    // uses now it may always ask for.
    let most = match request {
        Some(request) => to_milli(request * MAX_FACTOR).max(round_up_milli(usage * 1e3)),
        None => i64::MAX,
    };
    let most = most.min(to_milli(node.cpu_cores.unwrap_or(MAX_CORES).min(MAX_CORES)));
    let to = wanted.min(limit_milli.unwrap_or(i64::MAX)).min(most);

    if to > request_milli {
        if matches!(culprit, Some(Culprit::System(_))) {
            reason.push_str(
                " That is no pod: a request weighs among pods only, so reserve CPU for the system too \
                 (kubelet systemReserved).",
            );
        }
        let _ = write!(
            reason,
            " A request of {} makes the scheduler set that much aside and weighs against its neighbours.",
            from_milli(to)
        );
        let change = Change::cpu_request(to);
        let from = ResourceStep { cpu_request_cores: request, ..ResourceStep::default() };
        let target = ResourceStep { cpu_request_cores: Some(to as f64 / 1e3), ..ResourceStep::default() };
        reason.push_str(&scope(evidence));
        let commands = command::all(evidence, &change, node);
        return Recommendation::new(Kind::RaiseRequest, Some(from), Some(target), reason, commands);
    }
    match culprit {
        Some(Culprit::Pod(neighbour, pod)) => {
            let _ = write!(
                reason,
                " Its request covers that already, so a higher one would not help: keep it apart from {neighbour} by a podAntiAffinity \
                 to that pod's labels (topologyKey kubernetes.io/hostname), or limit that neighbour."
            );
            let commands = command::labels_of(pod).into_iter().collect();
            Recommendation::new(Kind::Spread, None, None, reason, commands)
        }
        Some(Culprit::Withheld) => Recommendation::none(format!(
            "{reason} Its request covers that already, so a higher one would not help: ask who may see the other \
             namespaces which neighbour to limit or to keep apart."
        )),
        Some(Culprit::System(_)) | None => Recommendation::none(format!(
            "{reason} Its request covers that already, and no single pod is to blame."
        )),
    }
}
