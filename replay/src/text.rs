//! The report for a terminal.

use std::fmt::Write;

use crate::report::{Report, part, percent};

pub(crate) fn write(report: &Report) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = report_to(&mut text, report);
    text
}

fn report_to(out: &mut String, report: &Report) -> std::fmt::Result {
    let seconds = (report.until_us - report.from_us) / 1_000_000;
    writeln!(
        out,
        "{} requests of {} clients in {} h {:02} min {:02} s",
        report.requests,
        report.clients,
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )?;
    if let Some((at, line)) = &report.first_unread {
        writeln!(
            out,
            "{} of {} lines are no requests; line {at}: {line}",
            report.unread, report.lines
        )?;
    }
    if report.late > 0 {
        writeln!(
            out,
            "{} were logged after later ones, and count as if they had come then: if they are many, give the files in order",
            report.late
        )?;
    }
    if !report.limits.is_empty() {
        limits(out, report)?;
    }
    for suggestion in &report.suggestions {
        writeln!(
            out,
            "\nSmallest {} for `{}`: {} requests of {} clients",
            suggestion.strategy, suggestion.wish, suggestion.requests, suggestion.clients
        )?;
        writeln!(
            out,
            "  {:>22}  {:<16} {:>14} {:>16}",
            "denies at most", "limit", "clients hurt", "requests denied"
        )?;
        for row in &suggestion.rows {
            let mark = if row.share == suggestion.asked {
                "->"
            } else {
                "  "
            };
            writeln!(
                out,
                "{mark}{:>10} of clients  {:<16} {:>14} {:>16}",
                percent(row.share),
                row.rate,
                row.clients,
                row.denied
            )?;
        }
    }
    Ok(())
}

fn limits(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<28} {:>12} {:>12} {:>9} {:>13}",
        "limit", "requests", "denied", "", "clients hurt"
    )?;
    for limit in &report.limits {
        let share = part(limit.denied, limit.matched);
        let Some(name) = limit.name.get(..28.min(limit.name.len())) else {
            continue;
        };
        writeln!(
            out,
            "{name:<28} {:>12} {:>12} {share:>9} {:>13}",
            limit.matched, limit.denied, limit.clients_hurt
        )?;
    }
    writeln!(
        out,
        "\n{} requests denied ({}), {} clients hurt ({})",
        report.denied,
        part(report.denied, report.requests),
        report.clients_hurt,
        part(report.clients_hurt, report.clients)
    )?;
    let [one, ten, fifty, all] = report.hurt_at_most;
    writeln!(
        out,
        "of these were denied up to 1 % of their requests: {one}, up to 10 %: {}, up to half: {}, more: {}",
        ten - one,
        fifty - ten,
        all - fifty
    )?;
    if !report.offenders.is_empty() {
        writeln!(
            out,
            "\n{:<40} {:>10} {:>10}",
            "denied most", "requests", "denied"
        )?;
    }
    for one in &report.offenders {
        let name: String = one
            .name
            .chars()
            .filter(|c| !c.is_control())
            .take(40)
            .collect();
        writeln!(out, "{name:<40} {:>10} {:>10}", one.requests, one.denied)?;
    }
    Ok(())
}
