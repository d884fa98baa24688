//! A container for runc, with busybox and nothing else in it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// A bundle and the container made of it. Dropping it removes both, and its cgroups.
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
        let bin = bundle.dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).expect("rootfs");
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|b| b.exists());
        fs::copy(busybox.expect("busybox"), bin.join("busybox")).expect("busybox");
        let spec = Command::new("runc").arg("spec").current_dir(bundle.dir.path()).status().expect("runc");
        assert!(spec.success());
        let path = bundle.dir.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("config.json")).expect("JSON");
        let mut args = vec!["/bin/busybox"];
        args.extend(arguments);
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = args.into();
        config["linux"]["cgroupsPath"] = format!("/{}/container", bundle.id).into();
        fs::write(&path, config.to_string()).expect("config.json");
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
