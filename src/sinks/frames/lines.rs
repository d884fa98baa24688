//! Frames as lines of JSON: a recording, and the answer of an agent's `/top`. The first line says what it is.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::frame::{Frame, Shown, moment};

/// Grows when a reader of the former would misunderstand. A number that is only added does not count.
pub const VERSION: u32 = 1;

const FORMAT: &str = "kernel-gossip frames";

/// A line is no longer, bytes: 4,096 workloads with all that is known of each are some 4 MB.
pub const MAX_LINE: u64 = 64 << 20;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub format: Shown,
    pub version: u32,
    /// The node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Shown>,
    /// Another one after the agent was started again, which counts frames from 1 again.
    #[serde(rename = "started", with = "moment", default)]
    pub started_unix_ns: u64,
}

impl Header {
    pub fn new(node: Option<&str>, started_unix_ns: u64) -> Header {
        Header { format: Shown::new(FORMAT), version: VERSION, node: node.map(Shown::new), started_unix_ns }
    }
}

/// Why lines are not taken.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    #[error("is no recording of kernel-gossip top: its first line does not say so")]
    Foreign,
    #[error("is of version {0}, this program reads version {VERSION}: use the kernel-gossip that wrote it")]
    Version(u32),
    #[error("line {0} is no frame: {1}")]
    Frame(u64, serde_json::Error),
    #[error("line {0} is longer than {MAX_LINE} bytes")]
    Long(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes anything as one line.
///
/// # Errors
/// It cannot be written.
pub fn write(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Reads the first line.
///
/// # Errors
/// It is another's, or of another version.
pub fn read_header(input: &mut impl BufRead) -> Result<Header, LinesError> {
    let mut line = Vec::new();
    read_line(input, &mut line, 1)?;
    let header: Header = serde_json::from_slice(&line).map_err(|_| LinesError::Foreign)?;
    if *header.format != *FORMAT {
        return Err(LinesError::Foreign);
    }
    if header.version != VERSION {
        return Err(LinesError::Version(header.version));
    }
    Ok(header)
}

/// Reads one line into an emptied buffer; false at the end, and where the last line was not written to its end, as one is
/// not that is being written.
///
/// # Errors
/// It cannot be read, or is too long.
pub fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, LinesError> {
    line.clear();
    input.by_ref().take(MAX_LINE).read_until(b'\n', line)?;
    match line.last() {
        Some(b'\n') => Ok(true),
        Some(_) if line.len() as u64 == MAX_LINE => Err(LinesError::Long(number)),
        _ => Ok(false),
    }
}

/// Reads a line as a frame.
///
/// # Errors
/// It is none.
pub fn frame(line: &[u8], number: u64) -> Result<Frame, LinesError> {
    serde_json::from_slice(line).map_err(|error| LinesError::Frame(number, error))
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Blamed, Row, Said, Split};
    use super::*;
    use crate::plain::is_hidden;

    #[test]
    fn what_is_no_recording_of_this_version_is_refused_with_the_reason() {
        let of = |text: &str| read_header(&mut text.as_bytes());
        assert!(matches!(of(""), Err(LinesError::Foreign)));
        assert!(matches!(of("{}\n"), Err(LinesError::Foreign)));
        assert!(matches!(of("{\"format\":\"x\",\"version\":1}\n"), Err(LinesError::Foreign)));
        let next = of("{\"format\":\"kernel-gossip frames\",\"version\":2,\"more\":1}\n");
        assert!(matches!(next, Err(LinesError::Version(2))));
        let mut line = Vec::new();
        write(&mut line, &Header::new(Some("n\u{1b}1"), 7)).expect("in memory");
        let header = read_header(&mut line.as_slice()).expect("a header");
        assert_eq!((header.node.as_deref(), header.started_unix_ns), (Some("n\\u{1b}1"), 7));
    }

    /// A recording is a file of anybody's, an answer of `/top` that of whatever is at the address.
    #[test]
    fn no_recording_panics() {
        let header = Header::new(Some("n1"), 7);
        let blamed = || Blamed { name: Shown::new("b"), cgroup: Shown::new("/b"), seconds: 0.5 };
        let row = Row {
            name: Shown::new("shop/web/app"),
            lost_percent: 12.5,
            split: Some(Split::default()),
            blame: vec![blamed(), blamed()],
            ..Row::default()
        };
        let said = Said { text: Shown::new("throttled 80 %"), ..Said::default() };
        let frame = Frame {
            workloads: vec![row],
            whispers: vec![said.clone()],
            born: vec![said],
            ..Frame::default()
        };
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        write(&mut first, &header).expect("in memory");
        write(&mut second, &frame).expect("in memory");
        crate::testfuzz::Mutator::new(&[&first, &second]).each(|line| {
            let _ = read_header(&mut &*line);
            let (mut input, mut one) = (line, Vec::new());
            while read_line(&mut input, &mut one, 2).is_ok_and(|more| more) {
                let Ok(frame) = super::frame(&one, 2) else { continue };
                let names = frame.workloads.iter().flat_map(|row| [&row.name, &row.cgroup]);
                let texts = frame.whispers.iter().chain(&frame.born).map(|said| &said.text);
                names.chain(texts).for_each(|text| assert!(!text.chars().any(is_hidden), "{text}"));
            }
        });
    }

    #[test]
    fn a_line_that_is_not_written_to_its_end_is_none() {
        let mut input = &b"{\"number\":1}\n{\"num"[..];
        let mut line = Vec::new();
        assert!(read_line(&mut input, &mut line, 2).expect("a line"));
        assert_eq!(frame(&line, 2).expect("a frame").number, 1);
        assert!(!read_line(&mut input, &mut line, 3).expect("the end"));
        assert!(matches!(frame(b"{\"num", 3), Err(LinesError::Frame(3, _))));
    }
}
