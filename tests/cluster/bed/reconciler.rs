//! The reconciler as a process, and its callers.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kernel_gossip::api::{KernelWhisper, KernelWhisperStatus, PodBirthCertificateStatus};
use kernel_gossip::attribution::Workload;
use kernel_gossip::signals::{Transition, Whisper};
use kube::{Api, Client, ResourceExt};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Namespace, OWNER, eventually};
use crate::bed::process::{Running, output};
use crate::bed::{self, PATIENCE, free_address, kubectl, whisper};

impl Namespace {
    /// A pod that does nothing, on the node.
    pub async fn pod(&self, client: &Client, name: &str) -> Pod {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "testbed.local/pause:1",
                                "resources": {"limits": {"cpu": "200m"}, "requests": {"cpu": "10m"}}}],
            },
        }));
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.0);
        eventually("the pod on a node", async || {
            let pod = pods.get(name).await.unwrap();
            pod.spec.as_ref()?.node_name.is_some().then_some(pod)
        })
        .await
    }

    /// A service account that RBAC allows to post to these paths; a token of it for our audience.
    pub fn caller(&self, name: &str, paths: &[&str]) -> String {
        let (ns, role) = (&self.0, format!("{}-{name}", self.0));
        let meta = json!({"name": role, "labels": {OWNER: ns}});
        apply_in(
            Some(ns),
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
        );
        apply_in(
            None,
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta,
                "rules": [{"nonResourceURLs": paths, "verbs": ["post"]}],
            }),
        );
        apply_in(
            None,
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ns}],
            }),
        );
        for path in paths {
            bed::until_allowed(ns, name, &["post", path]);
        }
        self.token(name, &["--audience", "kernel-gossip"])
    }

    pub fn token(&self, account: &str, args: &[&str]) -> String {
        self.kubectl(&[&["create", "token", account], args].concat()).trim().to_owned()
    }
}

pub fn apply_in(namespace: Option<&str>, object: &Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, object).unwrap();
    let mut command = kubectl();
    command.args(namespace.iter().flat_map(|n| ["-n", n]));
    output(command.args(["apply", "-f", file.path().to_str().unwrap()]));
}

/// A reconciler of its own, on ports of its own.
pub struct Reconciler {
    pub process: Running,
    pub otlp: SocketAddr,
    pub webhook: SocketAddr,
    pub metrics: SocketAddr,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Reconciler {
    /// Starts it for this namespace and waits until it is ready. It elects nobody unless told.
    pub async fn ready(ns: &Namespace, arguments: &[&str]) -> Reconciler {
        let reconciler = Reconciler::start(ns, arguments, &[]);
        reconciler.until_ready().await;
        reconciler
    }

    pub fn start(ns: &Namespace, arguments: &[&str], environment: &[(&str, &str)]) -> Reconciler {
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        arguments.extend(["--only-namespace".to_owned(), ns.0.clone()]);
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Reconciler::on([free_address(), free_address(), free_address()], arguments, environment)
    }

    fn on(at: [SocketAddr; 3], arguments: Vec<String>, environment: Vec<(String, String)>) -> Reconciler {
        let [otlp, webhook, metrics] = at;
        let mut command = bed::kernel_gossip();
        command.args(["reconciler", "--listen", "127.0.0.1"]);
        command.args(
            [("--otlp-port", otlp), ("--webhook-port", webhook), ("--metrics-port", metrics)]
                .iter()
                .flat_map(|(flag, address)| [flag.to_string(), address.port().to_string()]),
        );
        if !arguments.iter().any(|a| a.starts_with("--leader-election")) {
            command.arg("--leader-election=false");
        }
        command.args(&arguments).envs(environment.iter().map(|(k, v)| (k, v))).env("NO_COLOR", "1");
        Reconciler { process: Running::start(&mut command), otlp, webhook, metrics, arguments, environment }
    }

    /// Kills it without a word and starts another in its place.
    pub fn killed_and_started(self) -> Reconciler {
        self.process.signal(libc::SIGKILL);
        let at = [self.otlp, self.webhook, self.metrics];
        let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
        self.process.end();
        Reconciler::on(at, arguments, environment)
    }

    pub async fn until_ready(&self) {
        eventually("readiness", async || (self.get("/ready").await?.0 == 200).then_some(())).await;
    }

    /// Status and body of a GET on the webhook's port; `None` without a connection.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        http(self.webhook, "GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, String) {
        let bearer = token.map(|t| format!("Bearer {t}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|b| ("authorization", b)));
        http(self.webhook, "POST", path, &headers, &body.to_string()).await.expect("the webhook listens")
    }

    /// One number of /metrics, summed over the lines that begin so.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let (_, text) = http(self.metrics, "GET", "/metrics", &[], "").await.expect("metrics");
        let lines = text.lines().filter(|l| l.starts_with(prefix));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// A connection of an agent.
    pub async fn agent(&self, token: &str) -> Agent {
        Agent::connect(format!("http://{}", self.otlp), token).await
    }

    /// What it has logged, at WARN and above.
    pub fn warnings(&self) -> Vec<String> {
        let lines = self.process.lines().into_iter().map(|l| l.text);
        lines.filter(|l| l.contains(" WARN ") || l.contains(" ERROR ")).collect()
    }
}

/// One HTTP/1.1 exchange.
async fn http(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, String)> {
    use hyper_util::rt::TokioIo;
    let stream = tokio::net::TcpStream::connect(at).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(path).header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer =
        sender.send_request(request.body(axum::body::Body::from(body.to_owned())).unwrap()).await.ok()?;
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 24).await.ok()?;
    Some((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// An agent's connection.
#[derive(Clone)]
pub struct Agent {
    client: LogsServiceClient<Channel>,
    token: String,
}

impl Agent {
    pub async fn connect(to: String, token: &str) -> Agent {
        let channel = Channel::from_shared(to).unwrap().connect_lazy();
        Agent::over(channel, token)
    }

    pub fn over(channel: Channel, token: &str) -> Agent {
        let client = LogsServiceClient::new(channel)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
        Agent { client, token: token.to_owned() }
    }

    pub async fn send(&mut self, whispers: &[Whisper]) -> Result<ExportLogsServiceResponse, Status> {
        self.export(whispers.iter().map(|w| whisper::event(w, "kg-node")).collect()).await
    }

    /// Says the pod's birth, as its agent does: once, unless it is told to come again.
    pub async fn certify(
        &mut self,
        pod: &Pod,
        birth: &PodBirthCertificateStatus,
    ) -> Result<ExportLogsServiceResponse, Status> {
        self.export(vec![whisper::birth(&main_of(pod), birth, Timestamp::now())]).await
    }

    async fn export(
        &mut self,
        resource_logs: Vec<ResourceLogs>,
    ) -> Result<ExportLogsServiceResponse, Status> {
        let mut request = Request::new(ExportLogsServiceRequest { resource_logs });
        if !self.token.is_empty() {
            let value: MetadataValue<_> = format!("Bearer {}", self.token).parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        self.client.export(request).await.map(tonic::Response::into_inner)
    }

    /// Sends until it is taken, as agents do; nothing may be refused.
    pub async fn say(&mut self, whispers: &[Whisper]) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.send(whispers).await {
                Ok(answer) => return assert_eq!(answer.partial_success, None),
                Err(status) => {
                    // Unavailable by the server's word; the others are a connection that broke.
                    let again = [tonic::Code::Unavailable, tonic::Code::Unknown, tonic::Code::Cancelled];
                    assert!(again.contains(&status.code()), "{status}");
                    assert!(Instant::now() < end, "not taken: {status}");
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Says it again and again, as of then, until there is an answer.
    pub async fn repeat<T, F: Future<Output = Option<T>>>(
        &mut self,
        whisper: &mut Whisper,
        what: &str,
        mut ask: impl FnMut() -> F,
    ) -> T {
        let end = Instant::now() + PATIENCE;
        whisper.transition = Transition::Repeated;
        loop {
            whisper.at.unix_ns = Timestamp::now().as_nanosecond() as u64;
            self.say(std::slice::from_ref(whisper)).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(Instant::now() < end, "no {what} within {PATIENCE:?}");
        }
    }
}

/// The container `main` of a pod, as its agent names it.
pub fn main_of(pod: &Pod) -> Arc<Workload> {
    whisper::container(&pod.namespace().unwrap(), &pod.name_any(), &pod.uid().unwrap(), "main")
}

/// The pod's container is throttled, as of now.
pub fn throttled(pod: &Pod) -> Whisper {
    whisper::throttled(&main_of(pod), Timestamp::now())
}

/// The pod's whisper once it is there and `wanted` accepts it.
pub async fn whisper_of(
    client: &Client,
    pod: &Pod,
    what: &str,
    wanted: impl Fn(&KernelWhisper) -> bool,
) -> KernelWhisper {
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
    let name = kernel_gossip::api::object_name(&pod.name_any(), "kw");
    eventually(what, async || {
        api.get_opt(&name).await.unwrap().filter(|kw| kw.status.is_some() && wanted(kw))
    })
    .await
}

pub fn status(kw: &KernelWhisper) -> &KernelWhisperStatus {
    kw.status.as_ref().unwrap()
}

/// Runs openssl.
pub fn openssl(dir: &Path, args: &[&str]) {
    output(Command::new("openssl").current_dir(dir).args(args));
}
