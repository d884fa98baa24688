//! Bearer tokens in files, for OTLP receivers and the API server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use http::HeaderValue;

/// A bearer token in a file that someone else renews (a projected service-account token).
#[derive(Debug)]
pub struct TokenFile {
    /// Whose it is, for the log.
    of: &'static str,
    path: PathBuf,
    read: Mutex<Token>,
}

#[derive(Debug)]
struct Token {
    /// Of the file that was read.
    modified: Option<SystemTime>,
    header: HeaderValue,
    /// Whether the file could be read the last time.
    readable: bool,
}

impl TokenFile {
    /// # Errors
    /// The file cannot be read, or has nothing in it that may be sent: one line.
    pub fn open(of: &'static str, path: &Path) -> Result<Self, String> {
        let (modified, header) = read_token(path)?;
        Ok(TokenFile { of, path: path.into(), read: Mutex::new(Token { modified, header, readable: true }) })
    }

    /// The value of `authorization`, read again if the file has changed. A file that cannot be read leaves the last
    /// token in use, and is told once.
    pub fn value(&self) -> HeaderValue {
        let mut token = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = modified(&self.path).ok();
        if modified.is_none() || modified != token.modified {
            match read_token(&self.path) {
                Ok((modified, header)) => *token = Token { modified, header, readable: true },
                Err(error) if token.readable => {
                    tracing::warn!("{} token: {error}; the last one read stays in use", self.of);
                    token.readable = false;
                }
                Err(_) => {}
            }
        }
        token.header.clone()
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

fn read_token(path: &Path) -> Result<(Option<SystemTime>, HeaderValue), String> {
    // The time is taken first: a change in between is then seen as a change later.
    let modified = modified(path).ok();
    let token = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let token = token.trim();
    let header = (!token.is_empty()).then(|| format!("Bearer {token}").parse::<HeaderValue>().ok());
    let mut header = header.flatten().ok_or_else(|| format!("{}: no token in it", path.display()))?;
    header.set_sensitive(true);
    Ok((modified, header))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_renewed_token_is_used_and_a_lost_one_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let write = |text: &str, age: u64| {
            std::fs::write(&path, text).expect("write");
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            File::options().write(true).open(&path).and_then(|f| f.set_modified(time)).expect("set time");
        };
        write("one\n", 1000);
        let token = TokenFile::open("a", &path).expect("a token");
        assert_eq!(token.value(), "Bearer one");
        assert!(token.value().is_sensitive());
        write("two", 2000);
        assert_eq!(token.value(), "Bearer two");
        write("", 3000);
        assert_eq!(token.value(), "Bearer two");
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(token.value(), "Bearer two");
        write("three", 4000);
        assert_eq!(token.value(), "Bearer three");
    }

    #[test]
    fn an_empty_or_missing_token_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        assert!(TokenFile::open("a", &path).is_err_and(|e| e.contains("No such file")));
        std::fs::write(&path, " \n").expect("write");
        assert!(TokenFile::open("a", &path).is_err_and(|e| e.ends_with("no token in it")));
    }
}
