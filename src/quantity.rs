//! Kubernetes quantities ("250m", "64Mi") as numbers, and back.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The value in the resource's base unit: cores, or bytes. `None` for what is no quantity.
pub fn value(quantity: &Quantity) -> Option<f64> {
    parse(&quantity.0)
}

/// The same of its text, by the grammar of apimachinery's `resource.Quantity`. (The crate kube_quantity refuses `1E`.)
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

/// The value in thousandths (millicores), rounded up as the API server's `MilliValue` does.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    value(quantity).map(to_milli)
}

/// Cores as millicores, rounded up; what differs from a whole number by less than a nanocore is it.
pub fn to_milli(cores: f64) -> i64 {
    (cores * 1e3 - 1e-6).ceil() as i64
}

/// Millicores as a quantity: `250m`, `2`.
pub fn from_milli(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (text, cores, millis, canonical) in [
            ("250m", 0.25, 250, "250m"),
            ("0.1", 0.1, 100, "100m"),
            ("2", 2.0, 2000, "2"),
            ("1e3", 1000.0, 1_000_000, "1000"),
            ("100500u", 0.1005, 101, "101m"),
        ] {
            let q = Quantity(text.into());
            assert!((value(&q).unwrap() - cores).abs() < 1e-9, "{text}");
            assert_eq!(milli(&q), Some(millis), "{text}");
            assert_eq!(from_milli(millis), canonical, "{text}");
        }
    }

    #[test]
    fn quantities() {
        let cases = [
            ("200m", 0.2),
            ("1.5", 1.5),
            (".5", 0.5),
            ("100n", 1e-7),
            ("250u", 2.5e-4),
            ("2k", 2000.0),
            ("1Ki", 1024.0),
            ("64Mi", 67_108_864.0),
            ("12E-1", 1.2),
            ("1E", 1e18),
            ("-1", -1.0),
        ];
        for (text, value) in cases {
            let got = parse(text).unwrap_or_else(|| panic!("{text} refused"));
            assert!((got - value).abs() <= value.abs() * 1e-12, "{text}: {got}");
        }
        for text in ["", "m", "1x", "1 ", "much", "1e", "e3", "1ee3", "--1", "1e99999", "½"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn millicores_survive(m in 0i64..1_000_000_000) {
            proptest::prop_assert_eq!(milli(&Quantity(from_milli(m))), Some(m));
        }
    }
}
