//! The waterfall in a terminal.

use std::fmt::{self, Display, Formatter, Write};

use anstyle::{AnsiColor, Style};

use super::{View, actor, again, axis, note, title, uncertain};
use crate::api::{Actor, BirthOutcome, BirthPhase};
use crate::birth::certificate::length;
use crate::bounds::is_hidden;
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
        write!(f, "{bold}{}{bold:#}: ", Plain(&self.view.title))?;
        let total = status.total.as_deref().unwrap_or("an unknown time");
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
            writeln!(
                f,
                "  in phase {}{}: {}{}",
                failure.phase,
                Plain(&of),
                Plain(&failure.reason),
                Plain(&why)
            )?;
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

    fn phases(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        if status.phases.is_empty() {
            return Ok(());
        }
        let name = status.phases.iter().map(|p| title(p).chars().count()).max().unwrap_or(0).clamp(9, 32);
        // Beside the bar: the name, the start, the length and the blanks between.
        let bar = self.width.saturating_sub(name + 2 + 9 + 10 + 2).clamp(20, 100);
        let (from, to) = axis(status);
        writeln!(f, "\n{:name$} {:>9} {:>9}", "phase", "at", "took")?;
        for phase in &status.phases {
            let style = self.of(actor(&phase.name));
            let shown: String = title(phase).chars().take(name).collect();
            write!(f, "{style}{:name$}{style:#} ", Plain(&shown).to_string())?;
            write!(f, "{:>9} {:>9}  ", short(phase.start_ms), short(phase.duration_ms))?;
            let (before, within) = place(phase, from, to, bar);
            writeln!(f, "{}{style}{}{style:#}{}", " ".repeat(before), within, note(status, phase))?;
        }
        Ok(())
    }

    fn costs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        if status.breakdown.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<10} {:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "who", "phase", "processes", "syscalls", "on CPU", "waiting", "read", "written"
        )?;
        for cost in &status.breakdown {
            let style = self.of(cost.actor);
            let known = |n: Option<String>| n.unwrap_or_else(|| "-".into());
            writeln!(
                f,
                "{style}{:<10}{style:#} {:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                cost.actor.as_str(),
                Plain(&cost.phase).to_string(),
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
            write!(f, "{}{}", Plain(&step.action), uncertain(step.uncertainty_ms))?;
            if let Some(details) = &step.details {
                let used = 21 + step.action.chars().count();
                let room = self.width.saturating_sub(used + 2).max(24);
                let shown: String = match details.chars().count() {
                    n if n > room => details.chars().take(room - 1).chain(['…']).collect(),
                    _ => details.clone(),
                };
                write!(f, "  {dim}{}{dim:#}", Plain(&shown))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn tail(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.view.status;
        for restart in &status.restarts {
            writeln!(f, "\n{}", Plain(&again(restart)))?;
        }
        for part in &status.missing {
            writeln!(f, "\nnot known: {}: {}", Plain(&part.part), Plain(&part.why))?;
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

/// Text as a terminal may have it: whoever names a container must not write on the screen.
struct Plain<'a>(&'a str);

impl Display for Plain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if is_hidden(c) { '\u{fffd}' } else { c }))
    }
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
        let view = View { title: "a".into(), pod: None, status };
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
        let view = View { title: "a\u{7}b".into(), pod: None, status };
        let text = Waterfall { view: &view, width: 80, colour: false }.to_string();
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text}");
    }
}
