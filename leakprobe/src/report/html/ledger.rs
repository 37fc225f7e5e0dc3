//! The ledger: one bar of all owners, and the table that adds up to RSS.

use std::io::{self, Write};

use super::markup::{Text, percent};
use crate::claim::Component;
use crate::report::text::ledger::label;
use crate::report::text::owners::{Account, Owner, accounts};
use crate::report::text::parts;
use crate::report::text::units::{change_cell, share, size_cell};
use crate::report::{ComponentRow, Report};

/// Writes the section.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let accounts = accounts(&report.components);
    writeln!(out, "<section aria-labelledby=\"owners\">\n<h2 id=\"owners\">Who owns it</h2>")?;
    // The table says the same in numbers.
    writeln!(out, "<div class=\"whole\" aria-hidden=\"true\">")?;
    for account in accounts.iter().filter(|account| account.rss_bytes > 0) {
        let width = percent(account.rss_bytes, report.rss.end);
        let name = name(report, account);
        let size = size_cell(account.rss_bytes);
        let hue = hue(account.rows.first().map(|row| row.id));
        let (name, size) = (Text(&name), Text(&size));
        writeln!(out, "<span style=\"--w:{width:.3}%;--h:{hue}\" title=\"{name}, {size}\">{name}</span>")?;
    }
    writeln!(out, "</div>\n<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-labelledby=\"owners\">")?;
    writeln!(
        out,
        "<table class=\"ledger\">\n<thead><tr><th scope=\"col\">Owner</th><th scope=\"col\">Resident</th>"
    )?;
    writeln!(
        out,
        "<th scope=\"col\">Share</th><th scope=\"col\">Growth</th><th scope=\"col\">Known by</th></tr></thead>"
    )?;
    writeln!(out, "<tbody>")?;
    for account in &accounts {
        write_account(report, account, out)?;
    }
    writeln!(out, "</tbody>\n<tfoot>")?;
    if report.residual != 0 {
        let residual = Text(&change_cell(Some(report.residual))).to_string();
        writeln!(
            out,
            "<tr><th scope=\"row\">In no row (residual)</th><td>{residual}</td><td></td><td></td><td></td></tr>"
        )?;
    }
    let (rss, growth) = (size_cell(report.rss.end), growth(report.rss.growth, report));
    writeln!(
        out,
        "<tr><th scope=\"row\">RSS</th><td title=\"{} bytes\">{}</td><td>100 %</td><td>{growth}</td><td></td></tr>",
        report.rss.end,
        Text(&rss),
    )?;
    writeln!(out, "</tfoot>\n</table>\n</div>\n</section>")
}

fn name(report: &Report, account: &Account<'_>) -> String {
    match account.owner {
        Owner::RaceDetector => "Race detector (TSan)".to_owned(),
        Owner::One(_) => account.rows.first().map(|row| label(report, row)).unwrap_or_default(),
    }
}

/// A colour for an owner, the same in every report.
pub fn hue(component: Option<Component>) -> usize {
    let place = Component::ALL.iter().position(|other| Some(*other) == component);
    // The golden angle: neighbours differ most.
    place.unwrap_or(0) * 137 % 360
}

fn write_account(report: &Report, account: &Account<'_>, out: &mut dyn Write) -> io::Result<()> {
    let first = account.rows.first();
    let width = percent(account.rss_bytes, report.rss.end);
    let evidence = match account.owner {
        Owner::RaceDetector => "",
        Owner::One(_) => first.map_or("", |row| row.evidence.word()),
    };
    writeln!(
        out,
        "<tr><th scope=\"row\"><span class=\"bar\" style=\"--w:{width:.3}%;--h:{}\"></span>{}</th>\
         <td title=\"{} bytes\">{}</td><td>{}</td><td>{}</td><td>{evidence}</td></tr>",
        hue(first.map(|row| row.id)),
        Text(&name(report, account)),
        account.rss_bytes,
        Text(&size_cell(account.rss_bytes)),
        Text(&share(account.rss_bytes, report.rss.end)),
        growth(account.growth_bytes, report),
    )?;
    match account.owner {
        Owner::RaceDetector => account.rows.iter().try_for_each(|row| write_row(report, row, out)),
        Owner::One(_) => {
            let mut lines = account.rows.iter().flat_map(|row| parts::lines(report, row));
            lines.try_for_each(|line| {
                let growth = line.growth_bytes.map(|bytes| change_cell(Some(bytes))).unwrap_or_default();
                part(out, &line.label, line.rss_bytes, &Text(&growth).to_string(), "")
            })
        }
    }
}

fn write_row(report: &Report, row: &ComponentRow, out: &mut dyn Write) -> io::Result<()> {
    part(out, &row.label, row.rss, &growth(row.growth, report), row.evidence.word())
}

fn part(out: &mut dyn Write, label: &str, rss: u64, growth: &str, evidence: &str) -> io::Result<()> {
    writeln!(
        out,
        "<tr class=\"part\"><th scope=\"row\">{}</th><td title=\"{rss} bytes\">{}</td><td></td><td>{growth}</td>\
         <td>{evidence}</td></tr>",
        Text(label.trim()),
        Text(&size_cell(rss)),
    )
}

/// Nothing in a snapshot, which has no growth.
fn growth(bytes: Option<i64>, report: &Report) -> String {
    if bytes.is_none() && report.window.seconds == 0.0 {
        return String::new();
    }
    Text(&change_cell(bytes)).to_string()
}
