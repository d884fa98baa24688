//! Containers with busybox and nothing else in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

/// Makes a directory a bundle whose container runs `busybox` with these arguments; `more` changes its config.json.
pub fn lay_out(dir: &Path, arguments: &[&str], cgroup: &str, more: impl FnOnce(&mut Value)) {
    let bin = dir.join("rootfs/bin");
    fs::create_dir_all(&bin).expect("rootfs");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|b| b.exists());
    fs::copy(busybox.expect("busybox"), bin.join("busybox")).expect("busybox");
    let spec = Command::new("runc").arg("spec").current_dir(dir).status().expect("runc");
    assert!(spec.success());
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("config.json")).expect("JSON");
    let mut args = vec!["/bin/busybox"];
    args.extend(arguments);
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = args.into();
    config["linux"]["cgroupsPath"] = cgroup.into();
    more(&mut config);
    fs::write(&path, config.to_string()).expect("config.json");
}

/// A bundle and the container that runc makes of it. Dropping it removes both, and its cgroups.
pub struct Bundle {
    dir: TempDir,
    id: String,
}

impl Bundle {
    /// A container that runs `busybox` with these arguments.
    pub fn new(arguments: &[&str]) -> Bundle {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let bundle = Bundle {
            dir: tempfile::tempdir().expect("a directory"),
            id: format!("kg-test-runc-{}-{number}", std::process::id()),
        };
        lay_out(bundle.dir.path(), arguments, &format!("/{}/container", bundle.id), |_| {});
        bundle
    }

    /// The shell commands that start it as a container runtime does.
    pub fn start(&self) -> String {
        let (dir, id) = (self.dir.path().display(), &self.id);
        format!("runc create --bundle {dir} {id} && runc start {id}")
    }

    /// Of the cgroups made for it.
    pub fn cgroups(&self) -> String {
        format!("/{}", self.id)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["delete", "--force", &self.id]).output();
        // runc removes the container's group and leaves its parent, in each tree.
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with("/sys/fs/cgroup") {
                let _ = fs::remove_dir(format!("{mount}/{}", self.id));
            }
        }
    }
}
