//! The report as one page.

use std::fmt::Write;

use crate::report::{Report, Suggestion, part, percent};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--soft:#666;--paper:#fff;--line:#ddd;--pass:#0969da;--deny:#cf222e}\
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--soft:#aaa;--paper:#0d1117;--line:#333;--pass:#58a6ff;--deny:#ff7b72}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:0 auto;padding:1rem}\
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .8rem;text-align:right;border-bottom:1px solid var(--line)}\
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto;border-bottom:1px solid var(--soft)}\
.pass{fill:var(--pass);opacity:.6}.deny{fill:var(--deny)}.curve{fill:none;stroke:var(--pass);stroke-width:2}\
text{font:11px system-ui,sans-serif;fill:var(--soft)}.asked{font-weight:600}";

const WIDTH: u64 = 760;
const HEIGHT: u64 = 140;

pub(crate) fn write(report: &Report) -> String {
    let mut page = String::new();
    // A string takes everything.
    let _ = write_to(&mut page, report);
    page
}

/// Nothing of a log is markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn write_to(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>traffik-replay</title>\
         <style>{STYLE}</style>\n<h1>What limits would have done</h1>\n"
    )?;
    let text = crate::text::write(report);
    let summary = text.split("\n\n").next().unwrap_or_default();
    for line in summary.lines() {
        writeln!(out, "<p>{}</p>", escape(line))?;
    }
    for limit in &report.limits {
        writeln!(
            out,
            "<h2>{}</h2>\n<p>{} at {}: {} of {} requests denied ({}), {} clients hurt.</p>",
            escape(&limit.name),
            escape(&limit.strategy),
            escape(&limit.rate),
            limit.denied,
            limit.matched,
            part(limit.denied, limit.matched),
            limit.clients_hurt
        )?;
        bars(out, &report.requests_over_time, &limit.over_time)?;
    }
    if !report.offenders.is_empty() {
        out.push_str("<h2>Denied most</h2>\n<table><tr><th>client<th>requests<th>denied</tr>\n");
        for one in &report.offenders {
            writeln!(
                out,
                "<tr><td>{}<td>{}<td>{}</tr>",
                escape(&one.name),
                one.requests,
                one.denied
            )?;
        }
        out.push_str("</table>\n");
    }
    report
        .suggestions
        .iter()
        .try_for_each(|one| suggestion(out, one))?;
    out.push_str("</html>\n");
    Ok(())
}

/// All requests of a part of the time, and what was denied of them in front.
fn bars(out: &mut String, all: &[u64], denied: &[u64]) -> std::fmt::Result {
    let most = all.iter().copied().max().unwrap_or(0).max(1);
    write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>Requests over time, and those denied</title>"
    )?;
    let width = WIDTH / (all.len() as u64).max(1);
    for ((all, denied), at) in all.iter().zip(denied).zip(0_u64..) {
        for (class, count) in [("pass", all), ("deny", denied)] {
            let height = count * (HEIGHT - 14) / most;
            let height = if *count > 0 { height.max(1) } else { 0 };
            write!(
                out,
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{height}\"/>",
                at * width,
                HEIGHT - height,
                width.saturating_sub(1).max(1)
            )?;
        }
    }
    writeln!(
        out,
        "<text x=\"2\" y=\"11\">at most {most} requests</text></svg>"
    )
}

fn suggestion(out: &mut String, one: &Suggestion) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Smallest {} for {}</h2>\n<p>{} requests of {} clients.</p>\n\
         <table><tr><th>denies at most<th>limit<th>clients hurt<th>requests denied</tr>",
        escape(&one.strategy),
        escape(&one.wish),
        one.requests,
        one.clients
    )?;
    for row in &one.rows {
        let class = if row.share == one.asked {
            " class=\"asked\""
        } else {
            ""
        };
        writeln!(
            out,
            "<tr{class}><td>{} of clients<td>{}<td>{}<td>{}</tr>",
            percent(row.share),
            escape(&row.rate),
            row.clients,
            row.denied
        )?;
    }
    out.push_str("</table>\n");
    curve(out, one)
}

/// How many clients a limit hurts: limits by their logarithm.
fn curve(out: &mut String, one: &Suggestion) -> std::fmt::Result {
    let (Some((most, _)), Some((least, _))) = (one.curve.first(), one.curve.last()) else {
        return Ok(());
    };
    let log = |limit: u32| u64::from(limit.max(1).ilog2()) * 1_000 + fraction(limit);
    let (low, high) = (log(*least), log(*most).max(log(*least) + 1));
    let x = |limit| 10 + (log(limit) - low) * (WIDTH - 20) / (high - low);
    let y = |hurt: u64| HEIGHT - 4 - hurt * (HEIGHT - 20) / one.clients.max(1);
    let mut path = String::new();
    for ((limit, hurt), at) in one.curve.iter().zip(0..) {
        write!(
            path,
            "{}{} {}",
            if at == 0 { 'M' } else { 'L' },
            x(*limit),
            y(*hurt)
        )?;
    }
    let (clients, right, bottom) = (one.clients, WIDTH - 10, HEIGHT - 8);
    writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>Clients hurt by a limit</title>\
         <path class=\"curve\" d=\"{path}\"/><text x=\"10\" y=\"11\">all {clients} clients</text>\
         <text x=\"10\" y=\"{bottom}\">limit {least}</text>\
         <text x=\"{right}\" y=\"{bottom}\" text-anchor=\"end\">limit {most}</text></svg>"
    )
}

/// The thousandths between a power of two and the next.
fn fraction(limit: u32) -> u64 {
    let power = 1_u64 << limit.max(1).ilog2();
    (u64::from(limit.max(1)) - power) * 1_000 / power
}
