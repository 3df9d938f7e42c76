//! What a person sees: one line of plain English per event, aligned, with the time that it took.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

/// How a piece of text is set off, on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
}

/// Prints the course of a run. Colour is used on a terminal only, and never when `NO_COLOR` is set
/// (<https://no-color.org>).
#[derive(Debug)]
pub struct Printer {
    colour: bool,
    /// Lines are written whole, whoever writes.
    out: Mutex<io::Stdout>,
}

impl Printer {
    /// A printer on standard output.
    pub fn stdout() -> Self {
        let colour = io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { colour, out: Mutex::new(io::stdout()) }
    }

    /// A printer that never uses colour.
    pub fn plain() -> Self {
        Self { colour: false, out: Mutex::new(io::stdout()) }
    }

    /// The title of the run.
    pub fn title(&self, text: &str) {
        self.line(&self.styled(Style::Bold, text));
    }

    /// Begins a step.
    pub fn step(&self, number: usize, title: &str) {
        self.line("");
        self.line(&format!(
            "{} {}",
            self.styled(Style::Bold, &format!("{number:>2}")),
            self.styled(Style::Bold, title)
        ));
    }

    /// Begins a part that has no number.
    pub fn heading(&self, title: &str) {
        self.line("");
        self.line(&self.styled(Style::Bold, title));
    }

    /// Something happened as it should, after `took`.
    pub fn done(&self, took: Duration, text: impl Display) {
        self.event(&self.styled(Style::Good, "✓"), &self.styled(Style::Dim, &seconds(took)), text);
    }

    /// Something is worth knowing; it has no duration.
    pub fn note(&self, text: impl Display) {
        self.event("·", &" ".repeat(9), text);
    }

    /// Something went wrong.
    pub fn failed(&self, text: impl Display) {
        self.event(&self.styled(Style::Bad, "✗"), &" ".repeat(9), self.styled(Style::Bad, &text.to_string()));
    }

    /// Text shown as it is, set in under an event: a message, a log.
    pub fn block(&self, text: impl Display) {
        let margin = " ".repeat(14);
        for line in text.to_string().lines() {
            self.line(&format!("{margin}{} {}", self.styled(Style::Dim, "│"), printable(line)));
        }
    }

    /// A name and what it stands for.
    pub fn pair(&self, name: &str, text: impl Display) {
        self.line(&format!(
            "  {} {}",
            self.styled(Style::Dim, &format!("{name:<12}")),
            printable(&text.to_string())
        ));
    }

    fn event(&self, mark: &str, time: &str, text: impl Display) {
        self.line(&format!(
            "  {time} {mark} {}",
            if self.colour { text.to_string() } else { printable(&text.to_string()) }
        ));
    }

    fn styled(&self, style: Style, text: &str) -> String {
        let text = printable(text);
        if !self.colour {
            return text;
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    fn line(&self, text: &str) {
        // A closed pipe (`| head`) must not end a run that has processes to look after.
        if let Ok(mut out) = self.out.lock() {
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }
}

/// A duration as `  0.42 s`, nine characters wide up to an hour.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.1 { format!("{:>6.0} ms", seconds * 1000.0) } else { format!("{seconds:>7.2} s") }
}

/// Replaces control characters: what comes from a commit or a cluster must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A number with its thousands set apart: `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 pod`, `3 pods`.
pub fn counted(number: usize, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        grouped(u64::try_from(number).unwrap_or(u64::MAX)),
        if number == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_align() {
        let shown: Vec<String> =
            [0.0004, 0.042, 0.42, 12.3, 599.999].map(|s| seconds(Duration::from_secs_f64(s))).into();
        assert_eq!(shown, ["     0 ms", "    42 ms", "   0.42 s", "  12.30 s", " 600.00 s"]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [counted(1, "pod"), counted(0, "pod"), counted(1200, "pod")],
            ["1 pod", "0 pods", "1,200 pods"]
        );
    }

    #[test]
    fn a_commit_message_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\td"), "a\u{fffd}[2Jb\u{fffd}c\td");
    }
}
