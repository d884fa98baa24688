//! The way to the API server, found as kubectl finds it: agent, `check`, `birth` and reconciler ask here, and nowhere
//! else.

use std::env;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::causes::chain;
use crate::proxy;

/// Where the way to the API server is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The one named, `$KUBECONFIG` or `~/.kube/config`.
    Kubeconfig,
    /// The service account of the pod this runs in.
    ServiceAccount,
}

/// Why there is no way to an API server.
#[derive(Debug, Error)]
pub enum Unusable {
    /// Nothing says where one is.
    #[error("no Kubernetes here: no kubeconfig and no service account")]
    NoCluster,
    #[error("kubeconfig {}: {reason}", .path.display())]
    Kubeconfig { path: PathBuf, reason: String },
    #[error("the pod's service account: {0}")]
    ServiceAccount(String),
}

/// The kubeconfig given, else the files of `$KUBECONFIG` that are there, else `~/.kube/config`, else the pod's service
/// account. Sends nothing.
///
/// # Errors
/// [`Unusable`].
pub async fn find(given: Option<&Path>) -> Result<(Source, Config), Unusable> {
    let told = env::var_os("KUBECONFIG").unwrap_or_default();
    let named: Vec<PathBuf> = match given {
        Some(path) => vec![path.into()],
        // A file that is not there is passed over.
        None => {
            env::split_paths(&told).filter(|path| !path.as_os_str().is_empty() && path.exists()).collect()
        }
    };
    let home = || env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists());
    let (paths, at_home) = match named.is_empty() && told.is_empty() {
        true => (Vec::from_iter(home()), true),
        false => (named, false),
    };
    if !paths.is_empty() {
        let name = env::join_paths(&paths).unwrap_or_default().into();
        match read(&paths).await {
            Ok(config) => return Ok((Source::Kubeconfig, config)),
            // Nobody asked for this one, and in a pod there is another way.
            Err(_) if at_home && in_pod() => {}
            Err(reason) => return Err(Unusable::Kubeconfig { path: name, reason }),
        }
    }
    match Config::incluster() {
        Ok(config) => Ok((Source::ServiceAccount, config)),
        Err(error) if in_pod() => Err(Unusable::ServiceAccount(one_line(&error))),
        Err(_) if !told.is_empty() => {
            Err(Unusable::Kubeconfig { path: told.into(), reason: "there is no such file".into() })
        }
        Err(_) => Err(Unusable::NoCluster),
    }
}

/// A client by this configuration. Sends nothing yet, but may run a plugin that the kubeconfig names.
///
/// # Errors
/// One line that says why there is none, and of a plugin that cannot be run which it is and where to get it.
pub fn client(config: Config) -> Result<Client, String> {
    let exec = config.auth_info.exec.clone();
    Client::try_from(config).map_err(|error| {
        let auth = matches!(error, kube::Error::Auth(_));
        let mut text = one_line(&error);
        if let Some(exec) = exec.filter(|_| auth) {
            let command = exec.command.unwrap_or_default();
            text = format!("the kubeconfig's plugin {command:?} gives no credentials: {text}");
            if let Some(hint) = exec.install_hint {
                let hint: Vec<&str> = hint.split_whitespace().collect();
                text = format!("{text} ({})", hint.join(" "));
            }
        }
        text
    })
}

fn in_pod() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

async fn read(paths: &[PathBuf]) -> Result<Config, String> {
    let merged = paths
        .iter()
        .try_fold(Kubeconfig::default(), |all, path| {
            Kubeconfig::read_from(path).and_then(|one| all.merge(one))
        })
        .map_err(|e| one_line(&e))?;
    // What the file says of a proxy goes before the environment; both are settled here.
    let options = KubeConfigOptions::default();
    let own = own_proxy(&merged);
    let mut config = Config::from_custom_kubeconfig(merged, &options).await.map_err(|e| one_line(&e))?;
    if own.is_none() {
        config.proxy_url = proxy::of(&config.cluster_url, &|name| env::var(name).ok())?;
    }
    Ok(config)
}

/// The `proxy-url` of the current context's cluster.
fn own_proxy(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_deref()?;
    let context = kubeconfig.contexts.iter().find(|c| c.name == current)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|c| c.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// An error with its causes, on one line.
fn one_line(error: &dyn std::error::Error) -> String {
    chain(error).replace('\n', " ")
}
