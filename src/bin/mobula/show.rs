//! Numbers, times and tables as people read them.
//!
//! Invariant: what came from the program is shown without control characters, which could rewrite the screen. Left out:
//! which numbers.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with these columns.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(columns);
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout())
        && size.ws_col > 0
    {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(size.ws_col);
    }
    table
}

/// A table as text, or a word about why there is none.
pub fn rows(table: &Table, none: &str) -> String {
    if table.is_empty() {
        return format!("{none}\n");
    }
    // Columns stand two spaces apart; spaces at the end of a line are of no use.
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// What was left out of a list, as a line of its own; nothing if nothing was.
pub fn left_out(left_out: u64, incomplete: bool) -> String {
    match (left_out, incomplete) {
        (0, false) => String::new(),
        (0, true) => "(there may be more)\n".to_owned(),
        (n, false) => format!("({} more; --limit shows more)\n", number(n)),
        (n, true) => format!("({} more or so; --limit shows more)\n", number(n)),
    }
}

/// Text that came from the program.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// 1234567 as 1,234,567.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Bytes in units of 1024.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut amount = n as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// A length of time in microseconds.
pub fn span(micros: f64) -> String {
    let seconds = micros / 1e6;
    match micros {
        m if m < 1.0 => format!("{:.0} ns", m * 1e3),
        m if m < 1e3 => format!("{m:.1} us"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m if m < 60e6 => format!("{seconds:.1} s"),
        m if m < 3600e6 => format!("{} m {} s", seconds as u64 / 60, seconds as u64 % 60),
        _ => format!("{} h {} m", seconds as u64 / 3600, seconds as u64 / 60 % 60),
    }
}

/// How long before `now` something was.
pub fn ago(now: u64, then: u64) -> String {
    span(now.saturating_sub(then) as f64)
}

/// An amount of a resource.
pub fn amount(x: f64) -> String {
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_exact() {
        assert_eq!(
            [number(0), number(999), number(1_234_567)],
            ["0", "999", "1,234,567"]
        );
        assert_eq!(
            [bytes(1023), bytes(1024), bytes(1 << 20), bytes(u64::MAX)],
            ["1023 B", "1.0 KiB", "1.0 MiB", "16384.0 PiB"]
        );
        assert_eq!(
            [
                span(0.25),
                span(12.0),
                span(1500.0),
                span(2e6),
                span(75e6),
                span(7260e6)
            ],
            [
                "250 ns", "12.0 us", "1.5 ms", "2.0 s", "1 m 15 s", "2 h 1 m"
            ]
        );
        assert_eq!([amount(4.0), amount(0.5), amount(0.0)], ["4", "0.5", "0"]);
        assert_eq!(ago(5, 9), "0 ns");
    }

    #[test]
    fn a_name_cannot_write_to_the_screen() {
        assert_eq!(clean("a\x1b[2Jb\n"), "a [2Jb ");
    }
}
