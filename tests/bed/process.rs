//! Child processes that end with the test, however the test ends.

use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A running program whose output is kept line by line. Dropping it kills it.
pub struct Running {
    name: String,
    child: Child,
    said: Arc<Printed>,
    /// How many lines [`Running::line`] has passed.
    passed: usize,
}

#[derive(Default)]
struct Printed {
    output: Mutex<Output>,
    more: Condvar,
}

#[derive(Default)]
struct Output {
    lines: Vec<Line>,
    /// Streams that are read and have not ended: none means that no line will follow.
    streams: u8,
}

/// A line the program wrote.
#[derive(Clone, Debug)]
pub struct Line {
    pub to_stderr: bool,
    pub text: String,
    /// When it was read.
    pub at: Instant,
}

impl Running {
    /// Starts the program, without standard input and with both output streams read.
    ///
    /// The kernel kills it when the starting thread ends (the test's own, usually), so that a test that is
    /// killed leaves nothing behind.
    pub fn start(command: &mut Command) -> Running {
        let (stdout, to) = io::pipe().expect("a pipe");
        let running = Running::start_writing_to(command, to.into());
        running.said.output.lock().unwrap().streams += 1;
        running.said.read(stdout, false);
        running
    }

    /// The same with a standard output that is full: the program's first write to it does not return. It is
    /// to be kept as long as nobody is to read it.
    pub fn start_unread(command: &mut Command) -> (Running, PipeReader) {
        let (unread, mut full) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&full, true).expect("not to wait");
        while io::Write::write(&mut full, &[b'\n'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&full, false).expect("to wait");
        (Running::start_writing_to(command, full.into()), unread)
    }

    fn start_writing_to(command: &mut Command, stdout: Stdio) -> Running {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = spawn(command);
        // The command has a copy of the pipe, which would not end with the program.
        command.stdout(Stdio::null());
        let said = Arc::new(Printed::default());
        said.output.lock().unwrap().streams = 1;
        said.read(child.stderr.take().expect("piped"), true);
        Running { name, child, said, passed: 0 }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line, after the one last returned, that `wanted` accepts.
    ///
    /// # Panics
    /// When the program ends or [`PATIENCE`] passes without it, with all that the program said.
    pub fn line(&mut self, what: &str, mut wanted: impl FnMut(&Line) -> bool) -> Line {
        let end = Instant::now() + PATIENCE;
        let mut output = self.said.output.lock().unwrap();
        loop {
            while let Some(line) = output.lines.get(self.passed) {
                self.passed += 1;
                if wanted(line) {
                    return line.clone();
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if output.streams == 0 || left.is_zero() {
                let ended = if output.streams == 0 { "ended" } else { "runs on" };
                panic!("{} {ended} without a line: {what}; it said:\n{}", self.name, output.text());
            }
            output = self.said.more.wait_timeout(output, left).unwrap().0;
        }
    }

    /// The next line that contains `part`, as [`Running::line`].
    pub fn says(&mut self, part: &str) -> Line {
        self.line(part, |line| line.text.contains(part))
    }

    /// Everything it said until now.
    pub fn lines(&self) -> Vec<Line> {
        self.said.output.lock().unwrap().lines.clone()
    }

    /// Sends a signal (`libc::SIGTERM`, …).
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill() takes no pointer; the child is not reaped yet, so the id is still its own.
        let sent = unsafe { libc::kill(self.pid() as i32, signal) };
        assert_eq!(sent, 0, "signal {signal} to {}: {}", self.name, io::Error::last_os_error());
    }

    /// Waits for its end: how, and what it said.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`], with all that it said.
    pub fn end(mut self) -> (ExitStatus, Vec<Line>) {
        let end = Instant::now() + PATIENCE;
        let mut output = self.said.output.lock().unwrap();
        while output.streams > 0 {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} does not end; it said:\n{}", self.name, output.text());
            output = self.said.more.wait_timeout(output, left).unwrap().0;
        }
        let lines = std::mem::take(&mut output.lines);
        drop(output);
        (self.child.wait().expect("wait for a child"), lines)
    }

    /// Sends SIGTERM and waits for the end: how, what it said, and how long the end took.
    pub fn terminate(self) -> (ExitStatus, Vec<Line>, Duration) {
        let asked = Instant::now();
        self.signal(libc::SIGTERM);
        let (status, lines) = self.end();
        (status, lines, asked.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Printed {
    fn read(self: &Arc<Self>, stream: impl Read + Send + 'static, to_stderr: bool) {
        let said = self.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut bytes = Vec::new();
            while stream.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
                said.output.lock().unwrap().lines.push(Line { to_stderr, text, at: Instant::now() });
                said.more.notify_all();
                bytes.clear();
            }
            said.output.lock().unwrap().streams -= 1;
            said.more.notify_all();
        });
    }
}

impl Output {
    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("  {}\n", line.text)).collect()
    }
}

/// Starts a child that the kernel kills when the starting thread ends.
pub(super) fn spawn(command: &mut Command) -> Child {
    // SAFETY: between fork and exec only prctl(), which is async-signal-safe and takes no pointer here.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()))
}

/// Kills a child, if it runs still, and reaps it.
pub(super) fn end(child: &mut Child) {
    // An error means that it is reaped already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs a program to its end and gives what it wrote to standard output.
///
/// # Panics
/// When it fails, with all that it wrote.
pub fn output(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
    let said = [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(out.status.success(), "{command:?}: {}: {}", out.status, said.join("\n"));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// Makes the program run without any capability, as root though it be.
pub fn without_capabilities(command: &mut Command) -> &mut Command {
    const NO_ROOT: libc::c_ulong = 1; // SECBIT_NOROOT: user 0 gets no capabilities at exec
    // SAFETY: between fork and exec only prctl(), which is async-signal-safe and takes no pointer here.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_SECUREBITS, NO_ROOT) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}

/// Makes the program run as where the kernel has no IPv6 (`ipv6.disable=1`): no socket of that family can be made.
pub fn without_ipv6(command: &mut Command) -> &mut Command {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let step = |code: u32, if_not: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: if_not, k };
    // Of struct seccomp_data: the system call's number, and the lower half of its first argument.
    let (number, first) = (step(BPF_LD | BPF_W | BPF_ABS, 0, 0), step(BPF_LD | BPF_W | BPF_ABS, 0, 16));
    let unless = |value: u32, skip: u8| step(BPF_JMP | BPF_JEQ | BPF_K, skip, value);
    let end = |verdict: u32| step(BPF_RET | BPF_K, 0, verdict);
    let mut filter = [
        number,
        unless(libc::SYS_socket as u32, 3),
        first,
        unless(libc::AF_INET6 as u32, 1),
        end(libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: between fork and exec only prctl(), which is async-signal-safe; the filter lives as long as the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            match libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER as libc::c_ulong,
                &raw const program,
            ) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }
}
