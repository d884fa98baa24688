//! Whether there is an API server to ask.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};

/// Where the way to the API server is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Configuration {
    /// The one named, `$KUBECONFIG` or `~/.kube/config`.
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
    /// Asks the API server for its version, which every authenticated client may. `kubeconfig`: the way to it,
    /// where it is not looked for.
    pub(super) async fn find(kubeconfig: Option<&Path>, timeout: Duration) -> Kubernetes {
        let unusable = |name: String, error: KubeconfigError| Kubernetes {
            configuration: Some(Configuration::Kubeconfig),
            version: None,
            error: Some(format!("{name}: {:#}", anyhow::Error::from(error))),
        };
        let found = match kubeconfig {
            Some(path) => from_file(path).await,
            None => Config::from_kubeconfig(&KubeConfigOptions::default()).await,
        };
        let (configuration, config) = match (found, kubeconfig) {
            (Ok(config), _) => (Configuration::Kubeconfig, config),
            (Err(e), Some(path)) => return unusable(path.display().to_string(), e),
            (Err(e), None) if std::env::var_os("KUBECONFIG").is_some() => {
                return unusable("$KUBECONFIG".into(), e);
            }
            (Err(_), None) => match Config::incluster() {
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

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}
