//! Frames in a file: written as they come, read again in any order.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sinks::frames::Frame;
use crate::sinks::frames::lines::{self, Header};

/// A file that frames are added to.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    out: BufWriter<File>,
}

impl Recorder {
    /// Begins a file. One that is there is not overwritten.
    ///
    /// # Errors
    /// It is there, or cannot be made.
    pub fn create(path: &Path) -> Result<Recorder> {
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.with_context(|| format!("--record {}", path.display()))?;
        Ok(Recorder { path: path.to_owned(), out: BufWriter::new(file) })
    }

    /// Adds a line and hands it to the kernel: what was shown is there whatever happens to this program.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, line: &impl serde::Serialize) -> Result<()> {
        let written = lines::write(&mut self.out, line).and_then(|()| self.out.flush());
        written.with_context(|| format!("--record {}", self.path.display()))
    }
}

/// A file of frames. Of each it is known where it stands; frames are read when they are to be shown, as an hour of a full
/// node is more than a gigabyte.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    input: BufReader<File>,
    header: Header,
    /// Where each frame begins, bytes.
    at: Vec<u64>,
}

impl Recording {
    /// # Errors
    /// It cannot be read, is no recording, is of another version, or has no frame.
    pub fn open(path: &Path) -> Result<Recording> {
        Recording::read(path).with_context(|| format!("--replay {}", path.display()))
    }

    fn read(path: &Path) -> Result<Recording> {
        let mut input = BufReader::new(File::open(path)?);
        let header = lines::read_header(&mut input)?;
        let (mut at, mut line) = (Vec::new(), Vec::new());
        loop {
            let begins = input.stream_position()?;
            if !lines::read_line(&mut input, &mut line, at.len() as u64 + 2)? {
                break;
            }
            // The answers of /top, one after the other, are a recording too: each has a first line of its own.
            if !line.starts_with(b"{\"format\"") {
                at.push(begins);
            }
        }
        ensure!(!at.is_empty(), "has no frame");
        Ok(Recording { path: path.to_owned(), input, header, at })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many frames there are; at least one.
    pub fn frames(&self) -> usize {
        self.at.len()
    }

    /// The frame of this place, from 0.
    ///
    /// # Errors
    /// There is none, or its line is no frame.
    pub fn frame(&mut self, place: usize) -> Result<Frame> {
        let at = *self.at.get(place).context("no such frame")?;
        self.input.seek(SeekFrom::Start(at))?;
        let (mut line, number) = (Vec::new(), place as u64 + 2);
        lines::read_line(&mut self.input, &mut line, number)?;
        lines::frame(&line, number).with_context(|| format!("--replay {}", self.path.display()))
    }
}
