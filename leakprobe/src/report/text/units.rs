//! Numbers as people read them: binary sizes, growth, rates, shares, times.
//!
//! Everything is rounded here and nowhere else. A share is "0 %" or "100 %" only if it is exactly that.
//! The surprise: number and unit are joined by [`GLUE`], a no-break space that the layout turns into a
//! space, so that no line ends between "10.3" and "MiB".

/// What stands between a number and its unit until the line is written.
pub const GLUE: char = '\u{a0}';

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// The value in the largest unit in which it still is at least 1, after rounding to `decimals`.
fn scaled(bytes: u64, decimals: i32) -> (f64, &'static str) {
    let step = 10_f64.powi(decimals);
    let mut value = bytes as f64;
    let mut unit = 0;
    // Compared after rounding: 1023.97 KiB is "1.0 MiB", not "1024.0 KiB".
    while (value * step).round() / step >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    (value, UNITS[unit])
}

/// A size: "343 B", "3.2 MiB", "61 MiB", "1.5 GiB".
pub fn size(bytes: u64) -> String {
    let (value, unit) = scaled(bytes, 1);
    if unit == "B" {
        return format!("{bytes}{GLUE}B");
    }
    if value < 9.95 {
        return format!("{value:.1}{GLUE}{unit}");
    }
    let (value, unit) = scaled(bytes, 0);
    if value < 9.95 { format!("{value:.1}{GLUE}{unit}") } else { format!("{value:.0}{GLUE}{unit}") }
}

/// From here on a table shows MiB, or "+200.0 KiB" would look like more than "+101.0 MiB" above it.
const MIB_CELL_MIN_BYTES: u64 = (1 << 20) / 20;

/// The bytes in MiB, where a table shows them so although they are less than one.
fn below_one_mib(bytes: u64) -> Option<f64> {
    let mib = bytes as f64 / f64::from(1 << 20);
    (bytes >= MIB_CELL_MIN_BYTES && mib < 1.0).then_some(mib)
}

/// A size in a table.
pub fn size_cell(bytes: u64) -> String {
    below_one_mib(bytes).map_or_else(|| size(bytes), |mib| format!("{mib:.1}{GLUE}MiB"))
}

/// A size that may not be known.
pub fn size_or_unknown(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), size)
}

/// A change: "+101.0 MiB", "-1.2 KiB", "+343 B", "0 B".
pub fn change(bytes: i64) -> String {
    let sign = match bytes {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    let (value, unit) = scaled(bytes.unsigned_abs(), 1);
    let decimals = usize::from(unit != "B");
    format!("{sign}{value:.decimals$}{GLUE}{unit}")
}

/// A change in a table: "." for none, so that the eye finds what changed.
pub fn change_cell(bytes: Option<i64>) -> String {
    match bytes {
        None => "unknown".to_owned(),
        Some(0) => ".".to_owned(),
        Some(bytes) => match below_one_mib(bytes.unsigned_abs()) {
            Some(mib) => format!("{}{mib:.1}{GLUE}MiB", if bytes < 0 { "-" } else { "+" }),
            None => change(bytes),
        },
    }
}

/// A change in so many seconds: "+10.3 MiB/s".
pub fn rate(bytes: i64, seconds: f64) -> String {
    format!("{}/s", change((bytes as f64 / seconds.max(f64::MIN_POSITIVE)).round() as i64))
}

/// A slope and what it may be off by, in one unit: "10.3 ± 0.3 MiB/s".
pub fn rate_within(per_second: f64, uncertainty: f64) -> String {
    let (value, unit) = scaled(per_second.abs().round() as u64, 1);
    let one = if value > 0.0 { per_second.abs() / value } else { 1.0 };
    let off = (uncertainty / one).max(0.1);
    let sign = if per_second < 0.0 { "-" } else { "" };
    format!("{sign}{value:.1}{GLUE}±{GLUE}{off:.1}{GLUE}{unit}/s")
}

/// A share: "84 %", "<1 %", ">99 %".
pub fn share(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    if part > 0 && percent < 0.5 {
        format!("<1{GLUE}%")
    } else if part < whole && percent >= 99.5 {
        format!(">99{GLUE}%")
    } else {
        format!("{percent:.0}{GLUE}%")
    }
}

/// A time: "3.2 s", "17 s", "5 min", "2.5 h", "4 days".
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 119.5 => (s, "s"),
        s if s < 119.5 * 60.0 => (s / 60.0, "min"),
        s if s < 47.5 * 3600.0 => (s / 3600.0, "h"),
        s => (s / 86_400.0, "days"),
    };
    let rounded = (value * 10.0).round() / 10.0;
    if rounded == 0.0 && seconds > 0.0 {
        return format!("<0.1{GLUE}s");
    }
    // "10 s" for a window that took 10.004 s, and no false precision beyond ten.
    let decimals = usize::from(rounded < 10.0 && rounded.fract() != 0.0);
    format!("{rounded:.decimals$}{GLUE}{unit}")
}

/// A number of things: "23,541".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// "1 thread", "48 threads".
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{}{GLUE}{}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: String) -> String {
        text.replace(GLUE, " ")
    }

    #[test]
    fn sizes_take_the_unit_that_keeps_them_short() {
        let sizes = [
            (0, "0 B"),
            (343, "343 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_189, "10 KiB"),
            (61 << 20, "61 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1023 << 20, "1023 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, expected) in sizes {
            assert_eq!(plain(size(bytes)), expected, "{bytes}");
        }
    }

    #[test]
    fn changes_are_signed_and_none_is_a_dot() {
        assert_eq!(plain(change_cell(Some(105_906_176))), "+101.0 MiB");
        assert_eq!(plain(change_cell(Some(-1229))), "-1.2 KiB");
        assert_eq!(plain(change_cell(Some(200 << 10))), "+0.2 MiB");
        assert_eq!(plain(change_cell(Some(-(1 << 20) + 9000))), "-1.0 MiB");
        assert_eq!(plain(change_cell(Some(-1))), "-1 B");
        assert_eq!(plain(change(i64::MIN)), "-8.0 EiB");
        assert_eq!(change_cell(Some(0)), ".");
        assert_eq!(change_cell(None), "unknown");
        assert_eq!(plain(rate(107_584_000, 10.0)), "+10.3 MiB/s");
        assert_eq!(plain(rate(1, 0.0)), "+8.0 EiB/s");
    }

    #[test]
    fn a_rate_and_its_uncertainty_have_one_unit() {
        let mib = f64::from(1 << 20);
        assert_eq!(plain(rate_within(10.3 * mib, 0.31 * mib)), "10.3 ± 0.3 MiB/s");
        assert_eq!(plain(rate_within(2.0 * mib, 100.0)), "2.0 ± 0.1 MiB/s");
        assert_eq!(plain(rate_within(300.0, 40.0)), "300.0 ± 40.0 B/s");
        assert_eq!(plain(rate_within(-3.0 * mib, 5.0 * mib)), "-3.0 ± 5.0 MiB/s");
        assert_eq!(plain(rate_within(0.0, 0.0)), "0.0 ± 0.1 B/s");
    }

    #[test]
    fn shares_never_round_to_nothing_or_to_all() {
        assert_eq!(plain(share(1, 1000)), "<1 %");
        assert_eq!(plain(share(999, 1000)), ">99 %");
        assert_eq!(plain(share(0, 1000)), "0 %");
        assert_eq!(plain(share(1000, 1000)), "100 %");
        assert_eq!(plain(share(0, 0)), "0 %");
    }

    #[test]
    fn times_and_counts() {
        let times = [
            (10.004, "10 s"),
            (0.01, "<0.1 s"),
            (3.21, "3.2 s"),
            (17.4, "17 s"),
            (300.0, "5 min"),
            (9000.0, "2.5 h"),
            (4e5, "4.6 days"),
        ];
        for (seconds, expected) in times {
            assert_eq!(plain(time(seconds)), expected);
        }
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(23_541), "23,541");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plain(counted(1, "thread", "threads")), "1 thread");
    }
}
