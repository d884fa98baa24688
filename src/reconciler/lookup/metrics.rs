//! What the Metrics API (`kubectl top`) says of a pod, in the object's terms, beside what the kernel counted over exactly
//! the same window: pure.

use jiff::{SignedDuration, Timestamp};

use crate::api::{ContainerMetrics, MetricsSay};
use crate::quantity;
use crate::reconciler::report::{PodFacts, PodMetrics};
use crate::signals::HistoryPoint;

/// What the metrics say, in the object's terms; without the kernel's numbers, see [`beside`].
/// `None` where a quantity cannot be read or cannot be true, or there is no container in it.
pub fn say(metrics: &PodMetrics, pod: &PodFacts) -> Option<MetricsSay> {
    if !metrics.is_sane() {
        return None;
    }
    let mut containers = Vec::with_capacity(metrics.containers.len());
    for c in &metrics.containers {
        let cpu = quantity::value(&c.usage.cpu)?;
        let limit = pod.container(&c.name).and_then(|c| c.cpu_limit_cores);
        containers.push(ContainerMetrics {
            name: c.name.clone(),
            cpu_cores: cpu,
            cpu_percent: limit.and_then(|limit| percent(cpu, limit)),
            memory_bytes: quantity::value(&c.usage.memory)? as i64,
            kernel_cpu_cores: None,
            kernel_throttled_cores: None,
        });
    }
    if containers.is_empty() {
        return None;
    }
    let cpu_cores = containers.iter().map(|c| c.cpu_cores).sum();
    let limits: Option<f64> =
        containers.iter().map(|c| pod.container(&c.name).and_then(|c| c.cpu_limit_cores)).sum();
    let cpu_percent = limits.and_then(|limit| percent(cpu_cores, limit));
    Some(MetricsSay {
        summary: match cpu_percent {
            Some(p) => format!("{cpu_cores:.2} cores, {p:.0} % of limit"),
            None => format!("{cpu_cores:.2} cores"),
        },
        cpu_cores,
        cpu_percent,
        memory_bytes: containers.iter().map(|c| c.memory_bytes).sum(),
        window: metrics.window.as_secs_f64(),
        timestamp: metrics.timestamp.clone(),
        containers,
    })
}

/// The API gives the end of its window in whole seconds, cut off: on average it was half a second later.
const CUT_OFF: SignedDuration = SignedDuration::from_millis(500);

/// Puts the kernel's count of one container over the metrics' own window beside them. False where the
/// samples do not cover that window. Its ends are known to half a second.
pub fn beside(said: &mut MetricsSay, container: &str, history: &[HistoryPoint]) -> bool {
    let Some(entry) = said.containers.iter_mut().find(|c| c.name == container) else { return false };
    let Some(usage) = usage_over(history, said.timestamp.0 + CUT_OFF, said.window) else { return false };
    entry.kernel_cpu_cores = Some(usage.cpu_cores);
    entry.kernel_throttled_cores = Some(usage.throttled_cores);
    true
}

fn percent(cores: f64, limit: f64) -> Option<f64> {
    (limit > 0.0).then(|| cores / limit * 100.0)
}

/// What the kernel counted over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelUsage {
    /// CPU time used / window, cores.
    pub cpu_cores: f64,
    /// Throttled time per CPU / window, cores.
    pub throttled_cores: f64,
}

/// Usage over the `window` seconds up to `end`, from cumulative samples (times rising). `None` where
/// they do not reach from its begin to its end, or lie so far apart there that the answer would be
/// a guess: between two samples the counter is taken to run evenly, so the two gaps at the
/// window's ends must be within a third of the window each.
pub fn usage_over(history: &[HistoryPoint], end: Timestamp, window: f64) -> Option<KernelUsage> {
    if !(window > 0.0 && window <= 3600.0) {
        return None;
    }
    let end_ns = u64::try_from(end.as_nanosecond()).ok()?;
    let window_ns = (window * 1e9) as u64;
    let begin_ns = end_ns.checked_sub(window_ns)?;
    let gap = window_ns / 3;
    let (cpu_begin, throttled_begin) = at(history, begin_ns, gap)?;
    let (cpu_end, throttled_end) = at(history, end_ns, gap)?;
    Some(KernelUsage {
        cpu_cores: (cpu_end - cpu_begin) / window_ns as f64,
        throttled_cores: (throttled_end - throttled_begin) / window_ns as f64,
    })
}

/// The counters at a moment between two samples: (CPU used, throttled), ns.
fn at(history: &[HistoryPoint], ns: u64, gap: u64) -> Option<(f64, f64)> {
    let next = history.partition_point(|p| p.unix_ns < ns);
    let b = history.get(next)?;
    if b.unix_ns == ns {
        return Some((b.cpu_usage_ns as f64, b.throttled_ns as f64));
    }
    let a = history.get(next.checked_sub(1)?)?;
    if b.unix_ns - a.unix_ns > gap {
        return None;
    }
    let share = (ns - a.unix_ns) as f64 / (b.unix_ns - a.unix_ns) as f64;
    let mix = |a: u64, b: u64| a as f64 + share * (b as f64 - a as f64);
    Some((mix(a.cpu_usage_ns, b.cpu_usage_ns), mix(a.throttled_ns, b.throttled_ns)))
}

#[cfg(test)]
mod tests;
