//! Kubernetes quantities (`250m`, `1.5`, `2Ki`, `1e3`) as numbers.
//!
//! The grammar is that of apimachinery's `resource.Quantity`.

/// The value of a quantity in its base unit (cores, bytes); `None` if it is not one.
pub fn parse(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let scale = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => f64::powi(2.0, 10),
        "Mi" => f64::powi(2.0, 20),
        "Gi" => f64::powi(2.0, 30),
        "Ti" => f64::powi(2.0, 40),
        "Pi" => f64::powi(2.0, 50),
        "Ei" => f64::powi(2.0, 60),
        exponent => f64::powi(10.0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let value = number * scale;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities() {
        let cases = [
            ("200m", 0.2),
            ("1", 1.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("100n", 1e-7),
            ("250u", 2.5e-4),
            ("2k", 2000.0),
            ("1Ki", 1024.0),
            ("64Mi", 67_108_864.0),
            ("1e3", 1000.0),
            ("12E-1", 1.2),
            ("1E", 1e18),
            ("-1", -1.0),
        ];
        for (text, value) in cases {
            let got = parse(text).unwrap_or_else(|| panic!("{text} refused"));
            assert!((got - value).abs() <= value.abs() * 1e-12, "{text}: {got}");
        }
        for text in ["", "m", "1x", "1 ", "abc", "1e", "e3", "1ee3", "--1", "1e99999", "½"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
