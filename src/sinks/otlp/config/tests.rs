use std::collections::HashMap;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// Flags and variables, each as `NAME=value` (a flag begins with a dash).
fn config(settings: &[&str]) -> Result<Option<OtlpConfig>, ConfigError> {
    let (flags, variables): (Vec<&str>, Vec<&str>) = settings.iter().partition(|s| s.starts_with('-'));
    let flags = Flags::try_parse_from(std::iter::once("x").chain(flags)).expect("flags");
    let variables: HashMap<_, _> = variables.iter().map(|v| v.split_once('=').expect("NAME=value")).collect();
    OtlpConfig::new(&flags.otlp, |name| variables.get(name).map(|v| (*v).to_owned()))
}

fn some(settings: &[&str]) -> OtlpConfig {
    config(settings).expect("a good configuration").expect("an endpoint")
}

fn refused(settings: &[&str]) -> String {
    config(settings).expect_err("a bad configuration").to_string()
}

fn both(config: &OtlpConfig) -> [&Signal; 2] {
    [config.metrics.as_ref().expect("metrics"), config.events.as_ref().expect("events")]
}

#[test]
fn without_an_endpoint_nothing_is_exported() {
    assert!(config(&[]).expect("good").is_none());
    assert!(
        config(&["OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"])
            .expect("good")
            .is_none()
    );
}

#[test]
fn one_endpoint_takes_both_with_the_defaults() {
    let config = some(&["OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317"]);
    for signal in both(&config) {
        assert_eq!(signal.endpoint, "http://collector:4317/");
        assert_eq!((signal.timeout, signal.gzip), (Duration::from_secs(10), true));
        assert!(signal.tls.is_none() && signal.headers.0.is_empty());
    }
    assert_eq!((config.interval, config.queue_bytes), (Duration::from_secs(60), 8 << 20));
}

#[test]
fn a_signals_own_variable_wins_and_a_flag_over_both() {
    let variables = [
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://all:1",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://logs:1",
        "OTEL_EXPORTER_OTLP_TIMEOUT=2000",
        "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT=3000",
        "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION=none",
    ];
    let config = some(&variables);
    let [metrics, events] = both(&config);
    assert_eq!(
        (metrics.endpoint.to_string(), metrics.timeout.as_secs(), metrics.gzip),
        ("http://all:1/".into(), 2, false)
    );
    assert_eq!(
        (events.endpoint.to_string(), events.timeout.as_secs(), events.gzip),
        ("http://logs:1/".into(), 3, true)
    );

    let flags = [&variables[..], &["--otlp-endpoint=http://flag:1", "--otlp-timeout=4000"]].concat();
    let config = some(&flags);
    for signal in both(&config) {
        assert_eq!((signal.endpoint.to_string(), signal.timeout.as_secs()), ("http://flag:1/".into(), 4));
    }
    let flags = [&flags[..], &["--otlp-logs-endpoint=http://own:1"]].concat();
    let config = some(&flags);
    let [metrics, events] = both(&config).map(|s| s.endpoint.to_string());
    assert_eq!((&*metrics, &*events), ("http://flag:1/", "http://own:1/"));
}

#[test]
fn one_kind_of_data_can_be_sent_alone() {
    let config = some(&["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://reconciler:4317"]);
    assert!(config.metrics.is_none() && config.events.is_some());
}

#[test]
fn tls_is_the_schemes_or_without_one_the_default() {
    for (settings, tls) in [
        (&["OTEL_EXPORTER_OTLP_ENDPOINT=https://c:1"][..], true),
        (&["OTEL_EXPORTER_OTLP_ENDPOINT=https://c:1", "OTEL_EXPORTER_OTLP_INSECURE=true"], true),
        (&["OTEL_EXPORTER_OTLP_ENDPOINT=c:1"], true),
        (&["OTEL_EXPORTER_OTLP_ENDPOINT=c:1", "OTEL_EXPORTER_OTLP_INSECURE=True"], false),
        (&["OTEL_EXPORTER_OTLP_ENDPOINT=[::1]:4317", "--otlp-insecure"], false),
    ] {
        let config = some(settings);
        assert_eq!(config.metrics.as_ref().is_some_and(|s| s.tls.is_some()), tls, "{settings:?}");
    }
    let files = some(&[
        "OTEL_EXPORTER_OTLP_ENDPOINT=https://c:1",
        "OTEL_EXPORTER_OTLP_CERTIFICATE=/ca",
        "--otlp-client-certificate=/cert",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY=/key",
    ]);
    let expected = TlsFiles { ca: Some("/ca".into()), identity: Some(("/cert".into(), "/key".into())) };
    assert_eq!(both(&files)[0].tls, Some(expected));
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let config = some(&[
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1",
        "OTEL_EXPORTER_OTLP_HEADERS=Api-Key=se%20cret%2C1, x-tenant = a=b ",
    ]);
    let headers = &both(&config)[0].headers;
    assert_eq!(headers.0.get("api-key").expect("a header"), "se cret,1");
    assert_eq!(headers.0.get("x-tenant").expect("a header"), "a=b");
    assert!(!format!("{config:?}").contains("cret"), "{config:?}");
    let flag = some(&["--otlp-endpoint=http://c:1", "--otlp-header=a=1", "--otlp-header=b=2"]);
    assert_eq!(both(&flag)[1].headers.0.len(), 2);
}

#[test]
fn what_the_standard_variables_switch_off_is_not_sent() {
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1";
    assert!(config(&[endpoint, "OTEL_SDK_DISABLED=True"]).expect("good").is_none());
    assert!(config(&[endpoint, "OTEL_SDK_DISABLED=false"]).expect("good").is_some());
    let only_events = some(&[endpoint, "OTEL_METRICS_EXPORTER=none", "OTEL_TRACES_EXPORTER= None "]);
    assert!(only_events.metrics.is_none() && only_events.traces.is_none() && only_events.events.is_some());
    for list in ["otlp", "OTLP", "prometheus,otlp", " otlp , console"] {
        let otlp = some(&[endpoint, &format!("OTEL_METRICS_EXPORTER={list}")]);
        assert!(otlp.metrics.is_some(), "{list}");
    }
    for list in ["prometheus", "console", "prometheus,console", "otlp-stdout"] {
        let others = some(&[endpoint, &format!("OTEL_METRICS_EXPORTER={list}")]);
        assert!(others.metrics.is_none() && others.events.is_some(), "{list}");
    }
    let spaced =
        some(&[endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL= grpc ", "OTEL_EXPORTER_OTLP_COMPRESSION=none "]);
    assert!(spaced.metrics.is_some_and(|metrics| !metrics.gzip));
    // opentelemetry-rust#3730, opentelemetry-specification#4576.
    let upper =
        some(&[endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=gRPC", "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION=NONE"]);
    assert_eq!((upper.metrics.map(|m| m.gzip), upper.events.map(|e| e.gzip)), (Some(false), Some(true)));
    // For others: what is known of it is taken, and the rest told.
    let [all, own] = ["OTEL_EXPORTER_OTLP_COMPRESSION=none", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION=zstd"];
    assert!(some(&[endpoint, all, own]).events.is_some_and(|events| !events.gzip));
    assert_eq!(
        told(&[endpoint, all, own]),
        "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION is \"zstd\", and is not used: gzip and none alone are known here"
    );
    // A flag for the one kind says it after all.
    let flag = some(&["OTEL_METRICS_EXPORTER=none", "--otlp-metrics-endpoint=http://m:1"]);
    assert!(flag.metrics.is_some() && flag.events.is_none());
}

/// Flags and variables, as [`config`] takes them.
fn told(settings: &[&str]) -> String {
    let (flags, variables): (Vec<&str>, Vec<&str>) = settings.iter().partition(|s| s.starts_with('-'));
    let flags = Flags::try_parse_from(std::iter::once("x").chain(flags)).expect("flags");
    let variables: HashMap<_, _> = variables.iter().map(|v| v.split_once('=').expect("NAME=value")).collect();
    remarks(&flags.otlp, |name| variables.get(name).map(|v| (*v).to_owned())).join("\n")
}

#[test]
fn what_is_set_and_not_done_is_told() {
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1";
    let tls = "OTEL_EXPORTER_OTLP_ENDPOINT=https://c:1";
    for (settings, expected) in [
        (&[endpoint, "OTEL_SDK_DISABLED=true"][..], "OTEL_SDK_DISABLED is true: nothing is sent"),
        (&["OTEL_TRACES_EXPORTER=none"], "OTEL_TRACES_EXPORTER is none: traces are not sent"),
        (
            &["OTEL_LOGS_EXPORTER=otlp,console"],
            "otlp and none alone are known here, events are sent over OTLP alone",
        ),
        (&[endpoint, "OTEL_METRICS_EXPORTER=prometheus"], "known here, metrics are not sent over OTLP"),
        (&[endpoint, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta"], "cumulative all the same"),
        (
            &[endpoint, "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=explicit_bucket_histogram"],
            "is not used",
        ),
        (&[tls, "HTTPS_PROXY=socks5://p:1080"], "HTTPS_PROXY names a proxy of the kind socks5"),
        (&[tls, "HTTPS_PROXY=http://a b/"], "HTTPS_PROXY is no URL"),
        (&[endpoint, "OTEL_METRIC_EXPORT_INTERVAL=60"], "every 60 ms (OTEL_METRIC_EXPORT_INTERVAL)"),
        (&[endpoint, "--otlp-interval=15"], "every 15 ms (--otlp-interval)"),
    ] {
        let told = told(settings);
        assert!(told.contains(expected) && told.lines().count() == 1, "{settings:?}: {told}");
    }
    let silent = [
        endpoint,
        "OTEL_METRICS_EXPORTER=otlp",
        "OTEL_SDK_DISABLED=",
        "OTEL_METRIC_EXPORT_INTERVAL=60000",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=Cumulative",
        // A receiver without TLS is connected to directly.
        "HTTPS_PROXY=socks5://p:1080",
    ];
    assert_eq!(told(&silent), "");
    assert_eq!(told(&["HTTPS_PROXY=http://p:3128"]), "", "nothing is sent anywhere");
}

#[test]
fn what_cannot_be_used_is_refused_by_its_name() {
    let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:1";
    for (settings, expected) in [
        (
            &[endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"][..],
            "OTEL_EXPORTER_OTLP_PROTOCOL: \"http/protobuf\" is not supported: set it to grpc",
        ),
        (
            &["OTEL_EXPORTER_OTLP_ENDPOINT=unix:///run/x"],
            "OTEL_EXPORTER_OTLP_ENDPOINT: \"unix:///run/x\" is no endpoint",
        ),
        (&["--otlp-endpoint=http://"], "--otlp-endpoint: \"http://\" is no endpoint"),
        (&["--otlp-endpoint=a b"], "--otlp-endpoint: \"a b\" is no endpoint"),
        (&["--otlp-endpoint=http://c:99999"], "--otlp-endpoint: \"http://c:99999\" is no endpoint"),
        (&["--otlp-endpoint=http://[::1]:"], "--otlp-endpoint: \"http://[::1]:\" is no endpoint"),
        (&["--otlp-endpoint=http://me:secret@c:1"], "--otlp-endpoint: a user or password does not belong"),
        (
            &[endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT=10s"],
            "OTEL_EXPORTER_OTLP_TIMEOUT: \"10s\" is no number of milliseconds",
        ),
        (&[endpoint, "OTEL_METRIC_EXPORT_INTERVAL=0"], "OTEL_METRIC_EXPORT_INTERVAL: \"0\" is no number"),
        (&[endpoint, "--otlp-compression=zstd"], "--otlp-compression: \"zstd\" is not known: gzip or none"),
        (
            &[endpoint, "OTEL_EXPORTER_OTLP_INSECURE=1"],
            "OTEL_EXPORTER_OTLP_INSECURE: \"1\" is neither true nor false",
        ),
        (&[endpoint, "OTEL_EXPORTER_OTLP_HEADERS=secret"], "OTEL_EXPORTER_OTLP_HEADERS: a header without ="),
        (&[endpoint, "--otlp-header=sec ret=x"], "--otlp-header: \"sec ret\" is no header name"),
        (&[endpoint, "--otlp-header=k=secret%0A"], "--otlp-header: the value of k is not printable"),
        (
            &["--otlp-endpoint=https://c:1", "--otlp-client-key=/key"],
            "--otlp-client-key: needs the client's certificate too",
        ),
        (
            &["--otlp-endpoint=http://c:4317/v1/metrics"],
            "--otlp-endpoint: \"http://c:4317/v1/metrics\": gRPC knows no path",
        ),
        (
            &["OTEL_EXPORTER_OTLP_ENDPOINT=https://c/p/x?y"],
            "OTEL_EXPORTER_OTLP_ENDPOINT: \"https://c/p/x?y\": gRPC knows",
        ),
        (&[endpoint, "--otlp-queue=1000"], "--otlp-queue: at least 1048576"),
    ] {
        let message = refused(settings);
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.contains("secret") && !message.contains('\n'), "{message}");
    }
}
