//! A plan in a few lines for a log: what works, and what does not, once for each cause.

use std::fmt::Display;

use super::{Plan, Shortfall, Verdict};

/// A line, and whether something is less than it could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub lacking: bool,
    pub text: String,
}

/// What one cause takes away from which probes.
struct Cause<'p> {
    shortfall: &'p Shortfall,
    probes: Vec<String>,
    /// Shortfalls of this cause: one is told in full.
    count: usize,
}

impl Plan {
    /// One line for each probe that works, and one for each cause that takes something away from any.
    pub fn summary(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut causes = Vec::new();
        tell("cpu", &self.cpu, &mut lines, &mut causes);
        tell("cgroups", &self.cgroups, &mut lines, &mut causes);
        tell("births", &self.births, &mut lines, &mut causes);
        lines.extend(causes.iter().map(|cause| Line { lacking: true, text: cause.text() }));
        lines
    }
}

fn tell<'p, H: Display>(
    probe: &str,
    verdict: &'p Verdict<H>,
    lines: &mut Vec<Line>,
    causes: &mut Vec<Cause<'p>>,
) {
    let told = match verdict {
        Verdict::Working { hook } => {
            lines.push(Line { lacking: false, text: format!("{probe}: working ({hook})") });
            return;
        }
        Verdict::Degraded { hook, .. } => format!("{probe}: degraded ({hook})"),
        Verdict::Unavailable(_) => format!("{probe}: unavailable"),
    };
    for shortfall in verdict.shortfalls() {
        let known = causes.iter_mut().find(|known| known.shortfall.cause == shortfall.cause);
        match known {
            None => causes.push(Cause { shortfall, probes: vec![told.clone()], count: 1 }),
            Some(cause) => {
                cause.count += 1;
                if !cause.probes.contains(&told) {
                    cause.probes.push(told.clone());
                }
            }
        }
    }
}

impl Cause<'_> {
    fn text(&self) -> String {
        let Shortfall { why, cause, what_to_do } = self.shortfall;
        let why = if self.count == 1 { why } else { cause };
        format!("{}: {why}: {what_to_do}", self.probes.join(", "))
    }
}
