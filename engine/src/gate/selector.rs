//! Selectors of series: `http_requests_total{code=~"5..",method!="GET"}`.

use regex::{Regex, RegexBuilder};

use super::exposition::Series;

/// Which series are meant, in the notation of Prometheus' instant vector selectors. Regular expressions
/// are anchored at both ends, and a label that a series does not have counts as empty, as there.
#[derive(Debug, Clone)]
pub struct Selector {
    name: Option<String>,
    matchers: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    test: Test,
    negated: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    Matches(Regex),
}

/// A selector that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector {selector:?}: {message}")]
pub struct BadSelector {
    /// The text.
    pub selector: String,
    /// What is wrong.
    pub message: String,
}

const MAX_SELECTOR: usize = 4096;
/// Bound of a compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// [`BadSelector`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let error = |message: String| {
            let selector = text.chars().take(200).collect();
            BadSelector { selector, message }
        };
        if text.len() > MAX_SELECTOR {
            return Err(error(format!("it is longer than {MAX_SELECTOR} bytes")));
        }
        parse(text).map_err(error)
    }

    /// Whether a series is meant.
    pub fn matches(&self, series: &Series) -> bool {
        self.matches_named(series, &series.name)
    }

    /// Whether a series would be meant if it had this name: a histogram's selector has no `_bucket`.
    pub(super) fn matches_named(&self, series: &Series, name: &str) -> bool {
        self.name.as_deref().is_none_or(|wanted| wanted == name)
            && self.matchers.iter().all(|matcher| {
                let value = if matcher.label == "__name__" { name } else { series.label(&matcher.label) };
                let hit = match &matcher.test {
                    Test::Equal(wanted) => wanted == value,
                    Test::Matches(regex) => regex.is_match(value),
                };
                hit != matcher.negated
            })
    }
}

fn parse(text: &str) -> Result<Selector, String> {
    let text = text.trim();
    let end = text.find(|c: char| !(is_label(c) || c == ':')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a metric name cannot begin with a digit".to_owned());
    }
    let name = (!name.is_empty()).then(|| name.to_owned());
    let mut matchers = Vec::new();
    let rest = rest.trim_start();
    if let Some(mut rest) = rest.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                if !after.trim().is_empty() {
                    return Err(format!("nothing may follow the closing brace, here is {:?}", after.trim()));
                }
                break;
            }
            let (matcher, after) = matcher(rest)?;
            matchers.push(matcher);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with('}') => {}
                None => return Err("matchers are separated by commas and closed by }".to_owned()),
            }
        }
    } else if !rest.is_empty() {
        return Err(format!("a metric name and matchers in braces are expected, here is {rest:?}"));
    }
    if name.is_none() && !matchers.iter().any(|matcher| matcher.label == "__name__" && !matcher.negated) {
        return Err("it needs a metric name".to_owned());
    }
    Ok(Selector { name, matchers })
}

fn matcher(text: &str) -> Result<(Matcher, &str), String> {
    let end = text.find(|c: char| !is_label(c)).unwrap_or(text.len());
    let (label, rest) = text.split_at(end);
    if label.is_empty() {
        return Err("a label name is expected".to_owned());
    }
    let rest = rest.trim_start();
    let Some((operator, rest)) =
        ["=~", "!~", "!=", "="].iter().find_map(|op| rest.strip_prefix(op).map(|rest| (*op, rest)))
    else {
        return Err(format!("label {label} needs one of =, !=, =~ and !~"));
    };
    let (value, rest) =
        quoted(rest.trim_start()).ok_or_else(|| format!("label {label} needs a quoted value"))?;
    let test = if operator.ends_with('~') {
        let regex = RegexBuilder::new(&format!("^(?s:{value})$"))
            .size_limit(MAX_REGEX)
            .build()
            .map_err(|error| format!("label {label}: {}", last_line(&error.to_string())))?;
        Test::Matches(regex)
    } else {
        Test::Equal(value)
    };
    Ok((Matcher { label: label.to_owned(), test, negated: operator.starts_with('!') }, rest))
}

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Reads a quoted text: double and single quotes know escapes, backticks do not.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, &text[i + 1..])),
            '\\' if quote != '`' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                c @ ('\\' | '"' | '\'') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

/// The regex crate draws its errors over several lines; the last one says what is wrong.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, labels: &[(&str, &str)]) -> Series {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Series { name: name.to_owned(), labels }
    }

    #[test]
    fn selectors_match_as_in_prometheus() {
        let requests = series("requests", &[("code", "503"), ("method", "POST")]);
        for (selector, expected) in [
            ("requests", true),
            ("other", false),
            ("requests{}", true),
            (r#"requests{code="503"}"#, true),
            (r#"requests{code=~"5.."}"#, true),
            (r#"requests{code=~"5"}"#, false),
            (r#"requests{code=~"4..|5.."}"#, true),
            (r#"requests{code!~"5.."}"#, false),
            (r#" requests { code =~ '5..' , method != "GET", } "#, true),
            ("requests{code=~`50\\d`}", true),
            (r#"requests{code=~"50\\d"}"#, true),
            (r#"requests{absent=""}"#, true),
            (r#"requests{absent!=""}"#, false),
            (r#"{__name__=~"req.*"}"#, true),
        ] {
            assert_eq!(Selector::parse(selector).unwrap().matches(&requests), expected, "{selector}");
        }
    }

    #[test]
    fn what_is_not_a_selector_is_refused() {
        for (selector, message) in [
            ("", "metric name"),
            ("{}", "metric name"),
            ("9a", "digit"),
            (r#"{code="1"}"#, "metric name"),
            ("rate(a[5m])", "expected"),
            ("a{", "label name"),
            ("a{b}", "needs one of"),
            ("a{b=c}", "quoted"),
            ("a{b=\"c}", "quoted"),
            (r#"a{b=~"("}"#, "unclosed group"),
            (r#"a{b=~"(a{1000}){1000}"}"#, "size limit"),
            (r#"a{b="c"} or b"#, "nothing may follow"),
            (r#"a{b="c" d="e"}"#, "commas"),
            (&"a".repeat(MAX_SELECTOR + 1), "longer"),
        ] {
            let error = Selector::parse(selector).unwrap_err().to_string();
            assert!(error.contains(message), "{message:?} is not in {error:?}");
        }
    }
}
