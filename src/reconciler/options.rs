//! The flags of `kernel-gossip reconciler`; each has an environment variable.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use clap::builder::BoolishValueParser;

use super::desired::Rules;
use super::lead::tls;
use super::resize::{Mode, ResizeOptions};
use super::write::queue::Rates;

/// `kernel-gossip reconciler`
#[derive(Clone, Debug, clap::Args)]
pub struct ReconcilerOptions {
    #[arg(
        long,
        env = "LISTEN_ADDRESS",
        default_value = "::",
        help = "Address to listen on; :: is all addresses, IPv4 included"
    )]
    pub listen: IpAddr,
    /// Port of the OTLP logs service (gRPC)
    #[arg(long, env = "OTLP_PORT", default_value_t = 4317)]
    pub otlp_port: u16,
    /// Port of the webhook, /health and /ready
    #[arg(long, env = "WEBHOOK_PORT", default_value_t = 8080)]
    pub webhook_port: u16,
    /// Port of /metrics
    #[arg(long, env = "METRICS_PORT", default_value_t = 9090)]
    pub metrics_port: u16,

    /// Audience that bearer tokens must have
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = "kernel-gossip")]
    pub token_audience: String,
    /// Accept webhook calls without a token
    #[arg(long, env = "ALLOW_ANONYMOUS_WEBHOOK", value_parser = BoolishValueParser::new())]
    pub allow_anonymous_webhook: bool,
    /// Server certificate of the OTLP port (PEM); without it the port does not use TLS
    #[arg(long, env = "TLS_CERT_FILE", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the server certificate (PEM)
    #[arg(long, env = "TLS_KEY_FILE", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Client CA (PEM): an OTLP client with a certificate from it needs no token and may report on any pod
    #[arg(long, env = "TLS_CLIENT_CA_FILE", requires = "tls_cert", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Elect a leader among the replicas through a Lease
    #[arg(long, env = "LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new())]
    pub leader_election: bool,
    /// Name of the leader election Lease
    #[arg(long, env = "LEASE_NAME", default_value = "kernel-gossip-reconciler")]
    pub lease_name: String,
    /// Namespace of the leader election Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "kernel-gossip")]
    pub namespace: String,
    /// Name of this replica
    #[arg(long, env = "POD_NAME", default_value = "kernel-gossip-reconciler")]
    pub replica: String,
    /// Address at which other replicas reach this one
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    pub replica_ip: IpAddr,

    /// Handle only pods in this namespace; then a Role in it is enough
    #[arg(long, env = "ONLY_NAMESPACE", value_name = "NAMESPACE")]
    pub only_namespace: Option<String>,
    /// Expire a signal that was not refreshed within this time (agents refresh theirs every minute)
    #[arg(long, alias = "unsaid-after", env = "STALE_AFTER", default_value = "7m", value_parser = duration, value_name = "DURATION")]
    pub stale_after: Duration,
    /// Keep a resolved signal in the object for this time
    #[arg(long, env = "KEEP_RESOLVED", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub keep_resolved: Duration,
    /// Do not show names of neighbours in other namespaces
    #[arg(long, env = "WITHHOLD_NEIGHBOURS", value_parser = BoolishValueParser::new())]
    pub withhold_neighbours: bool,
    /// What to do about throttled containers of annotated pods (docs/remediation.md)
    #[arg(long, env = "REMEDIATION", value_enum, default_value_t)]
    pub remediation: Mode,
    /// Limit on object writes per second, all kinds together
    #[arg(long, env = "WRITES_PER_SECOND", default_value_t = 100.0, value_parser = rate, value_name = "N")]
    pub writes_per_second: f64,
    /// Limit on pods with a whisper; pods above it are counted and left out
    #[arg(long, env = "MAX_PODS", default_value_t = 50_000, value_name = "N")]
    pub max_pods: usize,
}

/// The command with only those variables that were set to something: an empty one is not set, as it is to OpenTelemetry's
/// (charts render them), and `OTLP_PORT=tcp://10.96.0.7:4317` is Kubernetes' own word on a Service named `otlp`, which it
/// gives to every pod of the namespace.
pub fn without_empty_variables(command: Command) -> Command {
    let renamed = |arg: clap::Arg| match arg.get_id().as_str() {
        // Until the version after next.
        "stale_after" if !is_set("STALE_AFTER") && is_set("UNSAID_AFTER") => arg.env("UNSAID_AFTER"),
        _ => arg,
    };
    command.mut_args(renamed).mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let unset = value.is_some_and(|value| {
            let value = value.to_string_lossy();
            let service_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
            value.trim().is_empty() || service_link
        });
        if unset { arg.env(None::<&str>) } else { arg }
    })
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
}

impl ReconcilerOptions {
    /// The rules of the desired state.
    pub fn rules(&self) -> Rules {
        Rules {
            stale_after: self.stale_after,
            keep_resolved: self.keep_resolved,
            pods_max: self.max_pods,
            withhold_neighbours: self.withhold_neighbours,
            remediation_off: self.remediation == Mode::Off,
            ..Rules::default()
        }
    }

    /// The rates of the queue. It has room for every pod, and for births.
    pub fn rates(&self) -> Rates {
        Rates {
            capacity: self.max_pods.saturating_add(10_000),
            per_second: self.writes_per_second,
            burst: (self.writes_per_second * 2.0).ceil() as u32,
            ..Rates::default()
        }
    }

    /// The bounds of the remediation.
    pub fn resize(&self) -> ResizeOptions {
        ResizeOptions { mode: self.remediation, ..ResizeOptions::default() }
    }

    /// Where the certificates are, if there are any.
    pub fn tls(&self) -> Option<tls::Files> {
        Some(tls::Files {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.tls_client_ca.clone(),
        })
    }
}

/// `90s`, `3m`, `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "a duration such as 90s, 3m, 1h".to_owned())?;
    match Duration::try_from(span) {
        Ok(d) if d >= Duration::from_secs(1) && d <= Duration::from_secs(30 * 86_400) => Ok(d),
        _ => Err("a duration from 1s to 30 days".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.1 to 10000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: ReconcilerOptions,
    }

    #[test]
    fn defaults_and_limits() {
        let o = Cli::try_parse_from(["x"]).unwrap().options;
        assert_eq!((o.webhook_port, o.metrics_port, o.otlp_port), (8080, 9090, 4317));
        assert_eq!((o.stale_after.as_secs(), o.keep_resolved.as_secs()), (420, 3600));
        assert!(!o.allow_anonymous_webhook && o.leader_election && o.tls().is_none());
        assert!(o.rates().capacity > o.rules().pods_max);
        let renamed = Cli::try_parse_from(["x", "--unsaid-after=3m"]).unwrap().options;
        assert_eq!(renamed.stale_after.as_secs(), 180, "the name it had");
        for bad in [
            ["x", "--stale-after=0s"],
            ["x", "--keep-resolved=soon"],
            ["x", "--writes-per-second=0"],
            ["x", "--tls-cert=/c"],
            ["x", "--listen=here"],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
