//! A pod as the kernel sees one born, without a cluster: the test makes its cgroup as the kubelet does, and runc its container.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::bundle::lay_out;
use super::cgroup::Cgroup;

/// Dropping it takes it away.
pub struct Pod {
    pub uid: String,
    /// The runtime's, of its one container.
    pub id: String,
    bundle: TempDir,
    cgroup: Option<Cgroup>,
}

impl Pod {
    /// `number`: of this test program's pods.
    pub fn new(number: u32) -> Pod {
        let process = std::process::id();
        Pod {
            uid: format!("{:08x}-2222-4333-8444-{process:012x}", 0x1000 + number),
            id: format!("{:048x}{number:08x}{process:08x}", 0xabcd),
            bundle: tempfile::tempdir().expect("a directory"),
            cgroup: None,
        }
    }

    /// Of its cgroup.
    pub fn path(&self) -> String {
        format!("/kubepods/besteffort/pod{}", self.uid)
    }

    /// The kubelet makes its cgroup.
    pub fn begin(&mut self) {
        self.cgroup = Some(Cgroup::at(&self.path()));
    }

    /// The runtime makes its container, which runs busybox with these arguments.
    pub fn run(&self, arguments: &[&str]) {
        self.run_as(arguments, |_| {});
    }

    /// The same; `more` changes its config.json.
    pub fn run_as(&self, arguments: &[&str], more: impl FnOnce(&mut Value)) {
        let cgroup = format!("{}/{}", self.path(), self.id);
        lay_out(self.bundle.path(), arguments, &cgroup, more);
        // The container has what runc has as its output: nobody waits for its end.
        let runc = |command: &mut Command| {
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(status.expect("runc").success(), "{command:?}");
        };
        runc(Command::new("runc").args(["create", "--bundle"]).arg(self.bundle.path()).arg(&self.id));
        runc(Command::new("runc").args(["start", &self.id]));
    }

    /// Where its container's root is.
    pub fn bundle(&self) -> &Path {
        self.bundle.path()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["delete", "--force", &self.id]).output();
        drop(self.cgroup.take());
        // runc makes the pod's cgroup in each other tree, and leaves it and those above. One with others in it stays.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with("/sys/fs/cgroup") {
                for path in [&*self.path(), "/kubepods/besteffort", "/kubepods"] {
                    let _ = fs::remove_dir(format!("{mount}{path}"));
                }
            }
        }
    }
}
