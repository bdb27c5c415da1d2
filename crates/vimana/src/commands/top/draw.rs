//! The state as lines: pure.

use super::state::{HEAD, Row, Sort, State};

/// How large the terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// A line as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub look: Look,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As any other.
    Plain,
    /// As what stands over a column.
    Head,
    /// As something that a person should see.
    Warning,
}

/// The columns: what stands over each, what it is sorted by, whether it stands to the right, and how wide it is at least.
const COLUMNS: [(&str, Sort, bool, usize); 8] = [
    ("STATE", Sort::State, false, 9),
    ("CPU", Sort::Cpu, true, 7),
    ("MEMORY", Sort::Memory, true, 9),
    ("IN/s", Sort::Network, true, 9),
    ("OUT/s", Sort::Network, true, 9),
    ("RESTARTS", Sort::Restarts, true, 8),
    ("SINCE", Sort::State, true, 5),
    ("ISOLATION", Sort::State, false, 9),
];
/// How wide names are at most.
const NAME_MAX: usize = 32;

/// Draws the state for a terminal of this size: never more lines than it has, nor longer ones.
pub fn draw(state: &State, size: Size) -> Vec<Line> {
    let rows = state.rows();
    let shown = rows.iter().skip(state.offset).take(size.rows.saturating_sub(HEAD).max(1));
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let name = longest.clamp("NAME".len(), NAME_MAX);
    let mut lines = head(state, rows.len());
    lines.push(Line { text: titles(state, name), look: Look::Head });
    lines.extend(shown.map(|row| line(row, name)));
    lines.truncate(size.rows);
    for line in &mut lines {
        let printable = hac::text::printable(&line.text, line.text.len());
        line.text = printable.chars().take(size.columns).collect();
    }
    lines
}

/// The [`HEAD`] lines, but for the last, which stands over the columns.
fn head(state: &State, found: usize) -> Vec<Line> {
    let plain = |text: String| Line { text, look: Look::Plain };
    let total = state.total();
    let reading = state.reading();
    let version = reading.map_or("", |reading| reading.node.version.as_str());
    let up = reading.map_or(0, |reading| reading.unix_ms.saturating_sub(reading.node.since_unix_ms));
    let first = format!(
        "vimana {version}, up {}; {} spacecores, {} ready{}",
        lasting(up),
        total.spacecores,
        total.ready,
        if state.held { "; held still" } else { "" }
    );
    let second = format!(
        "CPU {} of {}   memory {} of {} ({} promised)   in {}/s   out {}/s",
        cores(total.cpu_milli),
        cores(total.cpu_offered_milli),
        bytes(total.memory),
        bytes(total.memory_offered),
        bytes(total.memory_promised),
        bytes(total.received),
        bytes(total.sent)
    );
    let third = match (&state.trouble, state.typing, state.filter.as_str()) {
        (Some(trouble), ..) => Line { text: trouble.clone(), look: Look::Warning },
        (None, true, filter) => plain(format!("filter: {filter}_")),
        (None, false, "") => plain(String::new()),
        (None, false, filter) => plain(format!("filter: {filter} ({found} of {})", total.spacecores)),
    };
    vec![plain(first), plain(second), third, plain(String::new())]
}

fn titles(state: &State, name: usize) -> String {
    let mark = |sort: Sort, title: &str| match (state.sort == sort, state.reversed) {
        (true, false) => format!("{title}*"),
        (true, true) => format!("{title}^"),
        (false, _) => title.to_owned(),
    };
    let mut seen = Vec::new();
    let titles = COLUMNS.map(|(title, sort, ..)| {
        // The first column of its kind has the mark.
        let is_first = !seen.contains(&sort);
        seen.push(sort);
        if is_first { mark(sort, title) } else { title.to_owned() }
    });
    columns(&mark(Sort::Name, "NAME"), name, &titles)
}

fn line(row: &Row, name: usize) -> Line {
    let or_nothing = |value: Option<u64>, show: fn(u64) -> String| value.map_or_else(|| "-".to_owned(), show);
    let cells = [
        row.state.clone(),
        or_nothing(row.cpu_milli, percent),
        or_nothing(row.memory, bytes),
        or_nothing(row.received, bytes),
        or_nothing(row.sent, bytes),
        row.restarts.to_string(),
        lasting(row.since_ms),
        row.isolation.clone(),
    ];
    let look = if row.state == "failed" { Look::Warning } else { Look::Plain };
    Line { text: columns(&row.name, name, &cells), look }
}

fn columns(name: &str, width: usize, cells: &[String; 8]) -> String {
    let name: String = name.chars().take(width.saturating_add(1)).collect();
    let mut text = format!("{name:<width$}", width = width.saturating_add(1));
    for (cell, (_, _, right, width)) in cells.iter().zip(COLUMNS) {
        text.push_str(&if right { format!(" {cell:>width$}") } else { format!(" {cell:<width$}") });
    }
    text
}

fn percent(milli: u64) -> String {
    format!("{}.{} %", milli / 10, milli % 10)
}

fn cores(milli: u64) -> String {
    format!("{}.{:02}", milli / 1000, milli % 1000 / 10)
}

fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let place = usize::try_from(bytes.checked_ilog2().unwrap_or(0) / 10).unwrap_or(0);
    let unit = units.get(place).copied().unwrap_or("EiB");
    let shift = place.saturating_mul(10);
    let tenths = u128::from(bytes).saturating_mul(10) >> shift;
    match place {
        0 => format!("{bytes} {unit}"),
        _ => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

fn lasting(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
