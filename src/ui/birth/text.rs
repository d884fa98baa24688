//! The waterfall in a terminal.

use std::fmt::{self, Display, Formatter};

use anstyle::{AnsiColor, Style};

use super::{View, actor, again, axis, note, title, uncertain};
use crate::api::{Actor, BirthCost, BirthOutcome, BirthPhase};
use crate::birth::input::length;
use crate::plain::Plain;
use crate::sinks::birth_text::{headline, slow};

/// A certificate as text of so many columns.
pub struct Waterfall<'a> {
    pub view: &'a View,
    pub width: usize,
    pub colour: bool,
}

impl Display for Waterfall<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.phases(f)?;
        self.costs(f)?;
        self.timeline(f)?;
        self.tail(f)
    }
}

impl Waterfall<'_> {
    fn style(&self, style: Style) -> Style {
        if self.colour { style } else { Style::new() }
    }

    fn of(&self, actor: Actor) -> Style {
        let colour = match actor {
            Actor::Scheduler => AnsiColor::Yellow,
            Actor::Kubelet => AnsiColor::Blue,
            Actor::Runtime => AnsiColor::Magenta,
            Actor::Cni => AnsiColor::Cyan,
            Actor::Kernel => AnsiColor::White,
            Actor::Container => AnsiColor::Green,
        };
        self.style(colour.on_default())
    }

    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        let bold = self.style(Style::new().bold());
        let total = status.total.as_deref().unwrap_or("an unknown time");
        let after = 24 + total.chars().count();
        let title = wrapped(&self.view.title, self.width.saturating_sub(after).max(20));
        for (n, line) in title.iter().enumerate() {
            write!(f, "{}{bold}{}{bold:#}", if n > 0 { "\n" } else { "" }, Plain(line))?;
        }
        write!(f, ": ")?;
        match status.outcome {
            Some(BirthOutcome::Complete) | None => writeln!(f, "born in {bold}{}{bold:#}", Plain(total))?,
            Some(outcome) => {
                let red = self.style(AnsiColor::Red.on_default().bold());
                writeln!(f, "{red}birth {}{red:#} after {}", outcome.as_str(), Plain(total))?;
            }
        }
        if let Some(failure) = &status.failure {
            let of = failure.container.as_ref().map(|c| format!(" of {c}")).unwrap_or_default();
            let why = failure.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
            let text = format!("in phase {}{of}: {}{why}", failure.phase, failure.reason);
            self.lines(f, "  ", &text)?;
        }
        let headline = status.kernel_stats.as_ref().map(headline).unwrap_or_default();
        if !headline.is_empty() {
            writeln!(f, "{headline}")?;
        }
        if let Some(phase) = &status.slow {
            let yellow = self.style(AnsiColor::Yellow.on_default());
            writeln!(f, "{yellow}slow{yellow:#}, {}", Plain(&slow(phase)))?;
        }
        Ok(())
    }

    /// Text in as many lines as it takes, each with this before it.
    fn lines(&self, f: &mut Formatter<'_>, before: &str, text: &str) -> fmt::Result {
        let columns = self.width.saturating_sub(before.len()).max(20);
        wrapped(text, columns).iter().try_for_each(|line| writeln!(f, "{before}{}", Plain(line)))
    }

    fn phases(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        if status.phases.is_empty() {
            return Ok(());
        }
        let longest = status.phases.iter().map(|p| title(p).chars().count()).max().unwrap_or(0);
        let name = longest.clamp(9, 32.min(self.width / 4));
        let notes = status.phases.iter().map(|p| note(status, p).chars().count()).max().unwrap_or(0);
        // Beside the bar: the name, the start, the length and the blanks between, and what there is to say.
        let bar = self.width.saturating_sub(name + 1 + 9 + 1 + 9 + 2 + notes + 1).clamp(8, 100);
        let (from, to) = axis(status);
        writeln!(f, "\n{:name$} {:>9} {:>9}", "phase", "at", "took")?;
        for phase in &status.phases {
            let style = self.of(actor(&phase.name));
            let shown = fitting(&title(phase), name);
            write!(f, "{style}{:name$}{style:#} ", Plain(&shown).to_string())?;
            write!(f, "{:>9} {:>9}  ", short(phase.start_ms), short(phase.duration_ms))?;
            let (before, within) = place(phase, from, to, bar);
            writeln!(f, "{}{style}{}{style:#}{}", " ".repeat(before), within, note(status, phase))?;
        }
        Ok(())
    }

    fn costs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        let some = status.missing.iter().any(|m| m.part == "records");
        let known = if some { "at least this much, as records were lost" } else { "" };
        self.table(f, known, &status.breakdown)?;
        self.table(f, "beside the birth, and not in its numbers", &status.beside)
    }

    fn table(&self, f: &mut Formatter<'_>, heading: &str, costs: &[BirthCost]) -> fmt::Result {
        if costs.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        if !heading.is_empty() {
            writeln!(f, "{heading}")?;
        }
        writeln!(
            f,
            "{:<9} {:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "who", "phase", "processes", "syscalls", "on CPU", "waiting", "read", "written"
        )?;
        for cost in costs {
            let style = self.of(cost.actor);
            let known = |n: Option<String>| n.unwrap_or_else(|| "-".into());
            writeln!(
                f,
                "{style}{:<9}{style:#} {:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                cost.actor.as_str(),
                fitting(&cost.phase, 8),
                cost.processes,
                known(cost.syscalls.map(|n| n.to_string())),
                known(cost.cpu_ms.map(length)),
                known(cost.wait_ms.map(length)),
                known(cost.read_bytes.map(bytes)),
                known(cost.written_bytes.map(bytes)),
            )?;
        }
        Ok(())
    }

    fn timeline(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        if status.timeline.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        let dim = self.style(Style::new().dimmed());
        for step in &status.timeline {
            let style = self.of(step.actor);
            write!(f, "{:>9}  {style}{:<9}{style:#} ", short(step.timestamp_ms), step.actor.as_str())?;
            // Beside it: the time, who did it, and the blanks between.
            let columns = self.width.saturating_sub(21);
            let uncertain = uncertain(step.uncertainty_ms);
            let action = fitting(&step.action, columns.saturating_sub(uncertain.chars().count()));
            write!(f, "{}{uncertain}", Plain(&action))?;
            if let Some(details) = &step.details {
                let room = columns.saturating_sub(action.chars().count() + uncertain.chars().count() + 2);
                // Where little is left of the line they have one of their own.
                if room < details.chars().count() && room < 24 {
                    write!(f, "\n{:21}{dim}{}{dim:#}", "", Plain(&fitting(details, columns)))?;
                } else {
                    write!(f, "  {dim}{}{dim:#}", Plain(&fitting(details, room)))?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn tail(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        for restart in &status.restarts {
            writeln!(f)?;
            self.lines(f, "", &again(restart))?;
        }
        for part in &status.missing {
            writeln!(f)?;
            self.lines(f, "", &format!("not known: {}: {}", part.part, part.why))?;
        }
        if let Some(trace) = &status.trace_id {
            writeln!(f, "\ntrace {}", Plain(trace))?;
        }
        Ok(())
    }
}

/// How many blanks, and what then, of a bar of `width` columns from `from` to `to`.
fn place(phase: &BirthPhase, from: f64, to: f64, width: usize) -> (usize, String) {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let scale = width as f64 / (to - from).max(1e-6);
    let start = ((phase.start_ms - from) * scale).clamp(0.0, width as f64);
    let end = ((phase.start_ms + phase.duration_ms - from) * scale).clamp(start, width as f64);
    let before = (start.floor() as usize).min(width - 1);
    // At the least a hair, so that every phase is seen.
    let eighths = (((end - before as f64) * 8.0).round() as usize).max(1);
    let mut bar: String = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    (before, bar)
}

/// A time after zero, for a column.
fn short(ms: f64) -> String {
    match ms {
        ms if ms.abs() >= 100_000.0 => format!("{:.0} s", ms / 1e3),
        ms if ms.abs() >= 10_000.0 => format!("{:.2} s", ms / 1e3),
        ms => format!("{ms:.1} ms"),
    }
}

fn bytes(n: i64) -> String {
    match n {
        n if n >= 10 << 20 => format!("{} MiB", n >> 20),
        n if n >= 10 << 10 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

/// Its beginning, if it is longer than so many columns.
fn fitting(text: &str, columns: usize) -> String {
    match text.chars().count() {
        n if n > columns => text.chars().take(columns.saturating_sub(1)).chain(['…']).collect(),
        _ => text.to_owned(),
    }
}

/// Lines of at most so many columns, broken between words; a word that is longer is broken itself.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let chars: Vec<char> = word.chars().collect();
        let blank = usize::from(used > 0);
        if used + blank + chars.len() > columns && used > 0 {
            lines.push(String::new());
            used = 0;
        }
        for (n, part) in chars.chunks(columns.max(1)).enumerate() {
            if n > 0 {
                lines.push(String::new());
                used = 0;
            }
            let Some(line) = lines.last_mut() else { continue };
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.extend(part);
            used += part.len();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PodBirthCertificateStatus, Source};

    fn phase(start: f64, length: f64) -> BirthPhase {
        BirthPhase {
            name: "create".into(),
            container: Some("we\u{1b}b".into()),
            start_ms: start,
            duration_ms: length,
            uncertainty_ms: None,
        }
    }

    #[test]
    fn bars_lie_where_the_time_is() {
        assert_eq!(place(&phase(0.0, 100.0), 0.0, 100.0, 10), (0, "█".repeat(10)));
        assert_eq!(place(&phase(50.0, 25.0), 0.0, 100.0, 10), (5, "██▌".into()));
        assert_eq!(place(&phase(100.0, 0.0), 0.0, 100.0, 10), (9, "█".into()), "seen at the end");
        assert_eq!(place(&phase(10.0, 0.0), 0.0, 100.0, 10), (1, "▏".into()), "a hair");
        assert_eq!(place(&phase(-5000.0, 10.0), 0.0, 100.0, 10).0, 0, "before the axis");
    }

    proptest::proptest! {
        #[test]
        fn nothing_leaves_its_columns(
            start in -1e6..1e6f64, length in 0.0..1e6f64, from in -10.0..0.0f64, to in 0.0..1e5f64, width in 20usize..100,
        ) {
            let (before, bar) = place(&phase(start, length), from, to, width);
            proptest::prop_assert!(before + bar.chars().count() <= width + 1 && !bar.is_empty());
        }
    }

    #[test]
    fn what_was_slow_and_what_was_started_again_is_told() {
        use crate::api::{ContainerRestart, Severity, SlowPhase};
        let mut status = PodBirthCertificateStatus::of(Source::Kernel);
        let (severity, phase) = (Severity::Warning, "image".to_owned());
        status.slow = Some(SlowPhase { severity, phase, took_ms: 360_000.0, usual_ms: 900.0 });
        status.restarts.push(ContainerRestart { container: "web".into(), ..ContainerRestart::default() });
        let view = View::new("a", None, &status).expect("a view");
        let text = Waterfall { view: &view, width: 80, colour: false }.to_string();
        let html = super::super::html::page(&view);
        for told in ["slow, warning: image took 360.0 s, usually 900 ms", "web was started again"] {
            assert!(text.contains(told) && html.to_lowercase().contains(told), "{told}: {text} {html}");
        }
    }

    #[test]
    fn names_do_not_write_on_the_screen() {
        let mut status = PodBirthCertificateStatus::of(Source::Kernel);
        status.phases.push(phase(0.0, 5.0));
        let failure = crate::birth::failure::failure(crate::birth::Phase::Listen, None, "x", None);
        // Whoever may write the object may write anything there.
        status.failure = Some(crate::api::BirthFailure { phase: "li\u{1b}[2Jsten".into(), ..failure });
        status.outcome = Some(BirthOutcome::Failed);
        let view = View::new("a\u{7}b\u{202e}", None, &status).expect("a view");
        let text = Waterfall { view: &view, width: 80, colour: false }.to_string();
        assert!(
            !text.contains(['\u{1b}', '\u{7}', '\u{202e}']) && text.contains("li\u{fffd}[2Jsten"),
            "{text}"
        );
        let html = super::super::html::page(&view);
        assert!(!html.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{html}");
    }

    #[test]
    fn eighty_columns_hold() {
        use crate::api::{BirthStep, MissingPart};
        let long = "n".repeat(63);
        let mut status = PodBirthCertificateStatus::of(Source::Kernel);
        status.total = Some("567 ms".into());
        for (name, container) in [("cgroup", None), ("listen", Some(long.clone())), ("ready", None)] {
            let (start_ms, duration_ms) = (100.0, 99_000.0);
            let uncertainty_ms = Some(350.0);
            status.phases.push(BirthPhase {
                name: name.into(),
                container,
                start_ms,
                duration_ms,
                uncertainty_ms,
            });
        }
        let cost: BirthCost = serde_json::from_value(serde_json::json!({
            "actor": "container", "phase": "network", "processes": 123_456, "syscalls": 123_456_789,
            "cpuMs": 99_999.0, "waitMs": 99_999.0, "readBytes": 99_999_999, "writtenBytes": 99_999_999,
        }))
        .expect("a part");
        status.breakdown = vec![cost.clone()];
        status.beside = vec![cost];
        for details in [None, Some("short".to_owned()), Some(long.repeat(3))] {
            for action in ["is made".to_owned(), format!("{long} is started by something else")] {
                status.timeline.push(BirthStep {
                    timestamp_ms: 99_999.0,
                    actor: Actor::Container,
                    action,
                    details: details.clone(),
                    uncertainty_ms: Some(350.0),
                });
            }
        }
        let why = format!("{long} {long} and something more that is not known of it");
        status.missing.push(MissingPart { part: "records".into(), why: why.clone() });
        status.failure =
            Some(crate::birth::failure::failure(crate::birth::Phase::Listen, Some(&long), "x", Some(why)));
        status.outcome = Some(BirthOutcome::Failed);
        let title = format!("{long} in namespace {long}, on node-of-some-length");
        let view = View::new(&title, None, &status).expect("a view");
        for width in [60, 80, 100, 160] {
            let text = Waterfall { view: &view, width, colour: false }.to_string();
            let least = width.max(80);
            let wide: Vec<&str> = text.lines().filter(|l| l.chars().count() > least).collect();
            assert!(wide.is_empty(), "{width}: {wide:#?}");
        }
    }
}
