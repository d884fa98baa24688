//! The collector between agent and reconciler goes away and comes back: whispers that are active stay so, one
//! that begins meanwhile arrives afterwards, each once, and both sides of it are told in one line.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use kernel_gossip::api::{KernelWhisper, WhisperState};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tempfile::TempDir;

use crate::bed::process::Running;
use crate::bed::{free_address, repository, tool};
use crate::cluster::bed::agent::{Agent, Burners, running};
use crate::cluster::bed::reconciler::{Reconciler, status, whisper_of};
use crate::cluster::bed::{Namespace, client, eventually};

/// The collector as it is installed, but for addresses.
fn collector(dir: &Path, otlp: SocketAddr, reconciler: SocketAddr) -> Running {
    let here = [free_address(), free_address(), free_address()];
    let changes = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{otlp}'}}}}}}}}\n\
         exporters: {{prometheus: {{endpoint: '{}'}}}}\n\
         extensions: {{health_check: {{endpoint: '{}'}}}}\n\
         service: {{telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {}}}}}}}}}]}}}}}}\n",
        here[0],
        here[1],
        here[2].port()
    );
    let file = dir.join("changes.yaml");
    std::fs::write(&file, changes).unwrap();
    let mut command = tool("otelcol");
    command.arg("--config").arg(repository().join("otel-collector/collector.yaml")).arg("--config").arg(file);
    command.env("RECONCILER_LOGS_ENDPOINT", format!("http://{reconciler}/v1/logs"));
    let mut running = Running::start(&mut command);
    running.says("Everything is ready");
    running
}

/// `KG_OUTAGE_SECONDS` says how long it is away (20).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the test bed's cluster and otelcol"]
async fn the_collector_is_away() {
    let away = std::env::var("KG_OUTAGE_SECONDS").map_or(20, |s| s.parse().unwrap());
    let (client, ns) = (client().await, Namespace::alone("collector"));
    let r = Reconciler::ready(&ns, &[]).await;
    let burners = Burners::start(&client, &ns, 2, "100m").await;
    let dir = TempDir::new().unwrap();
    let otlp = free_address();
    let first = collector(dir.path(), otlp, r.otlp);
    let agent = Agent::start(&ns, otlp, "signals: {cpu_contention: {enabled: false}}");

    // Every state an object was in.
    let states: Arc<Mutex<Vec<(String, WhisperState)>>> = Arc::default();
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let watched = {
        let states = states.clone();
        let mut all = Box::pin(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
        tokio::spawn(async move {
            while let Some(kw) = all.try_next().await.unwrap() {
                let state = kw.status.as_ref().map(|s| s.state);
                states.lock().unwrap().extend(state.map(|s| (kw.name_any(), s)));
            }
        })
    };

    let [before, during] = [&burners.names[0], &burners.names[1]];
    burners.burn(before);
    let pod = running(&client, &ns, before).await;
    let there = whisper_of(&client, &pod, "a whisper", |_| true).await;

    assert!(first.terminate().0.success());
    burners.burn(during);
    tokio::time::sleep(Duration::from_secs(away)).await;
    let pod = running(&client, &ns, during).await;
    assert!(states.lock().unwrap().iter().all(|(name, _)| *name == there.name_any()), "by which way?");

    let _second = collector(dir.path(), otlp, r.otlp);
    let late = whisper_of(&client, &pod, "the whisper that began meanwhile", |_| true).await;
    assert_eq!((status(&late).state, status(&late).signals.len()), (WhisperState::Active, 1));
    assert_eq!(status(&late).signals[0].count, 1, "said again and again, begun once");
    let api: Api<KernelWhisper> = Api::namespaced(client.clone(), &ns.0);
    let now = api.get(&there.name_any()).await.unwrap();
    assert_eq!((now.uid(), status(&now).signals[0].count), (there.uid(), 1));
    assert_eq!(status(&now).signals[0].since, status(&there).signals[0].since);

    // The end is told once nothing fails: metrics and events wait for their next try each by itself.
    eventually("the end of the outage", async || (!agent.log("reachable again").is_empty()).then_some(()))
        .await;

    watched.abort();
    let states = states.lock().unwrap();
    assert!(states.iter().all(|(_, state)| *state == WhisperState::Active), "{states:?}");
    assert_eq!(r.warnings(), Vec::<String>::new());
    for (what, times) in [("cannot be reached", 1), ("reachable again", 1)] {
        assert_eq!(agent.log(what).len(), times, "{what}: {:?}", agent.log("OTLP"));
    }
    println!("away for {away} s: {:?}", agent.log("OTLP receiver"));
}
