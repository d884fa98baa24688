//! The names of Podman's containers, which stand in the lists of containers/storage alone: one of those that stay, one of
//! those that end with the machine or are removed when they end (`podman run --rm`, a Quadlet).

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Miss, checked, read};

/// Below `overlay-containers`.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// The lists as last read: a host has thousands of containers in one, which is read again only when it has changed.
#[derive(Debug, Default)]
pub struct Lists(HashMap<PathBuf, List>);

#[derive(Debug)]
struct List {
    /// Which file it was: inode, length, modification (s and ns).
    version: (u64, u64, i64, i64),
    names: HashMap<String, String>,
}

impl Lists {
    /// The container's name, as the lists of these directories have it; `None` if none has.
    ///
    /// # Errors
    /// A list that is there but cannot be read, where none of the others has the name.
    pub fn name<'a>(
        &mut self,
        dirs: impl Iterator<Item = &'a Path>,
        id: &str,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<String>, Miss> {
        let mut error = None;
        for path in dirs.flat_map(|dir| LISTS.map(|list| dir.join(list))) {
            match self.list(&path, buffer) {
                Ok(Some(list)) => {
                    if let Some(name) = list.names.get(id) {
                        return Ok(Some(name.clone()));
                    }
                }
                Ok(None) => {}
                Err(miss) => error = Some(miss),
            }
        }
        error.map_or(Ok(None), Err)
    }

    /// The list as it is now; `None` where there is none.
    fn list(&mut self, path: &Path, buffer: &mut Vec<u8>) -> Result<Option<&List>, Miss> {
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                self.0.remove(path);
                return Ok(None);
            }
            Err(e) => return Err(Miss::Unreadable(format!("{}: {e}", path.display()))),
        };
        let version = (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        if self.0.get(path).is_none_or(|list| list.version != version) {
            let names = names(read(path, buffer)?);
            self.0.insert(path.to_path_buf(), List { version, names });
        }
        Ok(self.0.get(path))
    }
}

/// An entry, or something else that is passed over: one bad entry says nothing of the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Container { id: String, names: Option<Vec<String>> },
    Other(#[allow(dead_code, reason = "only distinguished")] IgnoredAny),
}

fn names(list: Vec<Entry>) -> HashMap<String, String> {
    let named = list.into_iter().filter_map(|entry| match entry {
        Entry::Container { id, names } => Some((id, checked(names?.into_iter().next())?)),
        Entry::Other(_) => None,
    });
    named.collect()
}

#[cfg(test)]
pub fn names_in(text: &[u8]) -> serde_json::Result<HashMap<String, String>> {
    serde_json::from_slice(text).map(names)
}
