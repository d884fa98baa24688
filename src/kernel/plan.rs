//! From what a host allows to what runs there: pure, so that it is tested over the recorded facts of
//! many hosts (`tests/fixtures/hosts/`). What each probe needs is in its own module ([`super::probes`]).

mod summary;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::facts::{Configuration, Facts};
use super::probe::Kind;
use super::probes::probes;
use super::verdict::{Planned, Shortfall, Verdict};

/// Whom names are asked of, besides the container runtime's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesHook {
    pub configuration: Configuration,
    /// The API server's version; `None` while it does not answer.
    pub version: Option<String>,
}

macro_rules! plan {
    ($($field:ident: $probe:ty,)+) => {
        /// What runs on a host.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Plan {
            $(pub $field: Verdict<<$probe as Kind>::Hook>,)+
            /// Pods' owners, labels and limits from the API server.
            pub kubernetes: Verdict<KubernetesHook>,
        }

        /// What runs on a host with these facts.
        pub fn plan(facts: &Facts) -> Plan {
            Plan { $($field: <$probe>::plan(facts),)+ kubernetes: kubernetes(facts) }
        }

        impl Plan {
            /// The probes alone.
            pub fn probes(&self) -> impl Iterator<Item = Planned<'_>> {
                [$(self.$field.planned(stringify!($field))),+].into_iter()
            }
        }
    };
}
probes!(plan);

impl Plan {
    /// The agent has something to read: the least is cgroup files. What the scheduler says of cgroups is without them
    /// about nobody.
    pub fn runs(&self) -> bool {
        self.cgroups.hook().is_some()
    }
}

fn kubernetes(facts: &Facts) -> Verdict<KubernetesHook> {
    let Some(configuration) = facts.kubernetes.configuration else {
        return Verdict::Unavailable(Shortfall::new(
            "no kubeconfig and no service account",
            "nothing, unless this is a Kubernetes node: then set KUBECONFIG or run in a pod",
        ));
    };
    let hook = KubernetesHook { configuration, version: facts.kubernetes.version.clone() };
    let how = facts.kubernetes.error.as_ref().map(|error| {
        let why = format!("names come from the container runtime alone, without owners and limits: {error}");
        // rustls', of a kubeconfig whose authority is the server's certificate.
        let what_to_do = match error.contains("CaUsedAsEndEntity") {
            true => {
                "give the API server a certificate that is no CA's own (basicConstraints CA:FALSE); the agent goes on asking"
            }
            false => "make the API server reachable from here; the agent goes on asking",
        };
        Shortfall::new(why, what_to_do)
    });
    Verdict::of(hook, how.into_iter().collect())
}

impl Display for KubernetesHook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.configuration {
            Configuration::Kubeconfig => "kubeconfig",
            Configuration::ServiceAccount => "service account",
        })?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, ", API server {version}"))
    }
}
