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
        Format {
            open_metrics: accepts(accept, "application/openmetrics-text"),
            gzip: accepts(accept_encoding, "gzip"),
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

/// Whether a list such as `text/html, gzip;q=0.5` has an element that is not refused by `q=0`.
fn accepts(list: &str, wanted: &str) -> bool {
    list.split(',').any(|element| {
        let mut parts = element.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        let refused = parts.any(|p| p.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0_f32));
        named && !refused
    })
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
