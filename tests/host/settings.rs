//! Settings as users, charts and Kubernetes itself give them: what is empty, what is not meant for us, what kubectl takes.

use std::io::{Read, Write};
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
    with_proxy_url(server, user, "")
}

fn with_proxy_url(server: &str, user: &str, proxy: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, users: [{{name: u, user: {user}}}], \
         clusters: [{{name: k, cluster: {{server: '{server}', proxy-url: '{proxy}'}}}}], \
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

/// A proxy that refuses; what it was asked at first.
fn proxy() -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = proxy.local_addr().expect("bound").to_string();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().expect("a connection");
        let mut first = vec![0; 4096];
        let n = stream.read(&mut first).expect("a question");
        first.truncate(n);
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").expect("answered");
        first
    });
    (address, asked)
}

#[test]
fn the_api_server_is_reached_through_the_proxy_and_without_it_where_excepted() {
    // RFC 6761: this name never resolves. Port 9, discard: nobody listens there.
    let server = kubeconfig("https://kube.invalid:6443", "{}");
    let except = |variables: &[(&str, &str)], file: &tempfile::NamedTempFile| {
        checked(program(&CHECK).env("KUBECONFIG", file.path()).envs(variables.iter().copied()))
    };
    let (address, asked) = proxy();
    let error = except(&[("HTTPS_PROXY", &address), ("NO_PROXY", "localhost,127.0.0.1,")], &server);
    assert!(!error.is_empty() && !error.contains("feature"), "{error}");
    let asked = asked.join().expect("asked");
    assert!(asked.starts_with(b"CONNECT kube.invalid:6443 "), "{}", String::from_utf8_lossy(&asked));
    // What is excepted does not ask there.
    let gone = ("HTTPS_PROXY", "http://127.0.0.1:9");
    for list in ["*", "kube.invalid", "a.example,*.invalid,", "kube.invalid:6443"] {
        let error = except(&[gone, ("NO_PROXY", list)], &server);
        assert!(error.contains("dns error") || error.contains("no answer"), "{list}: {error}");
    }
    // Nor does this machine itself, as kubectl has it (kubectl#743): kind's, minikube's, a tunnel's API server.
    let here = kubeconfig("https://127.0.0.1:9", "{}");
    let error = except(&[gone], &here);
    assert!(!error.contains("tunnel") && error.contains("refused"), "{error}");
}

/// kubectl#1653: `ssh -D` and HTTPS_PROXY, or a proxy-url, which NO_PROXY has no say in.
#[test]
fn the_api_server_is_reached_through_socks_and_the_kubeconfigs_own_proxy() {
    let server = kubeconfig("https://kube.invalid:6443", "{}");
    let (address, asked) = proxy();
    let url = format!("socks5://{address}");
    let error = checked(program(&CHECK).env("KUBECONFIG", server.path()).env("HTTPS_PROXY", url));
    assert!(!error.contains("feature"), "{error}");
    assert_eq!(asked.join().expect("asked").first(), Some(&5), "SOCKS's version");
    let (address, asked) = proxy();
    let own = with_proxy_url("https://127.0.0.1:9", "{}", &format!("http://{address}"));
    let error = checked(program(&CHECK).env("KUBECONFIG", own.path()).env("NO_PROXY", "127.0.0.1,localhost"));
    let asked = asked.join().expect("asked");
    assert!(asked.starts_with(b"CONNECT 127.0.0.1:9 "), "{error}");
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

/// An API server that says which version it is; what proved who asked.
fn api_server() -> (String, std::thread::JoinHandle<Option<String>>) {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("bound").to_string();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a connection");
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a question");
            question.push(byte[0]);
        }
        let version = serde_json::json!({
            "major": "1", "minor": "34", "gitVersion": "v1.34.1", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        });
        let version = version.to_string();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{version}",
            version.len()
        )
        .expect("answered");
        let question = String::from_utf8(question).expect("text");
        question.lines().find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned))
    });
    (format!("http://{address}"), asked)
}

/// kubernetes#52919: what an editor writes ends with an end of line, and kubectl takes it away.
#[test]
fn a_token_file_may_end_with_an_end_of_line() {
    let (server, asked) = api_server();
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "secret\n").expect("written");
    let file = kubeconfig(&server, &format!("{{tokenFile: '{}'}}", token.path().display()));
    let error = checked(program(&CHECK).env("KUBECONFIG", file.path()));
    assert_eq!(error, "");
    assert_eq!(asked.join().expect("asked").as_deref(), Some("Bearer secret"));
}

/// beats#2354: a configuration that Windows' editor wrote begins with a byte order mark.
#[test]
fn a_configuration_may_come_from_another_system() {
    let text = "agent:\n  interval: 2s\n";
    for text in
        [format!("\u{feff}{text}"), text.replace('\n', "\r\n"), String::new(), "# nothing\n".to_owned()]
    {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("written");
        // The address comes after the configuration, and is refused.
        let path = file.path().to_str().expect("text");
        let said =
            stderr(&program(&["agent", "--config", path, "--prometheus", "nowhere"]).output().expect("run"));
        assert!(said.contains("--prometheus \"nowhere\": no address"), "{text:?}: {said}");
    }
}
