//! The cluster's half: what agents and others report becomes Kubernetes objects.
//!
//! [`ingest`] (checked, the pod looked up) -> [`engine`] (owns [`desired`], pure) -> [`write::queue`]
//! (bounded, rate-limited) -> [`write::writer`] (server-side apply). One replica does this, see [`lead::leader`];
//! the rest hand their connections to it, see [`lead::serve`].
//!
//! Inside belongs what is done for the cluster as a whole. What a kernel says is the agent's.

pub mod desired;
pub mod engine;
pub mod faults;
pub mod ingest;
pub mod lead;
pub mod lookup;
pub mod options;
pub mod refusal;
pub mod report;
pub mod resize;
pub mod telemetry;
pub mod write;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{kubeconfig, listen};
use desired::{Desired, Now};
use engine::{Engine, Inputs};
use ingest::{Authorizer, Intake, otlp, webhook};
use lead::leader::Role;
use lead::serve::{Forward, Port};
use lead::tls::Tls;
pub use options::ReconcilerOptions;
use report::ResolvedReport;
use resize::ResizeMetrics;
use telemetry::Telemetry;
use write::births::Births;
use write::queue::Queue;
use write::writer::{WRITERS, WriteQueue, Writer};

/// Reports between the ingest and the engine.
const SAID_MAX: usize = 4096;
/// Reports between the engine and the remediation.
const CANDIDATES_MAX: usize = 256;
/// Longest a request to the API server may take; a watch is no request of these.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Runs until `shutdown`, then lets what is under way end and gives the Lease back.
///
/// # Errors
/// What makes a start impossible: no way to an API server is configured, a port is taken, a
/// certificate cannot be read. An API server that does not answer is waited for.
pub async fn run(options: ReconcilerOptions, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (_, config) = kubeconfig::find(None)
        .await
        .context("no way to a Kubernetes API server: set KUBECONFIG, or run in a pod")?;
    let client = limited(config.clone(), REQUEST_MAX)?;
    let watching = kube_client(config.clone())?;
    let mut registry = Registry::default();
    let telemetry = Telemetry::register(&mut registry);
    let resizes = ResizeMetrics::default();
    resizes.register(&mut registry);
    let intake = Arc::new(Intake::new(client.clone(), options.only_namespace.clone(), telemetry.clone()));
    let births = Arc::new(Births::new(client.clone()));
    let authorizer = Arc::new(Authorizer::new(client.clone(), options.token_audience.clone()));
    let first =
        if options.leader_election { Role::Follower { leader: None } } else { Role::Leader { term: 0 } };
    let (role, roles) = watch::channel(first);
    let (open, opens) = watch::channel(false);
    let health = Arc::new(lead::health::Health::new(roles.clone(), opens));
    if options.allow_anonymous_webhook {
        tracing::warn!("the webhook takes reports from anybody who reaches it");
    }

    let tls = options.tls().map(Tls::new).transpose()?.map(Arc::new);
    let webhook = webhook::Webhook {
        intake: intake.clone(),
        births: births.clone(),
        authorizer: (!options.allow_anonymous_webhook).then(|| authorizer.clone()),
        health,
        telemetry: telemetry.clone(),
    };
    let port = async |name, number, app, tls, forward| {
        let address = SocketAddr::new(options.listen, number);
        let listener = listen::tcp(address)
            .and_then(TcpListener::from_std)
            .with_context(|| format!("{address} ({name}) cannot be listened on: choose another port"))?;
        let telemetry = telemetry.clone();
        anyhow::Ok(Port { name, listener, app, tls, forward, role: roles.clone(), telemetry })
    };
    let logs = otlp::router(intake.clone(), births.clone(), authorizer, telemetry.clone());
    let numbers = metrics(registry, telemetry.clone());
    let ports = [
        port("OTLP", options.otlp_port, logs, tls.clone(), Forward::Otlp).await?,
        port("webhook", options.webhook_port, webhook::router(webhook), None, Forward::Webhook).await?,
        port("metrics", options.metrics_port, numbers, None, Forward::Nothing).await?,
    ];
    let address = |p: &Port| p.listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
    tracing::info!(
        otlp = address(&ports[0]),
        tls = tls.is_some(),
        webhook = address(&ports[1]),
        metrics = address(&ports[2]),
        "the reconciler listens"
    );

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    for port in ports {
        tasks.spawn(lead::serve::serve(port, stop.clone()));
    }
    if options.leader_election {
        let client = limited(config, lead::leader::REQUEST_MAX)?;
        tasks.spawn(lead::leader::run(client, options.clone(), role, stop.clone()));
    }
    if let Some(tls) = tls {
        let stop = stop.clone();
        tasks.spawn(async move {
            let _ = stop.run_until_cancelled(tls.follow()).await;
        });
    }
    let replica = Replica { options, client, watching, intake, births, telemetry, resizes, open };
    tokio::select! {
        () = replica.lead(roles) => {}
        () = shutdown => {}
    }
    // No new reports from here on. What was taken and not written yet: docs/reconciler.md, "A restart".
    replica.intake.close();
    replica.births.close();
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Where reports and births go while a term takes them.
struct IntakeHandles {
    reports: Option<Arc<mpsc::Sender<ResolvedReport>>>,
    births: Option<Arc<WriteQueue>>,
}

/// What a term as leader is made of.
struct Replica {
    options: ReconcilerOptions,
    client: Client,
    /// Without a limit on how long a request takes.
    watching: Client,
    intake: Arc<Intake>,
    births: Arc<Births>,
    telemetry: Arc<Telemetry>,
    resizes: ResizeMetrics,
    open: watch::Sender<bool>,
}

impl Replica {
    /// Leads whenever this replica is the leader.
    async fn lead(&self, mut roles: watch::Receiver<Role>) {
        loop {
            let Ok(role) = roles.wait_for(Role::leads).await.map(|r| r.clone()) else { return };
            let mut term = pin!(self.term());
            loop {
                self.telemetry.leading.set(1);
                tokio::select! {
                    () = term.as_mut() => break,
                    _ = roles.wait_for(|r| *r != role) => {}
                }
                // From here on the term stands still, with all that was taken and is not written yet.
                let handles = self.close();
                let now = roles.wait_for(|r| !matches!(r, Role::Paused { .. })).await.map(|r| r.clone());
                if now.ok().as_ref() != Some(&role) {
                    break;
                }
                self.reopen(handles);
            }
            self.close();
        }
    }

    /// No reports from here on.
    fn close(&self) -> IntakeHandles {
        self.open.send_replace(false);
        self.telemetry.leading.set(0);
        IntakeHandles { reports: self.intake.close(), births: self.births.close() }
    }

    /// Opens what was open before. A term that had not come so far opens on its own.
    fn reopen(&self, handles: IntakeHandles) {
        let IntakeHandles { reports: Some(reports), births: Some(births) } = handles else { return };
        self.births.open(births);
        self.intake.open(reports);
        self.open.send_replace(true);
    }

    /// One term: takes over what the API knows, then takes reports and writes until dropped.
    async fn term(&self) {
        let mut desired = Desired::new(self.options.rules());
        let only = self.options.only_namespace.as_deref();
        let there = write::store::list(&self.client, only, &self.telemetry).await;
        let now = Now::read();
        there.iter().for_each(|kw| desired.restore(kw, now));
        tracing::info!(objects = there.len(), active = desired.active(), "what the API knows is taken over");
        drop(there);

        let queue = Arc::new(Queue::new(self.options.rates()));
        let (said_in, said) = mpsc::channel(SAID_MAX);
        let (changes_in, changes) = mpsc::channel(256);
        let (outcomes_in, outcomes) = mpsc::channel(WRITERS * 4);
        let (updates_in, updates) = mpsc::channel(64);
        let (candidates_in, candidates) = mpsc::channel(CANDIDATES_MAX);
        let writer = Writer::new(self.client.clone(), queue.clone(), outcomes_in, self.telemetry.clone());
        let remediates = self.options.remediation != resize::Mode::Off;
        let engine = Engine {
            desired,
            queue: queue.clone(),
            candidates: remediates.then_some(candidates_in),
            telemetry: self.telemetry.clone(),
            full_told: false,
        };
        let remediation = async {
            if remediates {
                let (options, metrics) = (self.options.resize(), self.resizes.clone());
                resize::run(self.client.clone(), options, metrics, candidates, updates_in).await;
            }
            std::future::pending::<()>().await;
        };
        self.births.open(queue);
        self.intake.open(said_in);
        self.open.send_replace(true);
        tokio::select! {
            () = engine.run(Inputs { said, changes, outcomes, updates }) => {}
            () = writer.run() => {}
            () = remediation => {}
            () = write::store::watch(&self.watching, only, changes_in) => {}
        }
    }
}

/// A client that gives up on a request after `patience`.
fn limited(mut config: Config, patience: Duration) -> anyhow::Result<Client> {
    config.connect_timeout = Some(patience.min(Duration::from_secs(5)));
    config.read_timeout = Some(patience);
    // Else the time a pooled connection lay idle counts.
    config.reset_reader_on_write = true;
    // What to do about a failure is settled by who asked.
    config.default_retry = false;
    kube_client(config)
}

fn kube_client(config: Config) -> anyhow::Result<Client> {
    kubeconfig::client(config).map_err(anyhow::Error::msg).context("the Kubernetes client")
}

/// `GET /metrics`.
fn metrics(registry: Registry, telemetry: Arc<Telemetry>) -> Router {
    let registry = Arc::new(registry);
    let answer = move || async move {
        telemetry.sample_memory();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
    };
    Router::new().route("/metrics", get(answer))
}
