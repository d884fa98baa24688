//! Kubernetes quantities ("250m", "64Mi") as numbers, and back.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube_quantity::ParsedQuantity;

/// The value in the resource's base unit: cores, or bytes. `None` for what is no quantity.
pub fn value(quantity: &Quantity) -> Option<f64> {
    ParsedQuantity::try_from(quantity).ok()?.to_bytes_f64()
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
        assert_eq!(value(&Quantity("64Mi".into())), Some(64.0 * 1024.0 * 1024.0));
        assert_eq!(value(&Quantity("much".into())), None);
    }

    proptest::proptest! {
        #[test]
        fn millicores_survive(m in 0i64..1_000_000_000) {
            proptest::prop_assert_eq!(milli(&Quantity(from_milli(m))), Some(m));
        }
    }
}
