//! Where and how to export: OpenTelemetry's standard variables, and flags that override them.
//!
//! In one piece: each setting is a flag, a variable for all signals and one for each, and what is wrong with any of them is said here.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Uri;

use super::encode::MAX_REQUEST;
use super::queue::Lane;
use crate::proxy;

/// Flags for OTLP. Each overrides the variable its help names, the one of a single signal too.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "OTLP")]
pub struct OtlpArgs {
    /// Send metrics, events and traces to this OTLP/gRPC receiver, such as http://localhost:4317
    /// [env: OTEL_EXPORTER_OTLP_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Send metrics here instead [env: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub otlp_metrics_endpoint: Option<String>,
    /// Send events here instead [env: OTEL_EXPORTER_OTLP_LOGS_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub otlp_logs_endpoint: Option<String>,
    /// Send the traces of births here instead [env: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub otlp_traces_endpoint: Option<String>,
    /// Add this header to every request, value percent-encoded; may be repeated [env: OTEL_EXPORTER_OTLP_HEADERS]
    #[arg(long, value_name = "KEY=VALUE")]
    pub otlp_header: Vec<String>,
    /// Timeout of a request in milliseconds [env: OTEL_EXPORTER_OTLP_TIMEOUT] [default: 10000]
    #[arg(long, value_name = "MS")]
    pub otlp_timeout: Option<String>,
    /// Compression: gzip or none [env: OTEL_EXPORTER_OTLP_COMPRESSION] [default: gzip]
    #[arg(long, value_name = "HOW")]
    pub otlp_compression: Option<String>,
    /// Trust only this CA (PEM) [env: OTEL_EXPORTER_OTLP_CERTIFICATE] [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub otlp_certificate: Option<String>,
    /// Client certificate (PEM) [env: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE]
    #[arg(long, value_name = "FILE")]
    pub otlp_client_certificate: Option<String>,
    /// Private key of the client certificate (PEM) [env: OTEL_EXPORTER_OTLP_CLIENT_KEY]
    #[arg(long, value_name = "FILE")]
    pub otlp_client_key: Option<String>,
    /// Do not use TLS for an endpoint without a scheme [env: OTEL_EXPORTER_OTLP_INSECURE]
    #[arg(long)]
    pub otlp_insecure: bool,
    /// Send the token in this file as `authorization: Bearer`; reread when the file changes
    #[arg(long, value_name = "FILE")]
    pub otlp_token_file: Option<PathBuf>,
    /// Interval between metric exports in milliseconds [env: OTEL_METRIC_EXPORT_INTERVAL] [default: 60000]
    #[arg(long, value_name = "MS")]
    pub otlp_interval: Option<String>,
    /// Buffer at most this many bytes while a receiver is unreachable
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_QUEUE)]
    pub otlp_queue: usize,
}

const DEFAULT_QUEUE: usize = 8 << 20;

/// Where and how to export, checked.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// `None`: metrics are not exported.
    pub metrics: Option<Signal>,
    /// `None`: events are not exported.
    pub events: Option<Signal>,
    /// `None`: traces are not exported.
    pub traces: Option<Signal>,
    /// The token of every request.
    pub token_file: Option<PathBuf>,
    /// Between two exports of metrics.
    pub interval: Duration,
    /// What may wait at most, bytes.
    pub queue_bytes: usize,
    /// Waiting before a request is sent again.
    pub retry: Retry,
}

/// The receiver of one kind of data.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    pub endpoint: Uri,
    /// The HTTP proxy that the environment names, for a receiver with TLS; `None`: it is connected to directly.
    pub proxy: Option<Proxy>,
    /// `None`: without TLS.
    pub tls: Option<TlsFiles>,
    pub headers: Headers,
    pub timeout: Duration,
    pub gzip: bool,
}

/// The URL of an HTTP proxy. A password in it is nobody's business.
#[derive(Clone, PartialEq)]
pub struct Proxy(pub Uri);

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.host().unwrap_or_default())
    }
}

/// PEM files, read at every connection so that renewed ones are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<PathBuf>,
    /// Certificate and key of this client.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Headers of every request. What they say is nobody's business.
#[derive(Clone, Default)]
pub struct Headers(pub MetadataMap);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref() == other.0.as_ref()
    }
}

/// Exponential waiting, with jitter, before a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { first: Duration::from_secs(1), longest: Duration::from_secs(15) }
    }
}

/// What is wrong with a variable or flag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {message}")]
pub struct ConfigError {
    pub setting: String,
    pub message: String,
}

/// A value and the flag or variable it came from.
type Found = Option<(String, String)>;

impl OtlpConfig {
    /// Reads flags, then variables through `env`. `None`: no endpoint is set, so nothing is exported.
    ///
    /// # Errors
    /// A value that cannot be used, with the flag or variable it is in.
    pub fn new(
        args: &OtlpArgs,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<OtlpConfig>, ConfigError> {
        let source = Source { args, env: &env };
        if source.disabled() {
            return Ok(None);
        }
        let (metrics, events) = (source.signal(Lane::Metrics)?, source.signal(Lane::Events)?);
        let traces = source.signal(Lane::Traces)?;
        if metrics.is_none() && events.is_none() && traces.is_none() {
            return Ok(None);
        }
        if args.otlp_queue < MAX_REQUEST {
            return Err(refuse(
                "--otlp-queue",
                format!("at least {MAX_REQUEST}, the largest single request"),
            ));
        }
        let interval = source.interval();
        Ok(Some(OtlpConfig {
            metrics,
            events,
            traces,
            token_file: args.otlp_token_file.clone(),
            interval: milliseconds(interval)?.unwrap_or(Duration::from_secs(60)),
            queue_bytes: args.otlp_queue,
            retry: Retry::default(),
        }))
    }
}

/// What the variables say and this program does not do, or does otherwise than whoever set them may think: a line each.
pub fn remarks(args: &OtlpArgs, env: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let source = Source { args, env: &env };
    let mut all = Vec::new();
    let set = |name: &str| source.found(None, "", name).map(|(_, value)| value.trim().to_owned());
    if source.disabled() {
        all.push("OTEL_SDK_DISABLED is true: nothing is sent over OTLP".to_owned());
        return all;
    }
    let mut endpoint = false;
    for lane in Lane::ALL {
        let variable = exporter(lane);
        match set(variable).map(|value| value.to_ascii_lowercase()) {
            Some(value) if value == "none" => {
                all.push(format!("{variable} is none: {} are not sent over OTLP", lane.as_str()));
            }
            Some(value) if value.split(',').any(|one| one.trim() != "otlp") => {
                let sent = match value.split(',').any(|one| one.trim() == "otlp") {
                    true => "sent over OTLP alone",
                    false => "not sent over OTLP",
                };
                all.push(format!(
                    "{variable} is {value:?}: otlp and none alone are known here, {} are {sent}",
                    lane.as_str()
                ));
            }
            _ => {}
        }
        endpoint |= source.endpoint(lane).is_some();
    }
    if !endpoint {
        return all;
    }
    let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    if let Some(value) = set(temporality).filter(|value| !value.eq_ignore_ascii_case("cumulative")) {
        all.push(format!(
            "{temporality} is {value:?}: what is sent is cumulative all the same; a collector's cumulativetodelta \
             processor makes deltas of it"
        ));
    }
    let of_compression: BTreeSet<_> =
        Lane::ALL.into_iter().flat_map(|lane| variables(lane, "COMPRESSION")).collect();
    for variable in of_compression {
        if let Some(value) = set(&variable).filter(|value| compression(value).is_none()) {
            all.push(format!("{variable} is {value:?}, and is not used: gzip and none alone are known here"));
        }
    }
    let aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    if let Some(value) = set(aggregation) {
        all.push(format!(
            "{aggregation} is {value:?}, and is not used: workloads have exponential histograms, the agent's own \
             explicit buckets"
        ));
    }
    if let Some(why) = Lane::ALL.into_iter().find_map(|lane| source.unused_proxy(lane)) {
        all.push(format!("HTTPS_PROXY {why}: OTLP receivers are connected to directly"));
    }
    if let Ok(Some(interval)) = milliseconds(source.interval())
        && interval < SHORT_INTERVAL
    {
        all.push(format!(
            "metrics are sent every {} ms ({}): it is in milliseconds",
            interval.as_millis(),
            source.interval().map_or_else(String::new, |(setting, _)| setting)
        ));
    }
    all
}

/// Metrics change once a reading, a second: whoever sends them more often meant seconds.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// OpenTelemetry's variable that says which exporter a kind of data goes to.
fn exporter(lane: Lane) -> &'static str {
    match lane {
        Lane::Metrics => "OTEL_METRICS_EXPORTER",
        Lane::Events => "OTEL_LOGS_EXPORTER",
        Lane::Traces => "OTEL_TRACES_EXPORTER",
    }
}

/// A variable of one kind of data, which goes before that of all.
fn variables(lane: Lane, name: &str) -> [String; 2] {
    let signal = match lane {
        Lane::Metrics => "METRICS",
        Lane::Events => "LOGS",
        Lane::Traces => "TRACES",
    };
    [format!("OTEL_EXPORTER_OTLP_{signal}_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
}

/// Whether it is gzip; `None` for what is neither that nor none.
fn compression(how: &str) -> Option<bool> {
    match how.trim().to_ascii_lowercase().as_str() {
        "gzip" => Some(true),
        "none" => Some(false),
        _ => None,
    }
}

/// Flags and variables.
struct Source<'a> {
    args: &'a OtlpArgs,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// All of OpenTelemetry is switched off.
    fn disabled(&self) -> bool {
        let value = self.found(None, "", "OTEL_SDK_DISABLED");
        value.is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case("true"))
    }

    fn interval(&self) -> Found {
        self.found(self.args.otlp_interval.as_ref(), "--otlp-interval", "OTEL_METRIC_EXPORT_INTERVAL")
    }

    /// Where a kind of data is sent, if anywhere: a flag for it alone goes before a variable that says it is not.
    fn endpoint(&self, lane: Lane) -> Found {
        let a = self.args;
        let (flag, own) = match lane {
            Lane::Metrics => ("--otlp-metrics-endpoint", a.otlp_metrics_endpoint.as_ref()),
            Lane::Events => ("--otlp-logs-endpoint", a.otlp_logs_endpoint.as_ref()),
            Lane::Traces => ("--otlp-traces-endpoint", a.otlp_traces_endpoint.as_ref()),
        };
        if let Some(url) = own {
            return Some((flag.into(), url.clone()));
        }
        // One that names others alone (`prometheus`, `console`) wants nothing of OTLP.
        let list = self.found(None, "", exporter(lane));
        if list.is_some_and(|(_, list)| !list.split(',').any(|one| one.trim().eq_ignore_ascii_case("otlp"))) {
            return None;
        }
        self.standard(lane, a.otlp_endpoint.as_ref(), "--otlp-endpoint", "ENDPOINT")
    }

    /// Why a proxy that is named for this receiver is not used.
    fn unused_proxy(&self, lane: Lane) -> Option<String> {
        let endpoint = self.signal(lane).ok()??.endpoint;
        if endpoint.scheme_str() != Some("https") {
            return None;
        }
        match proxy::of(&endpoint, self.env) {
            Err(_) => Some("is no URL".to_owned()),
            Ok(Some(url)) if url.scheme_str() != Some("http") => Some(format!(
                "names a proxy of the kind {}, http:// alone is known here",
                url.scheme_str().unwrap_or_default()
            )),
            Ok(_) => None,
        }
    }

    fn signal(&self, lane: Lane) -> Result<Option<Signal>, ConfigError> {
        let a = self.args;
        let Some((setting, endpoint)) = self.endpoint(lane) else { return Ok(None) };
        self.grpc(lane)?;
        let insecure = match self.standard(lane, None, "", "INSECURE") {
            _ if a.otlp_insecure => true,
            Some((setting, value)) => boolean(&setting, &value)?,
            None => false,
        };
        let endpoint = uri(&setting, &endpoint, insecure)?;
        let tls = endpoint.scheme_str() == Some("https");
        let proxy = if tls { proxy::of(&endpoint, self.env).ok().flatten() } else { None };
        Ok(Some(Signal {
            proxy: proxy.filter(|url| url.scheme_str() == Some("http")).map(Proxy),
            tls: tls.then(|| self.tls(lane)).transpose()?,
            endpoint,
            headers: self.headers(lane)?,
            timeout: milliseconds(self.standard(lane, a.otlp_timeout.as_ref(), "--otlp-timeout", "TIMEOUT"))?
                .unwrap_or(Duration::from_secs(10)),
            gzip: self.gzip(lane)?,
        }))
    }

    /// Refuses a protocol other than gRPC.
    fn grpc(&self, lane: Lane) -> Result<(), ConfigError> {
        match self.standard(lane, None, "", "PROTOCOL") {
            Some((setting, protocol)) if !protocol.eq_ignore_ascii_case("grpc") => Err(refuse(
                &setting,
                format!(
                    "{protocol:?} is not supported: set it to grpc, and the endpoint to a gRPC port (4317)"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn gzip(&self, lane: Lane) -> Result<bool, ConfigError> {
        if let Some(how) = &self.args.otlp_compression {
            let unknown = || refuse("--otlp-compression", format!("{how:?} is not known: gzip or none"));
            return compression(how).ok_or_else(unknown);
        }
        let set = variables(lane, "COMPRESSION").into_iter().filter_map(|name| self.found(None, "", &name));
        // One that is not known is passed over and remarked upon: it may be meant for programs that know it.
        Ok(set.filter_map(|(_, how)| compression(&how)).next().unwrap_or(true))
    }

    fn tls(&self, lane: Lane) -> Result<TlsFiles, ConfigError> {
        let a = self.args;
        let path = |flag: Option<&String>, name, variable| self.standard(lane, flag, name, variable);
        let ca = path(a.otlp_certificate.as_ref(), "--otlp-certificate", "CERTIFICATE");
        let certificate =
            path(a.otlp_client_certificate.as_ref(), "--otlp-client-certificate", "CLIENT_CERTIFICATE");
        let key = path(a.otlp_client_key.as_ref(), "--otlp-client-key", "CLIENT_KEY");
        let identity = match (certificate, key) {
            (Some((_, certificate)), Some((_, key))) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some((setting, _)), None) => {
                return Err(refuse(&setting, "needs the client's key too (--otlp-client-key)"));
            }
            (None, Some((setting, _))) => {
                return Err(refuse(
                    &setting,
                    "needs the client's certificate too (--otlp-client-certificate)",
                ));
            }
        };
        Ok(TlsFiles { ca: ca.map(|(_, path)| path.into()), identity })
    }

    fn headers(&self, lane: Lane) -> Result<Headers, ConfigError> {
        let flag = (!self.args.otlp_header.is_empty()).then(|| self.args.otlp_header.join(","));
        match self.standard(lane, flag.as_ref(), "--otlp-header", "HEADERS") {
            Some((setting, list)) => headers(&setting, &list),
            None => Ok(Headers::default()),
        }
    }

    /// The flag, else `OTEL_EXPORTER_OTLP_<SIGNAL>_<NAME>`, else `OTEL_EXPORTER_OTLP_<NAME>`.
    fn standard(&self, lane: Lane, flag: Option<&String>, name: &str, variable: &str) -> Found {
        let [own, all] = variables(lane, variable);
        self.found(flag, name, &own).or_else(|| self.found(None, "", &all))
    }

    /// The flag, else the variable; an empty variable is not set (OpenTelemetry's rule).
    fn found(&self, flag: Option<&String>, name: &str, variable: &str) -> Found {
        match flag {
            Some(value) => Some((name.into(), value.clone())),
            None => {
                let value = (self.env)(variable).map(|value| value.trim().to_owned());
                value.filter(|value| !value.is_empty()).map(|value| (variable.into(), value))
            }
        }
    }
}

fn refuse(setting: &str, message: impl Display) -> ConfigError {
    ConfigError { setting: setting.into(), message: message.to_string() }
}

/// An endpoint: `http://…`, `https://…`, or `host:port`, which is with TLS unless said to be insecure.
fn uri(setting: &str, endpoint: &str, insecure: bool) -> Result<Uri, ConfigError> {
    let endpoint = endpoint.trim();
    let full = match endpoint.contains("://") {
        true => endpoint.to_owned(),
        false => format!("{}://{endpoint}", if insecure { "http" } else { "https" }),
    };
    let wrong = || {
        refuse(setting, format!("{endpoint:?} is no endpoint: write http://HOST:4317 or https://HOST:4317"))
    };
    let uri = Uri::from_str(&full).map_err(|_| wrong())?;
    // A port that is none would be taken for the scheme's own, 80 or 443.
    if uri.port_u16().is_none() && uri.authority().is_some_and(|a| has_port(a.as_str())) {
        return Err(wrong());
    }
    if full.contains('@') {
        return Err(refuse(
            setting,
            "a user or password does not belong into the endpoint: use headers or a token file",
        ));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(refuse(
            setting,
            format!(
                "{endpoint:?}: gRPC knows no path (that is HTTP's): write the host and its gRPC port (4317) alone"
            ),
        ));
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(uri),
        _ => Err(wrong()),
    }
}

/// `host:…` and `[v6]:…`.
fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}

fn milliseconds(found: Found) -> Result<Option<Duration>, ConfigError> {
    found
        .map(|(setting, value)| match value.trim().parse::<u64>() {
            Ok(ms @ 1..) => Ok(Duration::from_millis(ms)),
            _ => Err(refuse(&setting, format!("{value:?} is no number of milliseconds above 0"))),
        })
        .transpose()
}

fn boolean(setting: &str, value: &str) -> Result<bool, ConfigError> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(refuse(setting, format!("{value:?} is neither true nor false"))),
    }
}

/// `key=value,key=value`, values percent-encoded.
fn headers(setting: &str, list: &str) -> Result<Headers, ConfigError> {
    let mut headers = MetadataMap::new();
    for pair in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        // The value is not repeated in the message: it may be a secret.
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            refuse(setting, "a header without =: write key=value,key=value, values percent-encoded")
        })?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let name = AsciiMetadataKey::from_str(&key)
            .map_err(|_| refuse(setting, format!("{key:?} is no header name gRPC takes")))?;
        let value = percent_encoding::percent_decode_str(value)
            .decode_utf8()
            .ok()
            .and_then(|v| AsciiMetadataValue::from_str(&v).ok())
            .ok_or_else(|| refuse(setting, format!("the value of {key} is not printable ASCII")))?;
        headers.append(name, value);
    }
    Ok(Headers(headers))
}

#[cfg(test)]
mod tests;
