//! Scripts: commands and what they say, as a terminal shows it.
//!
//! ```text
//! # A comment.
//! file map.yaml
//! kind: ConfigMap
//! end
//! $ kubectl apply -f map.yaml
//! configmap/shared created
//! exit 1
//! ```
//!
//! What a command says, on both outputs, follows it; `exit` and a number where that is not 0. In it `*` stands for any text in a
//! line, a line `...` for any number of lines, and `<namespace>` for the one that the script has to itself. Blanks in a row
//! count as one, for columns are as wide as ages make them. Commands run in a shell, in a folder with the script's files.

use std::path::Path;

use anyhow::{Context, bail};

/// One entry of a script.
#[derive(Debug, PartialEq)]
pub enum Entry {
    /// A file that commands read.
    File {
        /// Its name.
        name: String,
        /// Its content.
        content: String,
    },
    /// A command.
    Command(Step),
}

/// A command and what it has to say.
#[derive(Debug, PartialEq, Default)]
pub struct Step {
    /// The line of the script, counted from 1.
    pub line: usize,
    /// The shell command.
    pub command: String,
    /// The expected lines.
    pub says: Vec<String>,
    /// The expected exit code.
    pub code: i32,
}

/// Reads a script.
///
/// # Errors
///
/// When a line is in a place where it says nothing; it is named.
pub fn parse(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut entries = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = || format!("{}:{}", path.display(), number + 1);
        if let Some(command) = line.strip_prefix("$ ") {
            let step = Step { line: number + 1, command: command.to_owned(), ..Step::default() };
            entries.push(Entry::Command(step));
        } else if let Some(name) = line.strip_prefix("file ") {
            let mut content = String::new();
            loop {
                let (_, line) = lines.next().with_context(|| format!("{}: the file has no `end`", at()))?;
                if line == "end" {
                    break;
                }
                content.push_str(line);
                content.push('\n');
            }
            entries.push(Entry::File { name: name.to_owned(), content });
        } else if let Some(Entry::Command(step)) = entries.last_mut() {
            match line.strip_prefix("exit ").map(str::parse) {
                Some(Ok(code)) => step.code = code,
                _ => step.says.push(squeezed(line)),
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            bail!("{}: neither a command nor a file: {line}", at());
        }
    }
    for entry in &mut entries {
        if let Entry::Command(step) = entry {
            trim(&mut step.says);
        }
    }
    Ok(entries)
}

/// A text as lines that can be compared.
pub fn lines_of(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(squeezed).collect();
    trim(&mut lines);
    lines
}

fn squeezed(line: &str) -> String {
    let mut out = String::new();
    for character in line.trim_end().chars() {
        if !(character == ' ' && out.ends_with(' ')) {
            out.push(character);
        }
    }
    out
}

fn trim(lines: &mut Vec<String>) {
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let empty = lines.iter().take_while(|line| line.is_empty()).count();
    lines.drain(..empty);
}

/// Whether what was said is what was expected.
pub fn matches(expected: &[String], said: &[String]) -> bool {
    match expected.split_first() {
        None => said.is_empty(),
        Some((line, rest)) if line == "..." => (0..=said.len()).any(|skip| matches(rest, &said[skip..])),
        Some((line, rest)) => {
            said.split_first().is_some_and(|(first, others)| fits(line, first) && matches(rest, others))
        }
    }
}

/// Whether a line fits a pattern.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn patterns_fit_lines() {
    for (pattern, line, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*b*c", "a1b2c", true),
        ("a*b*c", "a1c2b", false),
        ("web-* 1", "web-5d7 1", true),
        ("ab*b", "ab", false),
    ] {
        assert_eq!(fits(pattern, line), expected, "{pattern} {line}");
    }
    let lines = |text: &str| lines_of(text);
    assert!(matches(&lines("a\n...\nc"), &lines("a\nb\nb\nc\n\n")));
    assert!(!matches(&lines("a\n...\nc"), &lines("a\nb")));
    assert_eq!(lines("\n a   b \n\n"), [" a b"]);
}
