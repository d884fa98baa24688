//! Settings as users, charts and Kubernetes itself give them: what is empty, what is not meant for us, what kubectl takes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use kernel_gossip::kernel::facts::Facts;

use crate::bed::kernel_gossip;

/// The program without this shell's settings, in no cluster.
fn program(arguments: &[&str]) -> Command {
    let mut command = kernel_gossip();
    command.args(arguments).env("HOME", "/nonexistent");
    let cluster = ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"];
    for name in cluster.into_iter().chain(proxies) {
        command.env_remove(name);
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// With all of these the reconciler comes as far as looking for its cluster.
#[test]
fn empty_variables_and_service_links_are_no_settings() {
    let all = [
        ("OTLP_PORT", "tcp://10.96.0.7:4317"),
        ("WEBHOOK_PORT", "udp://10.96.0.8:53"),
        ("METRICS_PORT", ""),
        ("REMEDIATION", ""),
        ("STALE_AFTER", " "),
        ("UNSAID_AFTER", ""),
        ("POD_IP", ""),
        ("LISTEN_ADDRESS", ""),
        ("ALLOW_ANONYMOUS_WEBHOOK", ""),
        ("TLS_CERT_FILE", ""),
        ("LEADER_ELECTION", ""),
        ("MAX_PODS", ""),
    ];
    let reconciler = |set: &[(&str, &str)]| {
        stderr(&program(&["reconciler"]).envs(set.iter().copied()).output().expect("run"))
    };
    let said = reconciler(&all);
    assert!(said.contains("no way to a Kubernetes API server"), "{said}");
    for yes_or_no in ["1", "0", "true", "false", "yes", "no", "on", "off"] {
        let said = reconciler(&[("ALLOW_ANONYMOUS_WEBHOOK", yes_or_no), ("LEADER_ELECTION", yes_or_no)]);
        assert!(said.contains("no way to a Kubernetes API server"), "{yes_or_no}: {said}");
    }
    // The name it had is still read, and an old value does not hide behind a new, empty name.
    let said = reconciler(&[("UNSAID_AFTER", "soon"), ("STALE_AFTER", "")]);
    assert!(said.contains("invalid value") && said.contains("soon"), "{said}");
    let said = reconciler(&[("UNSAID_AFTER", "soon"), ("STALE_AFTER", "3m")]);
    assert!(said.contains("no way to a Kubernetes API server"), "{said}");
    // What is set and no good is refused as before.
    for (name, bad) in
        [("OTLP_PORT", "http"), ("ALLOW_ANONYMOUS_WEBHOOK", "perhaps"), ("REMEDIATION", "maybe")]
    {
        let said = reconciler(&[(name, bad)]);
        assert!(said.contains("invalid value") && said.contains(bad), "{said}");
    }
}

fn kubeconfig(server: &str, user: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, users: [{{name: u, user: {user}}}], \
         clusters: [{{name: k, cluster: {{server: '{server}'}}}}], \
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]}}"
    );
    std::fs::write(file.path(), text).expect("written");
    file
}

/// What `check` says of the API server.
fn checked(command: &mut Command) -> String {
    let output = command.output().expect("run");
    let mut report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let facts: Facts = serde_json::from_value(report["facts"].take()).expect("facts");
    facts.kubernetes.error.unwrap_or_default()
}

const CHECK: [&str; 3] = ["check", "--output", "json"];

/// kubectl passes over a file of the list that is not there.
#[test]
fn a_list_of_kubeconfigs_is_read_as_kubectl_reads_it() {
    let good = kubeconfig("http://127.0.0.1:9", "{}");
    let good = good.path().display();
    for list in [format!("/none:{good}"), format!("{good}:/none"), format!("::{good}")] {
        let error = checked(program(&CHECK).env("KUBECONFIG", &list));
        assert!(error.contains("refused") || error.contains("no answer"), "{list}: {error}");
    }
    let error = checked(program(&CHECK).env("KUBECONFIG", "/none"));
    assert!(error.starts_with("$KUBECONFIG: ") && error.contains("no such file"), "{error}");
}

#[test]
fn the_api_server_is_reached_through_the_proxy_and_without_it_where_excepted() {
    let server = kubeconfig("https://127.0.0.1:9", "{}");
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", proxy.local_addr().expect("bound"));
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().expect("a connection");
        let mut line = String::new();
        BufReader::new(stream.try_clone().expect("a stream")).read_line(&mut line).expect("a line");
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").expect("answered");
        line
    });
    let mut through = program(&CHECK);
    through.env("KUBECONFIG", server.path()).env("HTTPS_PROXY", &address);
    let error = checked(&mut through);
    assert!(!error.is_empty() && !error.contains("feature"), "{error}");
    assert!(asked.join().expect("asked").starts_with("CONNECT 127.0.0.1:9 "));
    // Nobody is at the proxy any more: what is excepted does not ask there.
    for except in ["*", "127.0.0.1", "127.0.0.0/8,example.com"] {
        let mut direct = program(&CHECK);
        direct
            .env("KUBECONFIG", server.path())
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", except);
        let error = checked(&mut direct);
        assert!(error.contains("refused") || error.contains("no answer"), "{except}: {error}");
    }
}

#[test]
fn a_plugin_that_is_not_installed_is_named_with_where_to_get_it() {
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: kg-no-such-plugin, \
                interactiveMode: Never, installHint: 'get it at example.com'}}";
    let file = kubeconfig("http://127.0.0.1:9", user);
    let error = checked(program(&CHECK).env("KUBECONFIG", file.path()));
    for part in ["kg-no-such-plugin", "get it at example.com"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
}
