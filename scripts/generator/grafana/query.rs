//! PromQL of the registry's metrics: a name that is not there does not compile.
//!
//! Rules of all queries: only [`rate`] and [`increase`] are taken of counters, as an agent that starts again starts them
//! again; what is absent stays absent, and a zero is written only where an agent has said that there is none
//! ([`or_none`]); of histograms both forms are asked for, as the agent's own page has buckets and what comes
//! through a collector is native.

use kernel_gossip::names::metric::{self, Metric, prometheus_name};

/// Of a graph's point.
pub const POINT: &str = "$__rate_interval";
/// The whole time shown.
pub const SHOWN: &str = "$__range";

/// Selects everything of one cluster. Without the label, the variable is empty, and so it fits.
pub const CLUSTER: &str = r#"cluster="$cluster""#;
pub const NODES: &str = r#"cluster="$cluster",node=~"$node""#;
pub const NAMESPACES: &str = r#"cluster="$cluster",node=~"$node",namespace=~"$namespace""#;
pub const WORKLOADS: &str = r#"cluster="$cluster",node=~"$node",namespace=~"$namespace",pod=~"$pod",container=~"$container",cgroup=~"$cgroup""#;

/// Without pods as a whole: what is counted for these is their containers' once more.
pub const NO_POD: &str = r#"kind!="pod""#;

/// Who a workload is.
pub const WHO: [&str; 5] = ["node", "namespace", "pod", "container", "cgroup"];

/// A registry's attribute as a label.
pub fn label(attribute: &str) -> String {
    prometheus_name(attribute)
}

/// A matcher of an attribute: one value, or several separated by `|`.
pub fn is(attribute: &str, value: &str) -> String {
    let operator = if value.contains('|') { "=~" } else { "=" };
    format!("{}{operator}\"{value}\"", label(attribute))
}

/// A metric's series with these matchers.
pub fn series(metric: &Metric, having: &[&str]) -> String {
    selected(&metric.prometheus(), having)
}

pub fn selected(name: &str, having: &[&str]) -> String {
    let having: Vec<_> = having.iter().filter(|h| !h.is_empty()).copied().collect();
    if having.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", having.join(",")) }
}

pub fn rate(metric: &Metric, having: &[&str], window: &str) -> String {
    format!("rate({}[{window}])", series(metric, having))
}

pub fn increase(metric: &Metric, having: &[&str], window: &str) -> String {
    format!("increase({}[{window}])", series(metric, having))
}

/// Any of these metrics.
pub fn any(metrics: &[&Metric], having: &[&str]) -> String {
    let names: Vec<_> = metrics.iter().map(|m| m.prometheus()).collect();
    format!("{{__name__=~\"{}\",{}}}", names.join("|"), having.join(","))
}

/// The growth of how many durations a histogram has, by `labels`.
pub fn counted(metric: &Metric, having: &[&str], window: &str, labels: &[&str]) -> String {
    let name = metric.prometheus();
    let buckets = selected(&format!("{name}_count"), having);
    sum(labels, &format!("rate({buckets}[{window}])"))
}

/// The mean of a histogram of the agent's own, which has buckets wherever it is read.
pub fn mean(metric: &Metric, having: &[&str], window: &str, labels: &[&str]) -> String {
    let name = metric.prometheus();
    let total = selected(&format!("{name}_sum"), having);
    format!(
        "{}\n/\n{}",
        sum(labels, &format!("rate({total}[{window}])")),
        counted(metric, having, window, labels)
    )
}

/// A quantile by `labels`.
pub fn quantile(q: f64, metric: &Metric, having: &[&str], window: &str, labels: &[&str]) -> String {
    let name = metric.prometheus();
    let classic = [labels, &["le"]].concat();
    let buckets = format!("rate({}[{window}])", selected(&format!("{name}_bucket"), having));
    let native = format!("rate({}[{window}])", selected(&name, having));
    format!(
        "histogram_quantile({q}, {})\nor\nhistogram_quantile({q}, {})",
        sum(&classic, &buckets),
        sum(labels, &native)
    )
}

/// What a heat map is drawn of.
pub fn heat(metric: &Metric, having: &[&str]) -> String {
    let name = metric.prometheus();
    let buckets = format!("rate({}[{POINT}])", selected(&format!("{name}_bucket"), having));
    let native = format!("rate({}[{POINT}])", selected(&name, having));
    format!("{}\nor\n{}", sum(&["le"], &buckets), sum(&[], &native))
}

pub fn sum(labels: &[&str], of: &str) -> String {
    aggregate("sum", labels, of)
}

pub fn aggregate(how: &str, labels: &[&str], of: &str) -> String {
    if labels.is_empty() {
        format!("{how}({of})")
    } else {
        format!("{how} by ({}) ({of})", labels.join(", "))
    }
}

/// The same with a label `who`: namespace/pod/container, or the cgroup's path of what is outside any pod.
pub fn named(of: &str) -> String {
    let joined = format!(r#"label_join({of}, "who", "/", "namespace", "pod", "container")"#);
    let path = format!(r#"label_replace({joined}, "who", "$1", "cgroup", "(.+)")"#);
    // Of a pod as a whole: its container is empty.
    format!(r#"label_replace({path}, "who", "$1", "who", "(.+[^/])/+")"#)
}

/// What is outside any pod has a word for it in a legend.
pub fn no_pods(label: &str, of: &str) -> String {
    format!(r#"label_replace({of}, "{label}", "(no pod's)", "{label}", "")"#)
}

/// By `labels` over time, of those that had the most in all the time shown: not other ones at each point.
pub fn greatest(n: u32, labels: &[&str], metric: &Metric, having: &[&str]) -> String {
    let most = format!("increase({}[{SHOWN}] @ end())", series(metric, having));
    format!("{}\nand\ntopk({n}, {} > 0)", sum(labels, &rate(metric, having, POINT)), sum(labels, &most))
}

/// Zero where the agents say nothing of it: a count of what each agent would tell.
pub fn or_none(of: &str, having: &str) -> String {
    format!("{of}\nor\n0 * {}", agents(having))
}

/// How many nodes have an agent that reports.
pub fn agents(having: &str) -> String {
    format!("count(count by (node) ({}))", series(&metric::AGENT_WORKLOAD_KNOWN, &[having]))
}
