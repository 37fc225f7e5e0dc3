//! How it went within the window: what the process gained since its beginning, as a picture, a sentence and a table.
//!
//! The surprise: the picture's labels are text of the page and not of the picture, which is stretched to whatever room
//! there is, while letters keep their size.

use std::io::{self, Write};

use super::markup::Text;
use crate::report::text::units::{change, change_cell, size, size_cell, time};
use crate::report::{Moment, Report};

/// Looks that are drawn, evenly chosen; a saved report may have any number.
const DRAWN_MAX: usize = 1200;
/// Rows of the table.
const ROWS_MAX: usize = 12;
/// Lines across, besides that at the top.
const STEPS: f64 = 4.0;
/// The picture's own units, each way.
const UNITS: f64 = 1000.0;

/// One of the kernel's counters.
type Counter = fn(&Moment) -> Option<u64>;

/// A line of the picture.
struct Series {
    name: &'static str,
    /// Its class in the style.
    class: &'static str,
    /// Bytes more than at the beginning, by look; `None` where not read.
    gains: Vec<Option<f64>>,
}

/// What the picture shows of the bytes gained.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    lowest: f64,
    highest: f64,
    step: f64,
}

/// Writes the section; nothing where there were not two looks.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let moments = evenly(&report.timeline, DRAWN_MAX);
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else { return Ok(()) };
    let seconds = last.seconds - first.seconds;
    if seconds.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return Ok(());
    }
    let series = series(&moments);
    writeln!(out, "<section aria-labelledby=\"timeline\">\n<h2 id=\"timeline\">How it went</h2>\n<figure>")?;
    writeln!(out, "<figcaption id=\"timeline-told\">{}</figcaption>", Text(&told(&series, first, last)))?;
    write_key(&series, out)?;
    write_picture(&series, &moments, out)?;
    write_table(&evenly(&moments, ROWS_MAX), out)?;
    writeln!(out, "</figure>\n</section>")
}

/// The same in a sentence.
fn told(series: &[Series], first: &Moment, last: &Moment) -> String {
    let gains = series.iter().skip(1).filter_map(|it| Some((it.name, (*it.gains.last()?)?)));
    let gains: Vec<String> = gains
        .map(|(name, gain)| format!("{} {}", name.to_lowercase(), change_cell(Some(gain as i64))))
        .collect();
    let parts = if gains.is_empty() { String::new() } else { format!(": {}", gains.join(", ")) };
    format!(
        "RSS went from {} to {} in {}{parts}. Bytes more than when the window began:",
        size(first.rss),
        size(last.rss),
        time(last.seconds - first.seconds),
    )
}

fn series(moments: &[Moment]) -> Vec<Series> {
    let kinds: [(&str, &str, Counter); 4] = [
        ("RSS", "rss", |moment| Some(moment.rss)),
        ("Anonymous", "anon", |moment| moment.anon),
        ("Files", "file", |moment| moment.file),
        ("Shared memory", "shmem", |moment| moment.shmem),
    ];
    let gains = |read: Counter| {
        let first = moments.iter().find_map(read).unwrap_or(0) as f64;
        moments.iter().map(move |moment| Some(read(moment)? as f64 - first)).collect::<Vec<_>>()
    };
    let series = kinds.map(|(name, class, read)| Series { name, class, gains: gains(read) });
    // What never moved is no line to follow; RSS is shown even then.
    let moves = |it: &Series| it.class == "rss" || it.gains.iter().flatten().any(|gain| *gain != 0.0);
    series.into_iter().filter(moves).collect()
}

fn write_key(series: &[Series], out: &mut dyn Write) -> io::Result<()> {
    // The sentence above says the same in numbers.
    writeln!(out, "<ul class=\"key\" aria-hidden=\"true\">")?;
    for Series { name, class, .. } in series {
        writeln!(
            out,
            "<li><svg viewBox=\"0 0 30 10\" class=\"{class}\"><line x1=\"0\" y1=\"5\" x2=\"30\" y2=\"5\"/></svg> {name}</li>"
        )?;
    }
    writeln!(out, "</ul>")
}

fn write_picture(series: &[Series], moments: &[Moment], out: &mut dyn Write) -> io::Result<()> {
    let scale = Scale::of(series.iter().flat_map(|it| it.gains.iter().copied().flatten()));
    let start = moments.first().map_or(0.0, |moment| moment.seconds);
    let seconds = moments.last().map_or(1.0, |moment| moment.seconds) - start;
    writeln!(
        out,
        "<div class=\"plot\">\n<svg viewBox=\"0 0 {UNITS} {UNITS}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-labelledby=\"timeline-told\">"
    )?;
    for gain in scale.lines() {
        let y = scale.place(gain);
        let class = if gain == 0.0 { " class=\"zero\"" } else { "" };
        writeln!(out, "<line{class} x1=\"0\" y1=\"{y:.1}\" x2=\"{UNITS}\" y2=\"{y:.1}\"/>")?;
    }
    for Series { class, gains, .. } in series {
        let points = moments.iter().zip(gains).filter_map(|(moment, gain)| {
            let x = ((moment.seconds - start) / seconds * UNITS).clamp(0.0, UNITS);
            Some(format!("{x:.1},{:.1}", scale.place((*gain)?)))
        });
        writeln!(out, "<polyline class=\"{class}\" points=\"{}\"/>", points.collect::<Vec<_>>().join(" "))?;
    }
    writeln!(out, "</svg>")?;
    for gain in scale.lines() {
        let label = if gain == 0.0 { "0".to_owned() } else { change(gain as i64) };
        let (at, label) = (scale.place(gain) / UNITS * 100.0, Text(&label));
        writeln!(out, "<span class=\"gain\" style=\"--at:{at:.1}%\" aria-hidden=\"true\">{label}</span>")?;
    }
    let (half, whole) = (time(seconds / 2.0), time(seconds));
    for (class, label) in [("begin", "0"), ("half", half.as_str()), ("end", whole.as_str())] {
        writeln!(out, "<span class=\"moment {class}\" aria-hidden=\"true\">{}</span>", Text(label))?;
    }
    writeln!(out, "</div>")
}

fn write_table(moments: &[Moment], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<details><summary>The same as a table</summary>\n<table>\n<thead><tr>")?;
    for column in ["After", "RSS", "Anonymous", "Files", "Shared memory"] {
        write!(out, "<th scope=\"col\">{column}</th>")?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for moment in moments {
        let cells = [Some(moment.rss), moment.anon, moment.file, moment.shmem];
        write!(out, "<tr><th scope=\"row\">{}</th>", Text(&time(moment.seconds)))?;
        for bytes in cells {
            let cell = bytes.map_or_else(|| "not known".to_owned(), size_cell);
            write!(out, "<td>{}</td>", Text(&cell))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table></details>")
}

/// At most so many of them, the first and the last among these.
fn evenly(moments: &[Moment], most: usize) -> Vec<Moment> {
    if moments.len() <= most {
        return moments.to_vec();
    }
    (0..most).map(|index| moments[index * (moments.len() - 1) / (most - 1)]).collect()
}

impl Scale {
    /// Holds zero and all of them, between lines at round numbers of bytes.
    fn of(gains: impl Iterator<Item = f64>) -> Self {
        let (least, most) =
            gains.fold((0.0_f64, 0.0_f64), |(least, most), gain| (least.min(gain), most.max(gain)));
        // Powers of two are round where units are binary.
        let step = ((most - least).max(STEPS * 1024.0) / STEPS).log2().ceil().exp2();
        Self { lowest: (least / step).floor() * step, highest: (most / step).ceil().max(1.0) * step, step }
    }

    fn lines(&self) -> impl Iterator<Item = f64> {
        let count = ((self.highest - self.lowest) / self.step).round() as u32;
        let (lowest, step) = (self.lowest, self.step);
        (0..=count).map(move |index| lowest + f64::from(index) * step)
    }

    /// Downwards, in the picture's units.
    fn place(&self, gain: f64) -> f64 {
        (self.highest - gain) / (self.highest - self.lowest) * UNITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;

    #[test]
    fn lines_are_at_round_numbers_and_hold_everything() {
        let lines = |gains: &[f64]| Scale::of(gains.iter().copied()).lines().collect::<Vec<_>>();
        assert_eq!(lines(&[0.0, 100.0 * MIB]), [0.0, 32.0 * MIB, 64.0 * MIB, 96.0 * MIB, 128.0 * MIB]);
        assert_eq!(lines(&[3.0 * MIB, -3.0 * MIB]), [-4.0 * MIB, -2.0 * MIB, 0.0, 2.0 * MIB, 4.0 * MIB]);
        assert_eq!(lines(&[]), [0.0, 1024.0]);
    }

    #[test]
    fn first_and_last_looks_are_kept() {
        let moments: Vec<Moment> =
            (0..5000).map(|second| Moment { seconds: f64::from(second), ..Moment::default() }).collect();
        let some = evenly(&moments, ROWS_MAX);
        assert_eq!((some.len(), some[0].seconds, some[11].seconds), (12, 0.0, 4999.0));
        assert_eq!(evenly(&moments[..3], ROWS_MAX).len(), 3);
    }

    #[test]
    fn any_looks_stay_in_the_picture() {
        let moment = |seconds, rss| Moment { seconds, rss, ..Moment::default() };
        let moments = [moment(-5.0, u64::MAX), moment(1e300, 0), moment(3.0, 1)];
        let series = series(&moments);
        let mut page = Vec::new();
        write_picture(&series, &moments, &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
