//! Whether there is an API server to ask.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::causes::chain;
use crate::kubeconfig::{self, Unusable};

pub use crate::kubeconfig::Source as Configuration;

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
    /// Asks the API server for its version, which every authenticated client may. `kubeconfig`: the way to it,
    /// where it is not looked for.
    pub(super) async fn find(kubeconfig: Option<&Path>, timeout: Duration) -> Kubernetes {
        let (configuration, config) = match kubeconfig::find(kubeconfig).await {
            Ok(found) => found,
            Err(Unusable::NoCluster) => return Kubernetes::default(),
            Err(error) => {
                let told = kubeconfig.is_none() && std::env::var_os("KUBECONFIG").is_some();
                let (configuration, error) = match error {
                    Unusable::Kubeconfig { reason, .. } if told => {
                        (Configuration::Kubeconfig, format!("$KUBECONFIG: {reason}"))
                    }
                    Unusable::Kubeconfig { path, reason } => {
                        (Configuration::Kubeconfig, format!("{}: {reason}", path.display()))
                    }
                    error => (Configuration::ServiceAccount, error.to_string()),
                };
                return Kubernetes { configuration: Some(configuration), version: None, error: Some(error) };
            }
        };
        // Made before the clock starts: it reads the machine's certificates.
        let client = match kubeconfig::client(config) {
            Ok(client) => client,
            Err(error) => {
                return Kubernetes { configuration: Some(configuration), version: None, error: Some(error) };
            }
        };
        let (version, error) = match tokio::time::timeout(timeout, client.apiserver_version()).await {
            Ok(Ok(info)) => (Some(info.git_version), None),
            Ok(Err(e)) => (None, Some(chain(&e))),
            Err(_) => (None, Some(format!("no answer within {} s", timeout.as_secs_f64()))),
        };
        Kubernetes { configuration: Some(configuration), version, error }
    }
}
