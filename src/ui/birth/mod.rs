//! `kernel-gossip birth`: what the start of a pod cost, as a waterfall; from its certificate in the cluster, or live
//! for the next container that is started on this machine.
//!
//! Inside belongs how a birth is read; what it was, its certificate says.

mod html;
mod live;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};

use crate::api::{
    Actor, BirthPhase, ContainerRestart, PodBirthCertificate, PodBirthCertificateSpec,
    PodBirthCertificateStatus, object_name,
};
use crate::attribution::watch;
use crate::birth::certificate::image_of;
use crate::kubeconfig;
use crate::plain::Plain;

/// Whose birth, from where, and how to show it.
#[derive(Clone, Debug, clap::Args)]
pub struct BirthArgs {
    /// Pod whose birth certificate is shown
    #[arg(value_name = "POD", required_unless_present = "live")]
    pub pod: Option<String>,
    /// Namespace of the pod [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Show the next container that containerd, runc or another OCI runtime starts on this machine; needs root, but no
    /// Kubernetes
    #[arg(long, conflicts_with_all = ["pod", "namespace", "kubeconfig"])]
    pub live: bool,
    /// Wait up to this long for the certificate, or for a container to start, such as 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// Also write an HTML page to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Kubeconfig of the API server [default: as kubectl finds it]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A waterfall for people
    Text,
    /// The certificate as one JSON object
    Json,
}

/// A certificate and what it is called, with every text in it plain: whoever may write the object must not write on the
/// screen of who reads it.
#[derive(Clone, Debug)]
pub struct View {
    /// `web in namespace shop, on node n1`.
    title: String,
    /// The pod; `None` for a container without Kubernetes.
    pod: Option<PodOf>,
    status: PodBirthCertificateStatus,
}

impl View {
    /// # Errors
    /// The certificate has a number that is none.
    pub fn new(title: &str, pod: Option<PodOf>, status: &PodBirthCertificateStatus) -> Result<View> {
        let plain = |error| anyhow::Error::from(error).context("the certificate cannot be shown");
        Ok(View {
            title: Plain(title).to_string(),
            pod: pod.map(|pod| crate::plain::all(&pod)).transpose().map_err(plain)?,
            status: crate::plain::all(status).map_err(plain)?,
        })
    }
}

/// The pod that was born.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodOf {
    namespace: String,
    #[serde(flatten)]
    spec: PodBirthCertificateSpec,
}

/// A certificate as one object: the pod, and what its status has.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    pod: Option<&'a PodOf>,
    #[serde(flatten)]
    status: &'a PodBirthCertificateStatus,
}

impl<'a> Json<'a> {
    fn of(view: &'a View) -> Json<'a> {
        Json { pod: view.pod.as_ref(), status: &view.status }
    }
}

/// Shows it.
///
/// # Errors
/// No certificate, in one line that says what to do; a file that cannot be written.
pub async fn run(args: &BirthArgs, shutdown: impl Future<Output = ()>) -> Result<()> {
    let view = tokio::select! {
        view = find(args) => view?,
        () = shutdown => return Ok(()),
    };
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(&view)).with_context(|| path.display().to_string())?;
    }
    let mut out = io::stdout().lock();
    match args.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &Json::of(&view)).context("stdout")?;
            writeln!(out).context("stdout")
        }
        Format::Text => {
            let colour = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
            // An error, or no columns, is no terminal.
            let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
            let width = if columns == 0 { 100 } else { usize::from(columns).clamp(60, 160) };
            write!(out, "{}", text::Waterfall { view: &view, width, colour }).context("stdout")
        }
    }
}

async fn find(args: &BirthArgs) -> Result<View> {
    match &args.pod {
        Some(pod) => of_pod(args, pod).await,
        None => live::next(args.wait).await,
    }
}

async fn of_pod(args: &BirthArgs, pod: &str) -> Result<View> {
    let client = watch::client(args.kubeconfig.as_deref()).await?;
    let namespace = match &args.namespace {
        Some(namespace) => namespace.clone(),
        None => default_namespace(args, &client).await,
    };
    let api: Api<PodBirthCertificate> = Api::namespaced(client, &namespace);
    let name = object_name(pod, "pbc");
    let there = match args.wait {
        Some(wait) => match tokio::time::timeout(wait, appears(&api, &name)).await {
            Ok(there) => Some(there?),
            Err(_elapsed) => None,
        },
        None => api.get_opt(&name).await.context("asking for the certificate")?,
    };
    let Some(there) = there else {
        bail!(
            "no birth certificate of pod {pod} in namespace {namespace}: births are certified while they happen, by an \
             agent on the pod's node; --wait 1m waits for one"
        );
    };
    let Some(status) = there.status else { bail!("the certificate {name} says nothing yet: try again") };
    let title = format!("{pod} in namespace {namespace}, on {}", there.spec.node_name);
    View::new(&title, Some(PodOf { namespace, spec: there.spec }), &status)
}

/// Waits for the object and its status.
async fn appears(api: &Api<PodBirthCertificate>, name: &str) -> Result<PodBirthCertificate> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api.clone(), config));
    loop {
        let event = events.try_next().await.context("waiting for the certificate")?;
        match event {
            Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))
                if object.status.is_some() =>
            {
                return Ok(object);
            }
            Some(_) => {}
            None => bail!("the API server ended the watch"),
        }
    }
}

async fn default_namespace(args: &BirthArgs, client: &Client) -> String {
    // What a kubeconfig that was named says is in it; else as kubectl finds it.
    if args.kubeconfig.is_some() {
        return client.default_namespace().to_owned();
    }
    let found = kubeconfig::find(None).await;
    found.map_or_else(|_| client.default_namespace().to_owned(), |(_, config)| config.default_namespace)
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.ok_or_else(|| "a duration with its unit is wanted, such as 500ms, 30s or 2m".to_owned())
}

/// Who a phase is waited for.
fn actor(phase: &str) -> Actor {
    match phase {
        "scheduled" => Actor::Scheduler,
        "sandbox" | "create" | "start" => Actor::Runtime,
        "network" => Actor::Cni,
        "init" | "listen" => Actor::Container,
        _ => Actor::Kubelet,
    }
}

/// What a phase is called.
fn title(phase: &BirthPhase) -> String {
    match &phase.container {
        Some(container) => format!("{} {container}", phase.name),
        None => phase.name.clone(),
    }
}

/// What there is to say of a phase beside its length.
fn note(status: &PodBirthCertificateStatus, phase: &BirthPhase) -> String {
    let image = image_of(status, phase).map(|i| format!(" {}", i.as_str()));
    image.unwrap_or_default() + &uncertain(phase.uncertainty_ms)
}

/// The time axis: from the first phase, or zero, to the end of the last.
fn axis(status: &PodBirthCertificateStatus) -> (f64, f64) {
    // A pod may have waited for its node for hours: the birth itself is what is looked at.
    let starts = status.phases.iter().filter(|p| p.name != "scheduled").map(|p| p.start_ms);
    let from = starts.fold(0.0, f64::min);
    let ends = status.phases.iter().map(|p| p.start_ms + p.duration_ms);
    let total = status.kernel_stats.as_ref().and_then(|s| s.total_duration_ms);
    let to = ends.chain(total).chain(status.timeline.last().map(|s| s.timestamp_ms)).fold(1.0, f64::max);
    (from, to)
}

/// "web was started again at 2026-11-21T10:00:00Z, failed: exit status 1".
fn again(restart: &ContainerRestart) -> String {
    let why = restart.failure.as_ref().map(|w| format!(", failed: {w}")).unwrap_or_default();
    let at = restart.at.as_ref().map(|at| format!(" at {}", at.0)).unwrap_or_default();
    format!("{} was started again{at}{why}", restart.container)
}

/// How much earlier it may have been.
fn uncertain(ms: Option<f64>) -> String {
    ms.map(|ms| format!(" (up to {} less)", crate::birth::input::length(ms))).unwrap_or_default()
}
