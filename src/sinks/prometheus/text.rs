//! The text of `/metrics` in the format a client asks for.

use std::fmt;
use std::io::{self, Write};

use axum::http::HeaderValue;
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// How a client wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// OpenMetrics 1.0, else the older text format (0.0.4).
    open_metrics: bool,
    gzip: bool,
}

impl Format {
    /// From the request's Accept and Accept-Encoding headers.
    pub fn of(accept: &str, accept_encoding: &str) -> Self {
        // What is asked for by name goes before the same wish for anything.
        let text = ["text/plain", "text/*", "*/*"].into_iter().find_map(|name| wish(accept, name));
        let identity = wish(accept_encoding, "identity");
        Format {
            open_metrics: prefers(wish(accept, "application/openmetrics-text"), text),
            gzip: prefers(wish(accept_encoding, "gzip"), identity),
        }
    }

    pub fn content_type(self) -> &'static str {
        match self.open_metrics {
            true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            false => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub fn content_encoding(self) -> Option<HeaderValue> {
        self.gzip.then(|| HeaderValue::from_static("gzip"))
    }

    /// Writes out the registry. Compressed, the plain text never exists as a whole.
    ///
    /// # Errors
    /// None in practice: memory takes all that is written.
    pub fn write(self, registry: &Registry) -> io::Result<Vec<u8>> {
        if self.gzip {
            // Fast: it is read once, on the same network.
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            self.write_to(&mut gzip, registry)?;
            return gzip.finish();
        }
        let mut text = Vec::new();
        self.write_to(&mut text, registry)?;
        Ok(text)
    }

    fn write_to<W: Write>(self, out: W, registry: &Registry) -> io::Result<()> {
        let mut lines =
            Lines { out, open_metrics: self.open_metrics, line: String::new(), help: String::new() };
        encode(&mut lines, registry).map_err(|_| io::Error::other("the registry cannot be encoded"))
    }
}

/// How much an element of a list such as `text/html, gzip;q=0.5` is wished for: 1 unless it says otherwise, 0 if it is
/// refused (RFC 9110, 12.4.2); `None`: it is not in the list.
fn wish(list: &str, wanted: &str) -> Option<f32> {
    let all = list.split(',').filter_map(|element| {
        let mut parts = element.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(wanted))?;
        let weight =
            parts.filter_map(|part| part.split_once('=')).find(|(key, _)| key.eq_ignore_ascii_case("q"));
        // One that is no number is not obeyed.
        Some(weight.and_then(|(_, q)| q.parse().ok()).filter(|q: &f32| q.is_finite()).unwrap_or(1.0))
    });
    // Of several versions of one kind, the one that is wished for most.
    all.reduce(f32::max)
}

/// What is wished for and not less than the other, which is served anyhow.
fn prefers(one: Option<f32>, other: Option<f32>) -> bool {
    one.is_some_and(|one| one > 0.0 && one >= other.unwrap_or(0.0))
}

/// Passes OpenMetrics on as it is, or line by line as the older format: there a counter's `# HELP` and
/// `# TYPE` bear its `_total`, and there is no `# UNIT` nor `# EOF`.
struct Lines<W> {
    out: W,
    open_metrics: bool,
    /// The line being written, for the older format.
    line: String,
    /// A `# HELP` line that waits for the type.
    help: String,
}

impl<W: Write> fmt::Write for Lines<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.open_metrics {
            return self.out.write_all(text.as_bytes()).map_err(|_| fmt::Error);
        }
        for piece in text.split_inclusive('\n') {
            self.line.push_str(piece);
            if piece.ends_with('\n') {
                self.end_line().map_err(|_| fmt::Error)?;
            }
        }
        Ok(())
    }
}

impl<W: Write> Lines<W> {
    fn end_line(&mut self) -> io::Result<()> {
        let line = &self.line;
        if line.starts_with("# HELP ") {
            self.help.clone_from(line);
        } else if let Some(name) = line.strip_prefix("# TYPE ").and_then(|l| l.strip_suffix(" counter\n")) {
            let help =
                self.help.strip_prefix("# HELP ").and_then(|h| h.strip_prefix(name)).unwrap_or_default();
            writeln!(self.out, "# HELP {name}_total{help}# TYPE {name}_total counter")?;
        } else if line.starts_with("# TYPE ") {
            self.out.write_all(self.help.as_bytes())?;
            self.out.write_all(line.as_bytes())?;
        } else if !line.starts_with("# UNIT ") && line != "# EOF\n" {
            self.out.write_all(line.as_bytes())?;
        }
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Unit;

    use super::*;

    fn some_registry() -> Registry {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        registry.register_with_unit("waited", "How long", Unit::Seconds, counter);
        let gauge: Gauge = Gauge::default();
        registry.register("level", "How high", gauge);
        registry
    }

    const OPEN: &str = "# HELP waited_seconds How long.\n# TYPE waited_seconds counter\n\
        # UNIT waited_seconds seconds\nwaited_seconds_total 3\n# HELP level How high.\n# TYPE level gauge\n\
        level 0\n# EOF\n";
    const OLDER: &str = "# HELP waited_seconds_total How long.\n# TYPE waited_seconds_total counter\n\
        waited_seconds_total 3\n# HELP level How high.\n# TYPE level gauge\nlevel 0\n";

    #[test]
    fn a_client_gets_what_it_asks_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, encoding, expected) in [
            (prometheus, "gzip", Format { open_metrics: true, gzip: true }),
            ("text/plain", "deflate, GZIP;q=1.0", Format { open_metrics: false, gzip: true }),
            ("*/*", "gzip;q=0", Format { open_metrics: false, gzip: false }),
            ("", "", Format { open_metrics: false, gzip: false }),
            // prometheus/common#928, kube-state-metrics#3010: what is preferred is not to be had here, the next is.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
                "br, zstd",
                Format { open_metrics: true, gzip: false },
            ),
            // opentelemetry-specification#5136: a weight is obeyed.
            (
                "application/openmetrics-text;q=0.1, text/plain;version=0.0.4;q=1",
                "identity;q=1, gzip;q=0.5",
                Format { open_metrics: false, gzip: false },
            ),
            (
                "text/plain; q=1, application/openmetrics-text; Q=0.9",
                "gzip, identity",
                Format { open_metrics: false, gzip: true },
            ),
            (
                "application/openmetrics-text;q=0.2, text/*;q=0.3",
                "gzip;q=0.2, identity;q=0.3",
                Format { open_metrics: false, gzip: false },
            ),
            ("application/openmetrics-text;q=0.2,*/*;q=0.8", "", Format { open_metrics: false, gzip: false }),
            // prometheus/common#966.
            ("*/*", "*", Format { open_metrics: false, gzip: false }),
            (
                "application/openmetrics-text;version=0.0.1, application/openmetrics-text;version=1.0.0;q=0",
                "gzip;q=high",
                Format { open_metrics: true, gzip: true },
            ),
        ] {
            assert_eq!(Format::of(accept, encoding), expected, "{accept} {encoding}");
        }
    }

    #[test]
    fn both_formats_say_the_same() {
        for (open_metrics, expected) in [(true, OPEN), (false, OLDER)] {
            let plain = Format { open_metrics, gzip: false }.write(&some_registry()).expect("written");
            assert_eq!(String::from_utf8(plain).expect("text"), expected);
            let gzip = Format { open_metrics, gzip: true }.write(&some_registry()).expect("written");
            let mut text = String::new();
            GzDecoder::new(&*gzip).read_to_string(&mut text).expect("gzip");
            assert_eq!(text, expected);
        }
    }
}
