//! Durations and sizes as people type them.

use std::time::Duration;

/// Nobody looks for longer at once, and a clock must be able to hold the end.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// A bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; try 10s, 2m or 0"))?,
    };
    if duration > MAX_DURATION {
        return Err("longer than a day: try 10s, 2m or 0".to_owned());
    }
    Ok(duration)
}

/// Units of a size, by powers of 1024, as in the report.
const UNITS: [&str; 5] = ["", "k", "m", "g", "t"];

/// "10MiB", "10M" and "10485760" are the same.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: try 10MiB, 512k or 1048576");
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim().to_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = UNITS.iter().position(|known| *known == unit).ok_or_else(wrong)?;
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * 1024_f64.powi(power as i32);
    if bytes < 1.0 || bytes > i64::MAX as f64 {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_and_without_a_unit() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("-1").is_err() && parse_duration("soon").is_err());
        assert!(parse_duration("1e19").is_err() && parse_duration("25h").is_err());
    }

    #[test]
    fn sizes_with_and_without_a_unit() {
        for same in ["10MiB", "10M", "10mb", "10 MiB", "10485760", "10240k", "10485760B"] {
            assert_eq!(parse_size(same), Ok(10 << 20), "{same}");
        }
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        for none in ["", "0", "-1", "MiB", "10 apples", "1e3", "99999999T", "0.1"] {
            assert!(parse_size(none).is_err(), "{none}");
        }
    }
}
