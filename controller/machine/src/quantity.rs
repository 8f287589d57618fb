//! Amounts as Kubernetes writes them: `500m`, `2`, `1.5Gi`, `1e3`. Pure.

/// Suffixes with their scale in thousandths, as a fraction.
const UNITS: [(&str, u128, u128); 14] = [
    ("n", 1, 1_000_000),
    ("u", 1, 1_000),
    ("m", 1, 1),
    ("", 1_000, 1),
    ("k", 1_000_000, 1),
    ("M", 1_000_000_000, 1),
    ("G", 1_000_000_000_000, 1),
    ("T", 1_000_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000_000, 1),
    ("Ki", 1_000 << 10, 1),
    ("Mi", 1_000 << 20, 1),
    ("Gi", 1_000 << 30, 1),
    ("Ti", 1_000 << 40, 1),
    ("Pi", 1_000 << 50, 1),
];

/// An amount in thousandths, rounded up.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let value: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let below = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (times, over) = match UNITS.iter().find(|(name, ..)| *name == unit) {
        Some((_, times, over)) => (*times, *over),
        None => {
            let exponent: u32 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10_u128.checked_pow(exponent)?.checked_mul(1_000)?, 1)
        }
    };
    u64::try_from(value.checked_mul(times)?.div_ceil(below.checked_mul(over)?)).ok()
}

/// An amount for people, bytes rounded down.
pub fn show(resource: &str, milli: u64) -> String {
    if !is_bytes(resource) {
        return if milli.is_multiple_of(1_000) { (milli / 1_000).to_string() } else { format!("{milli}m") };
    }
    let bytes = milli / 1_000;
    if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) {
        format!("{}Gi", bytes >> 30)
    } else if bytes >= 1 << 20 {
        format!("{}Mi", bytes >> 20)
    } else {
        bytes.to_string()
    }
}

fn is_bytes(resource: &str) -> bool {
    resource.ends_with("memory") || resource.ends_with("storage") || resource.contains("hugepages-")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("500m", Some(500))]
    #[case("2", Some(2_000))]
    #[case("0.5", Some(500))]
    #[case(".5", Some(500))]
    #[case("1.5Gi", Some((3 << 29) * 1_000))]
    #[case("100Mi", Some((100 << 20) * 1_000))]
    #[case("1k", Some(1_000_000))]
    #[case("1e3", Some(1_000_000))]
    #[case("1Ei", None)]
    #[case("1n", Some(1))]
    #[case("1500u", Some(2))]
    #[case("", None)]
    #[case("m", None)]
    #[case("-1", None)]
    #[case("1.2.3", None)]
    #[case("1x", None)]
    #[case("99999999999999999999", None)]
    #[case("999999999999999999999999999999999999999999", None)]
    #[case("1e99", None)]
    fn reads(#[case] text: &str, #[case] milli: Option<u64>) {
        assert_eq!(parse(text), milli);
    }

    #[rstest]
    #[case("cpu", "1500m", "1500m")]
    #[case("cpu", "2", "2")]
    #[case("memory", "1Gi", "1Gi")]
    #[case("memory", "1536Mi", "1536Mi")]
    #[case("requests.memory", "3Mi", "3Mi")]
    #[case("memory", "100", "100")]
    #[case("pods", "7", "7")]
    fn shows(#[case] resource: &str, #[case] text: &str, #[case] shown: &str) {
        assert_eq!(show(resource, parse(text).unwrap()), shown);
    }
}
