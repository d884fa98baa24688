//! A plan in a few lines for a log: what works, and what does not, once for each cause.

use super::{Plan, Planned, Shortfall};

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
        for planned in self.probes() {
            tell(planned, &mut lines, &mut causes);
        }
        lines.extend(causes.iter().map(|cause| Line { lacking: true, text: cause.text() }));
        lines
    }
}

fn tell<'p>(planned: Planned<'p>, lines: &mut Vec<Line>, causes: &mut Vec<Cause<'p>>) {
    let Planned { probe, hook, shortfalls } = planned;
    let told = match hook {
        Some(hook) if shortfalls.is_empty() => {
            lines.push(Line { lacking: false, text: format!("{probe}: working ({hook})") });
            return;
        }
        Some(hook) => format!("{probe}: degraded ({hook})"),
        None => format!("{probe}: unavailable"),
    };
    for shortfall in shortfalls {
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
