//! The waterfall as a page of its own: no script, nothing from elsewhere.

use std::fmt::Write;

use super::{View, actor, again, axis, note, title, uncertain};
use crate::api::{Actor, BirthCost, BirthOutcome};
use crate::birth::input::length;
use crate::plain::plain;
use crate::sinks::birth_text::{headline, slow};

const WIDTH: f64 = 1100.0;
/// Left of the bars.
const LABELS: f64 = 190.0;
/// Right of them.
const MARGIN: f64 = 200.0;
/// Characters that fit there: of the widest some 7 units each.
const LABEL: usize = 25;
const ROW: f64 = 26.0;
const TOP: f64 = 34.0;

const STYLE: &str = "
:root { color-scheme: light dark; --fg: #1b1f24; --dim: #59636e; --bg: #fff; --line: #d8dee4; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6edf3; --dim: #9198a1; --bg: #0d1117; --line: #30363d; } }
body { font: 14px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem }
p { margin: .2rem 0 } .dim { color: var(--dim) } .failed { color: #cf222e; font-weight: 600 }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif } svg text { fill: var(--fg) } svg .dim { fill: var(--dim) }
svg line { stroke: var(--line) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { text-align: left; padding: .15rem .6rem .15rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
.n { text-align: right } td:nth-child(-n+3) { white-space: nowrap } td.dim { overflow-wrap: anywhere; width: 60% } i { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .4em }
";

/// The page.
pub fn page(view: &View) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, view);
    out
}

fn write(out: &mut String, view: &View) -> std::fmt::Result {
    let status = &view.status;
    let name = escape(&view.title);
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Birth of {name}</title>"
    )?;
    writeln!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>"
    )?;
    let total = escape(status.total.as_deref().unwrap_or("an unknown time"));
    let born = match status.outcome {
        Some(BirthOutcome::Complete) | None => format!("born in {total}"),
        Some(outcome) => format!("<span class=\"failed\">birth {} after {total}</span>", outcome.as_str()),
    };
    writeln!(out, "<h1>{name}: {born}</h1>")?;
    if let Some(f) = &status.failure {
        let of = f.container.as_ref().map(|c| format!(" of {c}")).unwrap_or_default();
        let why = f.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
        let text = format!("In phase {}{of}: {}{why}", f.phase, f.reason);
        writeln!(out, "<p class=\"failed\">{}</p>", escape(&text))?;
    }
    if let Some(stats) = &status.kernel_stats {
        writeln!(out, "<p>{}</p>", escape(&headline(stats)))?;
    }
    if let Some(phase) = &status.slow {
        writeln!(out, "<p>Slow, {}</p>", escape(&slow(phase)))?;
    }
    let mut legend = String::new();
    for actor in [Actor::Scheduler, Actor::Kubelet, Actor::Runtime, Actor::Cni, Actor::Container] {
        write!(legend, "<i style=\"background:{}\"></i>{} &nbsp; ", colour(actor), actor.as_str())?;
    }
    writeln!(out, "<p class=\"dim\">{legend}</p>")?;
    bars(out, view)?;
    costs(out, view)?;
    timeline(out, view)?;
    for restart in &status.restarts {
        writeln!(out, "<p>{}</p>", escape(&again(restart)))?;
    }
    for part in &status.missing {
        writeln!(out, "<p class=\"dim\">Not known: {}: {}</p>", escape(&part.part), escape(&part.why))?;
    }
    if let Some(trace) = &status.trace_id {
        writeln!(out, "<p class=\"dim\">Trace {}</p>", escape(trace))?;
    }
    writeln!(out, "</body></html>")
}

fn bars(out: &mut String, view: &View) -> std::fmt::Result {
    let status = &view.status;
    let (from, to) = axis(status);
    let scale = (WIDTH - LABELS - MARGIN) / (to - from).max(1e-6);
    let x = |ms: f64| LABELS + (ms - from).clamp(0.0, to - from) * scale;
    let height = TOP + ROW * status.phases.len() as f64 + 8.0;
    writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Phases over time\">")?;
    let step = grid(to - from);
    let mut tick = (from / step).ceil() * step;
    while tick <= to {
        let at = x(tick);
        writeln!(out, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"22\" y2=\"{height}\"/>")?;
        writeln!(
            out,
            "<text class=\"dim\" x=\"{at:.1}\" y=\"14\" text-anchor=\"middle\">{tick:.0} ms</text>"
        )?;
        tick += step;
    }
    for (row, phase) in status.phases.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let (start, end) = (x(phase.start_ms), x(phase.start_ms + phase.duration_ms));
        let wide = (end - start).max(2.0);
        let name = escape(&title(phase));
        let took = format!("{}{}", length(phase.duration_ms), note(status, phase));
        let fill = colour(actor(&phase.name));
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\"><title>{name}</title>{}</text>",
            LABELS - 8.0,
            y + 13.0,
            escape(&short(&title(phase), LABEL))
        )?;
        writeln!(
            out,
            "<rect x=\"{start:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"18\" rx=\"2\" fill=\"{fill}\"><title>{name}: \
             {took}, from {:.1} ms</title></rect>",
            phase.start_ms
        )?;
        writeln!(
            out,
            "<text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\">{took}</text>",
            start + wide + 6.0,
            y + 13.0
        )?;
    }
    writeln!(out, "</svg>")
}

/// A round step that gives five to ten lines.
fn grid(span: f64) -> f64 {
    let raw = span.max(1e-3) / 8.0;
    let base = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * base).find(|s| *s >= raw).unwrap_or(base * 10.0)
}

fn costs(out: &mut String, view: &View) -> std::fmt::Result {
    table(out, "Who did how much", &view.status.breakdown)?;
    table(out, "Beside the birth, and not in its numbers", &view.status.beside)
}

fn table(out: &mut String, heading: &str, costs: &[BirthCost]) -> std::fmt::Result {
    if costs.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<h2>{heading}</h2><table><tr><th>who<th>phase<th class=n>processes<th class=n>system calls<th class=n>on \
         CPU<th class=n>waiting for it<th class=n>page faults</tr>"
    )?;
    for cost in costs {
        let known = |n: Option<String>| n.unwrap_or_else(|| "–".into());
        writeln!(
            out,
            "<tr><td><i style=\"background:{}\"></i>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td \
             class=n>{}</tr>",
            colour(cost.actor),
            cost.actor.as_str(),
            escape(&cost.phase),
            cost.processes,
            known(cost.syscalls.map(|n| n.to_string())),
            known(cost.cpu_ms.map(length)),
            known(cost.wait_ms.map(length)),
            known(cost.page_faults.map(|n| n.to_string())),
        )?;
    }
    writeln!(out, "</table>")
}

fn timeline(out: &mut String, view: &View) -> std::fmt::Result {
    if view.status.timeline.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>What happened</h2><table>")?;
    for step in &view.status.timeline {
        writeln!(
            out,
            "<tr><td class=n>{:.1}&nbsp;ms<td><i style=\"background:{}\"></i>{}<td>{}{}<td class=dim>{}</tr>",
            step.timestamp_ms,
            colour(step.actor),
            step.actor.as_str(),
            escape(&step.action),
            uncertain(step.uncertainty_ms),
            escape(step.details.as_deref().unwrap_or_default()),
        )?;
    }
    writeln!(out, "</table>")
}

/// Its beginning and its end, if it is longer.
fn short(text: &str, most: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    if all.len() <= most {
        return text.to_owned();
    }
    let end = most / 3;
    all[..most - 1 - end].iter().chain(&['…']).chain(&all[all.len() - end..]).collect()
}

fn colour(actor: Actor) -> &'static str {
    match actor {
        Actor::Scheduler => "#bf8700",
        Actor::Kubelet => "#0969da",
        Actor::Runtime => "#8250df",
        Actor::Cni => "#1b7c83",
        Actor::Kernel => "#6e7781",
        Actor::Container => "#1a7f37",
    }
}

/// Text as HTML has it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(plain(c)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BirthFailure, BirthPhase, BirthStep, PodBirthCertificateStatus, Source};

    #[test]
    fn what_is_named_stays_text() {
        let mut status = PodBirthCertificateStatus::of(Source::Kernel);
        status.phases.push(BirthPhase {
            name: "create".into(),
            container: Some("</svg><script>alert(1)</script>".into()),
            start_ms: 1.0,
            duration_ms: 2.0,
            uncertainty_ms: None,
        });
        let html = page(&View::new("<b>\"x\"", None, &status).expect("a view"));
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(!html.contains("http"), "nothing from elsewhere");
    }

    /// What containers may be called and their programs be given: 64 KiB of markup, of what a terminal obeys, of what turns
    /// the order of reading.
    #[test]
    fn hostile_text_is_shown_and_does_nothing() {
        let long = format!("'\"><img src=x onerror=alert(1)>{}", "x".repeat(64 << 10));
        for text in ["<script>alert('1')</script>", "\u{1b}[2J\u{7}", "\u{202e}evitcani", "a\nb\u{85}", &long]
        {
            let mut status = PodBirthCertificateStatus::of(Source::Kernel);
            status.failure = Some(BirthFailure {
                phase: text.into(),
                container: Some(text.into()),
                reason: text.into(),
                message: Some(text.into()),
            });
            status.timeline.push(BirthStep {
                timestamp_ms: 1.0,
                actor: Actor::Container,
                action: text.into(),
                details: Some(text.into()),
                uncertainty_ms: None,
            });
            let html = page(&View::new(text, None, &status).expect("a view"));
            let hidden = |c: char| c != '\n' && crate::plain::is_hidden(c);
            assert!(
                !html.contains("<script") && !html.contains("<img") && !html.contains(hidden),
                "{text:.40}"
            );
        }
    }

    #[test]
    fn a_long_name_is_told_where_it_is_pointed_at_and_fits_beside_the_bars() {
        let name = "a".repeat(30) + &"b".repeat(33);
        let mut status = PodBirthCertificateStatus::of(Source::Kernel);
        status.phases.push(BirthPhase {
            name: "create".into(),
            container: Some(name.clone()),
            start_ms: 1.0,
            duration_ms: 2.0,
            uncertainty_ms: None,
        });
        let html = page(&View::new("x", None, &status).expect("a view"));
        assert!(html.contains(&format!("<title>create {name}</title>")), "{html}");
        assert!(
            html.contains(&format!("</title>create {}…{}</text>", "a".repeat(9), "b".repeat(8))),
            "{html}"
        );
    }

    #[test]
    fn the_grid_is_round() {
        assert_eq!([grid(8.0), grid(600.0), grid(1700.0), grid(0.4)], [1.0, 100.0, 500.0, 0.05]);
    }
}
