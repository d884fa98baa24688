//! The flags of `kernel-gossip reconciler`; each has an environment variable.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use clap::builder::BoolishValueParser;

use super::desired::Rules;
use super::queue::Rates;
use super::resize::{Mode, ResizeOptions};
use super::tls;

/// `kernel-gossip reconciler`
#[derive(Clone, Debug, clap::Args)]
pub struct ReconcilerOptions {
    #[arg(
        long,
        env = "LISTEN_ADDRESS",
        default_value = "::",
        help = "Address the ports below listen on; :: is every one, IPv4's too"
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

    /// Audience a bearer token must be bound to
    #[arg(long, env = "TOKEN_AUDIENCE", default_value = "kernel-gossip")]
    pub token_audience: String,
    /// Take webhook calls from anybody
    #[arg(long, env = "ALLOW_ANONYMOUS_WEBHOOK", value_parser = BoolishValueParser::new())]
    pub allow_anonymous_webhook: bool,
    /// Server certificate of the OTLP port (PEM); without it the port speaks plain text
    #[arg(long, env = "TLS_CERT_FILE", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "TLS_KEY_FILE", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// CA (PEM); an OTLP client with a certificate it signed needs no token and may speak for any pod
    #[arg(long, env = "TLS_CLIENT_CA_FILE", requires = "tls_cert", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Elect a leader among replicas by a Lease
    #[arg(long, env = "LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", value_parser = BoolishValueParser::new())]
    pub leader_election: bool,
    /// Name of that Lease
    #[arg(long, env = "LEASE_NAME", default_value = "kernel-gossip-reconciler")]
    pub lease_name: String,
    /// Namespace of that Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "kernel-gossip")]
    pub namespace: String,
    /// Name of this replica
    #[arg(long, env = "POD_NAME", default_value = "kernel-gossip-reconciler")]
    pub replica: String,
    /// Address the other replicas reach this one at
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    pub replica_ip: IpAddr,

    /// Serve the pods of this namespace alone: then a Role there is enough for them
    #[arg(long, env = "ONLY_NAMESPACE", value_name = "NAMESPACE")]
    pub only_namespace: Option<String>,
    /// An active signal not said again for so long is resolved (agents repeat theirs every minute)
    #[arg(long, env = "UNSAID_AFTER", default_value = "7m", value_parser = duration, value_name = "DURATION")]
    pub unsaid_after: Duration,
    /// A resolved signal is kept for so long, then forgotten
    #[arg(long, env = "KEEP_RESOLVED", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub keep_resolved: Duration,
    /// Withhold the names of neighbours in other namespaces
    #[arg(long, env = "WITHHOLD_NEIGHBOURS", value_parser = BoolishValueParser::new())]
    pub withhold_neighbours: bool,
    /// What to do about throttled containers of annotated pods, see docs/remediation.md
    #[arg(long, env = "REMEDIATION", value_enum, default_value_t)]
    pub remediation: Mode,
    /// Objects written a second, all together
    #[arg(long, env = "WRITES_PER_SECOND", default_value_t = 100.0, value_parser = rate, value_name = "N")]
    pub writes_per_second: f64,
    /// Pods with a whisper at most; more are counted and left out
    #[arg(long, env = "MAX_PODS", default_value_t = 50_000, value_name = "N")]
    pub max_pods: usize,
}

/// The command with only those variables that were set to something: an empty one is not set, as it is to OpenTelemetry's
/// (charts render them), and `OTLP_PORT=tcp://10.96.0.7:4317` is Kubernetes' own word on a Service named `otlp`, which it
/// gives to every pod of the namespace.
pub fn without_empty_variables(command: Command) -> Command {
    command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let unset = value.is_some_and(|value| {
            let value = value.to_string_lossy();
            let service_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
            value.trim().is_empty() || service_link
        });
        if unset { arg.env(None::<&str>) } else { arg }
    })
}

impl ReconcilerOptions {
    /// The rules of the desired state.
    pub fn rules(&self) -> Rules {
        Rules {
            unsaid: self.unsaid_after,
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
        assert_eq!((o.unsaid_after.as_secs(), o.keep_resolved.as_secs()), (420, 3600));
        assert!(!o.allow_anonymous_webhook && o.leader_election && o.tls().is_none());
        assert!(o.rates().capacity > o.rules().pods_max);
        for bad in [
            ["x", "--unsaid-after=0s"],
            ["x", "--keep-resolved=soon"],
            ["x", "--writes-per-second=0"],
            ["x", "--tls-cert=/c"],
            ["x", "--listen=here"],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
