//! Whether there is an API server to ask.

use std::time::Duration;

use kube::{Client, Config};
use serde::{Deserialize, Serialize};

/// Where the way to the API server is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Configuration {
    /// `$KUBECONFIG` or `~/.kube/config`.
    Kubeconfig,
    /// The service account of the pod this runs in.
    ServiceAccount,
}

/// The API server as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// `None`: nothing says where one is.
    pub configuration: Option<Configuration>,
    /// Its version if it answered.
    pub version: Option<String>,
    /// Why it did not.
    pub error: Option<String>,
}

impl Kubernetes {
    /// Asks the API server for its version, which every authenticated client may.
    pub(super) async fn find(timeout: Duration) -> Kubernetes {
        let (configuration, config) = match Config::from_kubeconfig(&Default::default()).await {
            Ok(config) => (Configuration::Kubeconfig, config),
            Err(e) if std::env::var_os("KUBECONFIG").is_some() => {
                let configuration = Some(Configuration::Kubeconfig);
                return Kubernetes {
                    configuration,
                    version: None,
                    error: Some(format!("$KUBECONFIG: {:#}", anyhow::Error::from(e))),
                };
            }
            Err(_) => match Config::incluster() {
                Ok(config) => (Configuration::ServiceAccount, config),
                Err(_) => return Kubernetes::default(),
            },
        };
        // Made before the clock starts: it reads the machine's certificates.
        let asked = Client::try_from(config).map(|client| async move { client.apiserver_version().await });
        let answer = match asked {
            Ok(asked) => tokio::time::timeout(timeout, asked).await,
            Err(e) => Ok(Err(e)),
        };
        let (version, error) = match answer {
            Ok(Ok(info)) => (Some(info.git_version), None),
            Ok(Err(e)) => (None, Some(format!("{:#}", anyhow::Error::from(e)))),
            Err(_) => (None, Some(format!("no answer within {} s", timeout.as_secs_f64()))),
        };
        Kubernetes { configuration: Some(configuration), version, error }
    }
}
