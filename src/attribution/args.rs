//! What the command line says of the host, whichever command looks at it.

use std::path::PathBuf;

/// Where the host's parts are.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HostArgs {
    /// Mount point of the host's cgroup file systems [default: from /proc/self/mountinfo]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Directory of a container runtime's files, searched before the defaults; may be repeated
    #[arg(long, value_name = "DIR")]
    pub runtime_root: Vec<PathBuf>,
    /// Kubeconfig of the API server [default: as kubectl finds it, else the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
