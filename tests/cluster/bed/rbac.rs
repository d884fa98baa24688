//! Which verbs a program really uses, and which its role grants: a proxy to the API server that speaks as
//! the program's service account, so that RBAC judges each request, and remembers what was asked. It can hold a
//! request back, so that something happens in the middle of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kube::{Client, Config};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::bed;

/// One thing RBAC rules over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub group: String,
    /// With its subresource: `pods/resize`; a path for what is no resource.
    pub resource: String,
    pub verb: String,
}

impl Use {
    pub fn new(group: &str, resource: &str, verb: &str) -> Use {
        Use { group: group.into(), resource: resource.into(), verb: verb.into() }
    }
}

/// The proxy; dropping it ends it.
pub struct Proxy {
    pub url: String,
    state: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: Client,
    used: Mutex<BTreeSet<Use>>,
    denied: Mutex<BTreeSet<Use>>,
    /// A subresource that the server is to lack, and what is asked for in its place.
    absent: Mutex<Option<(&'static str, &'static str)>>,
    held: Mutex<Option<Hold>>,
    /// What the server answered, in the order of its answers.
    answers: Mutex<Vec<(Use, StatusCode)>>,
}

/// Where a request is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server has not seen it.
    Request,
    /// The server has done it, and who asked does not know.
    Answer,
}

/// The next request of one kind is to be held back.
struct Hold {
    what: Use,
    side: Side,
    reached: mpsc::Sender<Held>,
}

/// A request that is held back; dropped, it is never let through.
pub struct Held(oneshot::Sender<()>);

impl Held {
    /// False: who asked did not wait so long.
    pub fn let_through(self) -> bool {
        self.0.send(()).is_ok()
    }
}

/// Gives the request that is held back once there is one.
pub struct Holding(mpsc::Receiver<Held>);

impl Holding {
    pub async fn reached(&mut self) -> Held {
        let held = tokio::time::timeout(bed::PATIENCE, self.0.recv()).await;
        held.expect("a request to hold back, in time").expect("the proxy serves")
    }
}

impl Shared {
    /// Holds the request back where that is wanted. False where it is not to be let through.
    async fn pass(&self, asked: Option<&Use>, side: Side) -> bool {
        let hold = self.held.lock().unwrap().take_if(|h| Some(&h.what) == asked && h.side == side);
        let Some(hold) = hold else { return true };
        let (let_through, wait) = oneshot::channel();
        hold.reached.send(Held(let_through)).await.is_ok() && wait.await.is_ok()
    }
}

impl Proxy {
    /// In front of the cluster that `$KUBECONFIG` names, for this service account.
    pub async fn start(namespace: &str, service_account: &str) -> Proxy {
        let mut config = Config::infer().await.expect("a kubeconfig");
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{service_account}"));
        // Watches end when the program ends them.
        config.read_timeout = None;
        let upstream = Client::try_from(config).expect("a client");
        let state = Arc::new(Shared {
            upstream,
            used: Mutex::default(),
            denied: Mutex::default(),
            absent: Mutex::default(),
            held: Mutex::default(),
            answers: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let router = Router::new().fallback(forward).with_state(state.clone());
        let task =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("the proxy serves") });
        Proxy { url, state, task }
    }

    /// A client that goes through it.
    pub fn client(&self) -> Client {
        Client::try_from(Config::new(self.url.parse().expect("a URL"))).expect("a client")
    }

    /// A kubeconfig for a program that is to go through it.
    pub fn kubeconfig(&self) -> tempfile::NamedTempFile {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "nobody", "user": {}}],
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        serde_json::to_writer(&file, &config).expect("written");
        file
    }

    /// From here on the server answers for `subresource` as it does for one it does not have.
    pub fn lacks(&self, subresource: &'static str, asked_instead: &'static str) {
        *self.state.absent.lock().unwrap() = Some((subresource, asked_instead));
    }

    /// Holds back the next request for `what`, and no other.
    pub fn holds(&self, what: Use, side: Side) -> Holding {
        let (reached, holding) = mpsc::channel(1);
        *self.state.held.lock().unwrap() = Some(Hold { what, side, reached });
        Holding(holding)
    }

    /// What the server answered to all requests for `what` so far.
    pub fn answers(&self, what: &Use) -> Vec<u16> {
        let answers = self.state.answers.lock().unwrap();
        answers.iter().filter(|(asked, _)| asked == what).map(|(_, status)| status.as_u16()).collect()
    }

    /// What was asked for and permitted, so far.
    pub fn used(&self) -> BTreeSet<Use> {
        self.state.used.lock().unwrap().clone()
    }

    /// What was asked for and refused.
    pub fn denied(&self) -> BTreeSet<Use> {
        self.state.denied.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(state): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = asked(&parts.method, &parts.uri);
    let Ok(bytes) = to_bytes(body, 16 << 20).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut path = parts.uri.path_and_query().expect("a path").to_string();
    let absent = *state.absent.lock().unwrap();
    if let Some((subresource, instead)) = absent.filter(|(sub, _)| parts.uri.path().ends_with(sub)) {
        path = path.replacen(subresource, instead, 1);
    }
    let mut upstream = axum::http::Request::builder().method(parts.method.clone()).uri(path);
    for name in ["accept", "content-type"] {
        if let Some(value) = parts.headers.get(name) {
            upstream = upstream.header(name, value);
        }
    }
    let upstream = upstream.body(kube::client::Body::from(bytes.to_vec())).expect("a request");
    if !state.pass(asked.as_ref(), Side::Request).await {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let response = match state.upstream.send(upstream).await {
        Ok(response) => response,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    if let Some(asked) = &asked {
        state.answers.lock().unwrap().push((asked.clone(), response.status()));
    }
    if !state.pass(asked.as_ref(), Side::Answer).await {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if let Some(asked) = asked {
        let status = response.status();
        if status == StatusCode::FORBIDDEN {
            state.denied.lock().unwrap().insert(asked);
        } else {
            // Applying what does not exist yet takes `create` as well.
            if parts.method == Method::PATCH && status == StatusCode::CREATED {
                state.used.lock().unwrap().insert(Use { verb: "create".into(), ..asked.clone() });
            }
            state.used.lock().unwrap().insert(asked);
        }
    }
    response.map(Body::new)
}

/// What RBAC rules over in a request; `None` for what every authenticated caller may ask.
fn asked(method: &Method, uri: &Uri) -> Option<Use> {
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _version, rest @ ..] if !rest.is_empty() => (*group, rest),
        ["api" | "apis" | "version" | "openapi" | "healthz" | "livez" | "readyz", ..] => return None,
        _ => return Some(Use::new("", uri.path(), &method.as_str().to_lowercase())),
    };
    let (resource, name, sub) = match rest {
        ["namespaces", _namespace, resource, rest @ ..] if !matches!(*resource, "status" | "finalize") => {
            (*resource, rest.first(), rest.get(1))
        }
        [resource, rest @ ..] => (*resource, rest.first(), rest.get(1)),
        [] => return None,
    };
    let watches = uri.query().is_some_and(|q| q.split('&').any(|p| p == "watch=true" || p == "watch=1"));
    let verb = match (method.as_str(), name) {
        ("GET", _) if watches => "watch",
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => return None,
    };
    let resource = sub.map_or(resource.to_string(), |sub| format!("{resource}/{sub}"));
    Some(Use::new(group, &resource, verb))
}

/// What one Role or ClusterRole grants.
pub fn grants(role: &Value) -> BTreeSet<Use> {
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().map(|v| v.as_str().expect("text").to_string()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for verb in texts(rule, "verbs") {
            for path in texts(rule, "nonResourceURLs") {
                all.insert(Use::new("", &path, &verb));
            }
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    all.insert(Use::new(&group, &resource, &verb));
                }
            }
        }
    }
    all
}

/// All that the roles bound to a service account grant, in these manifests.
pub fn granted_to(manifests: &[Value], service_account: &str) -> BTreeSet<Use> {
    let of =
        |kinds: [&'static str; 2]| manifests.iter().filter(move |m| kinds.iter().any(|k| m["kind"] == *k));
    let mut all = BTreeSet::new();
    for binding in of(["RoleBinding", "ClusterRoleBinding"]) {
        let subjects = binding["subjects"].as_array().expect("subjects");
        if subjects.iter().any(|s| s["kind"] == "ServiceAccount" && s["name"] == service_account) {
            let named = &binding["roleRef"];
            let role = of(["Role", "ClusterRole"])
                .find(|r| r["kind"] == named["kind"] && r["metadata"]["name"] == named["name"])
                .unwrap_or_else(|| panic!("no role {named}"));
            all.extend(grants(role));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_rbac_sees_them() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn", Some(("", "pods", "list"))),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", Some(("", "pods", "watch"))),
            ("GET", "/api/v1/namespaces/a/pods/p", Some(("", "pods", "get"))),
            ("PATCH", "/api/v1/namespaces/a/pods/p/resize?", Some(("", "pods/resize", "patch"))),
            ("GET", "/api/v1/namespaces/a", Some(("", "namespaces", "get"))),
            ("GET", "/api/v1/nodes/n", Some(("", "nodes", "get"))),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/a/events",
                Some(("events.k8s.io", "events", "create")),
            ),
            ("DELETE", "/apis/g/v1/namespaces/a/things/t", Some(("g", "things", "delete"))),
            ("PUT", "/apis/g/v1/things/t/status", Some(("g", "things/status", "update"))),
            ("POST", "/otlp/node", Some(("", "/otlp/node", "post"))),
            ("GET", "/version", None),
            ("GET", "/apis", None),
        ] {
            let asked = asked(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(asked, expected.map(|(g, r, v)| Use::new(g, r, v)), "{method} {uri}");
        }
    }
}
