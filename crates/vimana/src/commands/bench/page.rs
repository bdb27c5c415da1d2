//! The report as one page of HTML that explains itself: no script, nothing fetched, light and dark, readable on a phone. Pure.
//!
//! The page is written so that it is well-formed XML too. The report stands in it as JSON, as `--json` prints it, for
//! whoever wants to compute with it.

mod figure;

use super::quantity::{Quantity, digits};
use super::report::{Cell, Report, Role, Row, Subject};

const STYLE: &str = include_str!("page/style.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::with_capacity(64 * 1024);
    out.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\"/>\n");
    out.push_str("<title>What isolation costs: vimana bench isolation</title>\n");
    out.push_str(&format!("<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"));
    header(&mut out, report);
    in_short(&mut out, report);
    figures(&mut out, report);
    all_numbers(&mut out, report);
    subjects(&mut out, report);
    meaning(&mut out, report);
    machine(&mut out, report);
    repeat(&mut out, report);
    out.push_str("</main>\n<script type=\"application/json\" id=\"report\">");
    // No end tag can come out of a string in it, and no comment begin.
    out.push_str(
        &report.json().to_string().replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"),
    );
    out.push_str("</script>\n</body>\n</html>\n");
    out
}

/// Text as it stands in HTML, also in an attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

fn fact<'a>(report: &'a Report, wanted: &str) -> Option<&'a str> {
    report.machine.iter().find(|(name, _)| *name == wanted).map(|(_, found)| found.as_str())
}

fn is_emulated(subject: &Subject) -> bool {
    subject.id.ends_with("-tcg")
}

fn header(out: &mut String, report: &Report) {
    out.push_str("<header>\n<p class=\"kicker\">vimana bench isolation</p>\n<h1>What isolation costs on this machine</h1>\n");
    out.push_str(
        "<p class=\"lead\">One small program, run under every isolation that this machine has; beside them the same program as a \
         plain process, and under the bare mechanisms that the isolations stand on.</p>\n",
    );
    let facts = ["Processor", "Memory", "System"].map(|name| fact(report, name)).into_iter().flatten();
    let facts: Vec<String> = facts.chain([report.date.as_str()]).map(escape).collect();
    out.push_str(&format!("<p class=\"facts\">{}</p>\n", facts.join(" · ")));
    if report.subjects.iter().any(|subject| is_emulated(subject) && subject.role == Role::Isolation) {
        out.push_str(
            "<p class=\"notice\"><strong>MicroVM (tcg) is emulated here.</strong> QEMU translates every instruction of the guest, \
             since no virtualisation by the processor was used. Its numbers are those of the emulator; on a machine whose KVM \
             works, the same microVM starts and computes at another order of magnitude. Compare it with bare QEMU (tcg), not \
             with a container.</p>\n",
        );
    }
    if fact(report, "Vimana").is_some_and(|version| version.contains("debug build")) {
        out.push_str("<p class=\"notice\"><strong>This was a debug build</strong> of Vimana: its starts are slower than a release's.</p>\n");
    }
    out.push_str("</header>\n");
}

fn row<'a>(report: &'a Report, id: &str) -> Option<&'a Row> {
    report.rows.iter().find(|row| row.quantity.id == id)
}

/// One sentence for each isolation, out of the numbers alone.
fn in_short(out: &mut String, report: &Report) {
    let mut items = String::new();
    for (index, subject) in report.subjects.iter().enumerate() {
        if subject.role != Role::Isolation {
            continue;
        }
        let value = |id: &str| {
            let row = row(report, id)?;
            Some((row, row.quantity.unit.show(row.cells.get(index)?.median()?)))
        };
        let mut parts = Vec::new();
        if let Some((row, text)) = value("start") {
            let bare = report.bare_name(subject).zip(report.ratio_to_bare(row, index));
            let bare =
                bare.map(|(bare, ratio)| format!(", {} times as long as {}", digits(ratio), escape(bare)));
            parts.push(format!("starts in <b>{text}</b>{}", bare.unwrap_or_default()));
        }
        if let Some((_, text)) = value("memory-beyond") {
            parts.push(format!("takes <b>{text}</b> beyond the workload"));
        }
        if let Some((row, _)) = value("cpu") {
            let percent = report.ratio(row, index).map(|ratio| digits(ratio * 100.0));
            parts.extend(percent.map(|percent| format!("computes at <b>{percent} %</b> of a plain process")));
        }
        if !parts.is_empty() {
            let name = escape(&subject.name);
            items.push_str(&format!("<li><span class=\"name\">{name}</span> {}.</li>\n", parts.join("; ")));
        }
    }
    if !items.is_empty() {
        out.push_str(&format!(
            "<section>\n<h2>In short</h2>\n<ul class=\"short\">\n{items}</ul>\n</section>\n"
        ));
    }
}

fn figures(out: &mut String, report: &Report) {
    let rounds =
        if report.rounds == 1 { "one round".to_owned() } else { format!("{} rounds", report.rounds) };
    out.push_str("<section>\n<h2>Measured</h2>\n");
    out.push_str(&format!(
        "<p>Large dots are medians of {rounds}, small ones the rounds. The dashed line is the plain process. The axes are \
         logarithmic: the same distance is the same ratio. × is a multiple of the plain process.</p>\n"
    ));
    out.push_str("<p class=\"legend\">");
    for (class, text) in
        [("reference", "plain process"), ("bare", "bare mechanism"), ("isolation", "isolation by Vimana")]
    {
        out.push_str(&format!(
            "<span><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle class=\"dot {class}\" cx=\"7\" cy=\"7\" r=\"5\"/></svg> {text}</span> "
        ));
    }
    out.push_str("</p>\n");
    for row in &report.rows {
        let Quantity { title, what, how, but, less_is_better, .. } = row.quantity;
        let better = if *less_is_better { "← less is better" } else { "more is better →" };
        out.push_str(&format!(
            "<article>\n<h3>{} <span class=\"better\">{better}</span></h3>\n<p>{}</p>\n",
            escape(title),
            escape(what)
        ));
        figure::figure(out, report, row);
        out.push_str(&format!(
            "<details><summary>How it was measured, and what it doesn’t say</summary>\n<p>{}</p>\n<p>{}</p>\n</details>\n</article>\n",
            escape(how),
            escape(but)
        ));
    }
    out.push_str("</section>\n");
}

fn all_numbers(out: &mut String, report: &Report) {
    out.push_str("<section>\n<h2>All numbers</h2>\n<div class=\"wide\">\n<table>\n<thead><tr><th></th>");
    for subject in &report.subjects {
        out.push_str(&format!("<th scope=\"col\">{}</th>", escape(&subject.name)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &report.rows {
        out.push_str(&format!("<tr><th scope=\"row\">{}</th>", escape(row.quantity.title)));
        for (index, cell) in row.cells.iter().enumerate() {
            match cell {
                Cell::Measured(_) => {
                    let value = cell.median().map(|value| row.quantity.unit.show(value)).unwrap_or_default();
                    let ratio =
                        report.ratio(row, index).map(|ratio| format!("<small>×{}</small>", digits(ratio)));
                    out.push_str(&format!("<td>{value}{}</td>", ratio.unwrap_or_default()));
                }
                Cell::Absent(reason) => out.push_str(&format!("<td title=\"{}\">–</td>", escape(reason))),
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

fn subjects(out: &mut String, report: &Report) {
    out.push_str("<section>\n<h2>What was compared</h2>\n<dl>\n");
    for subject in &report.subjects {
        out.push_str(&format!(
            "<dt>{}</dt>\n<dd>{}<br/><code>{}</code></dd>\n",
            escape(&subject.name),
            escape(&subject.what),
            escape(&subject.command)
        ));
    }
    out.push_str("</dl>\n");
    if !report.missing.is_empty() {
        out.push_str("<h3>Not on this machine</h3>\n<dl>\n");
        for (isolation, reason) in &report.missing {
            out.push_str(&format!("<dt>{}</dt>\n<dd>{}</dd>\n", escape(isolation), escape(reason)));
        }
        out.push_str("</dl>\n");
    }
    out.push_str("</section>\n");
}

fn meaning(out: &mut String, report: &Report) {
    out.push_str("<section>\n<h2>What the ratios mean, and what they don’t</h2>\n<ul>\n");
    let mut say = |text: &str| out.push_str(&format!("<li>{text}</li>\n"));
    say(
        "A ratio holds for this machine, these versions and this small program. Ratios travel better to other machines than the times do; neither travels for sure.",
    );
    say(
        "<b>Against the plain process</b> a ratio says what isolation costs as such. <b>Against the bare mechanism</b> (crun for a container, QEMU for a microVM) it says what Vimana adds: the keeper, the channel, the limits, the clearing away.",
    );
    say(
        "The bare mechanisms do less: nobody there checks the image’s digests, keeps logs, filters the network, or clears away behind a crash.",
    );
    say(
        "Speed says nothing about strength. A plain process is the fastest of all, and isolates nothing; a microVM has a kernel of its own between the workload and this machine; a container shares this machine’s kernel; a Wasm program can do only what it was granted.",
    );
    if report.subjects.iter().any(is_emulated) {
        say(
            "<b>Emulation (tcg)</b> executes a guest’s instructions by translating them. Computing, system calls and the start are each slower by a factor of their own, and none of these factors says anything about hardware virtualisation (kvm), under which a guest computes at nearly the machine’s speed.",
        );
    }
    say(
        "The time is this machine’s: a measurement lies between two lines that the program prints before and after a piece of work, whose amount grows until it takes long enough. Only where the first line was heard late, which the program’s own clock shows, that clock counts.",
    );
    say(
        "All take turns within each round, and every other round goes the other way round, so that a machine that grows slower meanwhile does so for all.",
    );
    out.push_str("</ul>\n</section>\n");
}

fn machine(out: &mut String, report: &Report) {
    out.push_str("<section>\n<h2>This machine</h2>\n<dl class=\"machine\">\n");
    for (name, found) in &report.machine {
        out.push_str(&format!("<dt>{}</dt>\n<dd>{}</dd>\n", escape(name), escape(found)));
    }
    out.push_str(&format!("<dt>Date</dt>\n<dd>{}</dd>\n</dl>\n</section>\n", escape(&report.date)));
}

fn repeat(out: &mut String, report: &Report) {
    let quick = if report.quick { " --quick" } else { "" };
    out.push_str("<section>\n<h2>Repeat it</h2>\n<pre><code>");
    out.push_str(&format!("vimana doctor                 # what this machine can isolate with\nvimana bench isolation --rounds {}{quick} --html isolation.html\nvimana bench isolation --json # the same numbers for programs</code></pre>\n", report.rounds));
    out.push_str(
        "<p>It needs no network and no compiler: the measuring program is part of <code>vimana</code>, which writes it as an image, a \
         bundle, a Wasm module and an initramfs into a folder that is removed at the end. A guest kernel must be there for microVMs \
         (<code>vimana kernel fetch</code>, once). This page holds the whole report as JSON, too, in the element \
         <code>#report</code>.</p>\n</section>\n",
    );
}

#[cfg(test)]
mod tests;
