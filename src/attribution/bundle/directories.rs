//! Which of the runtimes' directories there are, for whoever wonders why a container has no name.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde::Serialize;

use super::{Bundles, Root};

/// A directory in which container runtimes' files are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Directory {
    /// `containerd`, `containers/storage` (CRI-O, Podman), `docker`; `none` of a place that was named and has none.
    pub runtime: &'static str,
    pub path: PathBuf,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Bundles {
    /// The directories that are there, those of the mount table among them, and those that were named and are not.
    pub fn directories(&mut self) -> Vec<Directory> {
        self.discover();
        let mut all = Vec::new();
        for root in &self.roots {
            let (runtime, path) = match root {
                Root::Tasks(path) => ("containerd", path),
                Root::Storage(path) => ("containers/storage", path),
                Root::Docker(path) => ("docker", path),
            };
            let error = match std::fs::read_dir(path) {
                Ok(_) => None,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => Some(error.to_string()),
            };
            all.push(Directory { runtime, path: path.clone(), error });
        }
        for given in &self.given {
            if !all.iter().any(|directory| directory.path.starts_with(given)) {
                let error = match std::fs::metadata(given) {
                    Ok(_) => "no runtime's containers are in it".to_owned(),
                    Err(error) => error.to_string(),
                };
                all.push(Directory { runtime: "none", path: given.clone(), error: Some(error) });
            }
        }
        all
    }
}
