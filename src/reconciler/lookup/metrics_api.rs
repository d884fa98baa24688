//! Asks the Metrics API (`kubectl top`) what it says of a pod.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;

use super::ttl_cache::TtlCache;
use crate::reconciler::faults::{Fault, FaultLog};
use crate::reconciler::report::{Answer, PodMetrics, Silence};

/// How long a report waits for the metrics: the object must be visible within two seconds.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long nobody asks after the API failed as a whole.
const PAUSE: Duration = Duration::from_secs(10);
/// The pod's containers are often reported on together. metrics-server has news every 10 to 60 s.
const KEEP: Duration = Duration::from_secs(3);
const PODS_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Asks the Metrics API.
pub struct MetricsApi {
    client: Client,
    known: TtlCache<(String, String), Answer>,
    /// Not asked before, and why.
    paused: Mutex<Option<(Instant, Silence)>>,
    log: FaultLog,
}

impl MetricsApi {
    pub fn new(client: Client) -> MetricsApi {
        MetricsApi {
            client,
            known: TtlCache::new(PODS_MAX),
            paused: Mutex::default(),
            log: FaultLog::new("reading the Metrics API"),
        }
    }

    /// What it says of the pod now. Never waits longer than [`PATIENCE`].
    ///
    /// # Errors
    /// Why it says nothing of the pod: no Metrics API, the pod unknown to it, no right to ask, no answer in time.
    pub async fn get(&self, namespace: &str, pod: &str) -> Answer {
        let key = (namespace.to_owned(), pod.to_owned());
        if let Some(answer) = self.known.get(&key, |_| KEEP) {
            return answer;
        }
        if let Some((until, silence)) = *self.paused.lock().unwrap_or_else(PoisonError::into_inner)
            && Instant::now() < until
        {
            return Err(silence);
        }
        let answer = match tokio::time::timeout(PATIENCE, self.ask(namespace, pod)).await {
            Ok(answer) => answer,
            Err(_) => self.pause(Silence::TooSlow),
        };
        self.known.put(key, answer.clone());
        answer
    }

    async fn ask(&self, namespace: &str, pod: &str) -> Answer {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{pod}");
        let answer = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => self.client.request::<PodMetrics>(request).await,
            Err(e) => Err(kube::Error::HttpError(e)),
        };
        match answer {
            Ok(metrics) => {
                self.log.succeeded();
                if metrics.is_sane() { Ok(Arc::new(metrics)) } else { Err(Silence::NotUnderstood) }
            }
            // It says so of this pod: others are asked for as before.
            Err(kube::Error::SerdeError(error)) => {
                tracing::debug!(namespace, pod, %error, "no PodMetrics");
                Err(Silence::NotUnderstood)
            }
            Err(error) => match Fault::of(&error) {
                Fault::NotFound => Err(Silence::PodUnknown),
                fault @ (Fault::Forbidden | Fault::Unauthorized) => {
                    self.log.failed(
                        fault,
                        &error,
                        "grant get on pods in metrics.k8s.io; whispers say so meanwhile",
                    );
                    self.pause(Silence::Forbidden)
                }
                fault => {
                    self.log.failed(fault, &error, "whispers are written without what the metrics say");
                    self.pause(Silence::NoMetricsApi)
                }
            },
        }
    }

    fn pause(&self, silence: Silence) -> Answer {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = Some((Instant::now() + PAUSE, silence));
        Err(silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API server that has nonsense of one pod and numbers of the next: only the one has none.
    #[tokio::test]
    async fn one_pods_bad_answer_is_not_the_apis() {
        let good = r#"{"timestamp":"2026-11-21T06:00:10Z","window":"10s",
        "containers":[{"name":"main","usage":{"cpu":"50m","memory":"1Mi"}}]}"#;
        let answer = move |pod: String| match pod.as_str() {
            "null" => good.replace(r#"[{"name":"main","usage":{"cpu":"50m","memory":"1Mi"}}]"#, "null"),
            "timeless" => good.replace(r#""2026-11-21T06:00:10Z""#, "null"),
            "memoryless" => good.replace(r#","memory":"1Mi""#, ""),
            "negative" => good.replace("50m", "-9223372036854775808m"),
            _ => good.to_owned(),
        };
        let pods = "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods/{pod}";
        let app = axum::Router::new().route(
            pods,
            axum::routing::get(move |axum::extract::Path(pod): axum::extract::Path<String>| async move {
                ([("content-type", "application/json")], answer(pod))
            }),
        );
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = kube::Client::try_from(kube::Config::new(server.parse().unwrap())).unwrap();
        let api = MetricsApi::new(client);
        for pod in ["null", "timeless", "memoryless", "negative"] {
            assert_eq!(api.get("shop", pod).await, Err(Silence::NotUnderstood), "{pod}");
            let next = api.get("shop", &format!("after-{pod}")).await;
            assert!(next.is_ok(), "after {pod}: {next:?}");
        }
    }
}
