//! Prometheus' text exposition format, version 0.0.4, as pods serve it.
//!
//! Rules: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>. Types and
//! help texts are skipped: a selector names the series that it wants. What a pod serves is not trusted:
//! its size, the number of series and of labels are bounded.

use std::collections::BTreeMap;

/// The name and the labels of a series; labels are sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// Name of the metric.
    pub name: String,
    /// Labels with their values.
    pub labels: BTreeMap<String, String>,
}

impl Series {
    /// The value of a label; empty where there is none, as Prometheus sees it.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The values that one pod served at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    series: BTreeMap<Series, f64>,
}

impl Scrape {
    /// All series with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&Series, f64)> {
        self.series.iter().map(|(series, value)| (series, *value))
    }

    /// The value of a series.
    pub fn get(&self, series: &Series) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

/// Largest text that is read, in bytes.
pub const MAX_TEXT: usize = 8 << 20;
/// Most series that are kept.
pub const MAX_SERIES: usize = 50_000;
/// Most labels of a series.
pub const MAX_LABELS: usize = 64;

/// The text is not in the exposition format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpositionError {
    /// A line cannot be read.
    #[error("line {line} of the metrics: {message}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        message: &'static str,
    },
    /// The text is too large to be read.
    #[error("the metrics have {bytes} bytes, at most {MAX_TEXT} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// There are too many series.
    #[error("the metrics have more than {MAX_SERIES} series")]
    TooManySeries,
}

/// Reads what a pod served. Of a series given twice the last value counts.
///
/// # Errors
/// [`ExpositionError`] says which line is wrong, or which bound is exceeded.
pub fn parse(text: &str) -> Result<Scrape, ExpositionError> {
    if text.len() > MAX_TEXT {
        return Err(ExpositionError::TooLarge { bytes: text.len() });
    }
    let mut scrape = Scrape::default();
    for (i, line) in text.split('\n').enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (series, value) =
            sample(line).map_err(|message| ExpositionError::Line { line: i + 1, message })?;
        scrape.series.insert(series, value);
        if scrape.series.len() > MAX_SERIES {
            return Err(ExpositionError::TooManySeries);
        }
    }
    Ok(scrape)
}

fn sample(line: &str) -> Result<(Series, f64), &'static str> {
    let end = line.find(|c: char| !is_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a metric name is expected");
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = number(words.next().ok_or("a value is expected")?).ok_or("the value is not a number")?;
    match words.next() {
        None | Some("#") => {}
        // An exemplar, as OpenMetrics writes it, ends what is read.
        Some(timestamp) => {
            number(timestamp).ok_or("the timestamp is not a number")?;
            if words.next().is_some_and(|word| word != "#") {
                return Err("nothing may follow the timestamp");
            }
        }
    }
    Ok((Series { name: name.to_owned(), labels }, value))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Reads labels up to and with the closing brace.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let end = rest.find(|c: char| !is_name(c)).ok_or("the labels are not closed")?;
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return Err("a label name is expected");
        }
        let after = after.trim_start_matches([' ', '\t']).strip_prefix('=').ok_or("a label needs =")?;
        let after =
            after.trim_start_matches([' ', '\t']).strip_prefix('"').ok_or("a label value needs quotes")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.to_owned(), value);
        if labels.len() > MAX_LABELS {
            return Err("too many labels");
        }
        rest = after.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("labels are separated by commas and closed by }"),
        }
    }
}

/// Reads a value after its opening quote: `\\`, `\"` and `\n` are escapes.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[i + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                // As Prometheus' own reader does: an unknown escape is kept.
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("the label value is not closed")
}

/// A number as Go's ParseFloat reads it, as far as exporters write it.
pub(super) fn number(text: &str) -> Option<f64> {
    match text {
        "NaN" | "nan" => Some(f64::NAN),
        "+Inf" | "Inf" | "+inf" | "inf" => Some(f64::INFINITY),
        "-Inf" | "-inf" => Some(f64::NEG_INFINITY),
        // Rust reads more spellings of infinity and NaN than Go writes.
        text if text.bytes().any(|b| !b"0123456789+-.eE_xXpP".contains(&b)) => None,
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, labels: &[(&str, &str)]) -> Series {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Series { name: name.to_owned(), labels }
    }

    #[test]
    fn the_example_of_the_format_is_read() {
        // After the example in Prometheus' documentation of the format.
        let text = "# HELP http_requests_total The total number of HTTP requests.\n\
                    # TYPE http_requests_total counter\n\
                    http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
                    http_requests_total{ method = \"post\", code=\"400\", }    3\r\n\
                    \n\
                    msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9\n\
                    metric_without_timestamp_and_labels 12.47\n\
                    something_weird{problem=\"division by zero, = } \"} +Inf -3982045\n\
                    rpc_duration_seconds{quantile=\"0.01\"} NaN\n\
                    empty{} -0.5e-3 # {trace=\"x\"} 1\n";
        let scrape = parse(text).unwrap();
        let value = |name, labels: &[(&str, &str)]| scrape.get(&series(name, labels));
        assert_eq!(scrape.len(), 7);
        assert_eq!(value("http_requests_total", &[("method", "post"), ("code", "200")]), Some(1027.0));
        assert_eq!(value("http_requests_total", &[("method", "post"), ("code", "400")]), Some(3.0));
        let path = [("path", r"C:\DIR\FILE.TXT"), ("error", "Cannot find file:\n\"FILE.TXT\"")];
        assert_eq!(value("msdos_file_access_time_seconds", &path), Some(1_458_255_915.0));
        assert_eq!(value("something_weird", &[("problem", "division by zero, = } ")]), Some(f64::INFINITY));
        assert!(value("rpc_duration_seconds", &[("quantile", "0.01")]).unwrap().is_nan());
        assert_eq!(value("empty", &[]), Some(-0.000_5));
    }

    #[test]
    fn what_is_not_in_the_format_is_refused_with_its_line() {
        for (bad, message) in [
            ("<html>", "a metric name is expected"),
            ("9lives 1", "a metric name is expected"),
            ("a", "a value is expected"),
            ("a b", "the value is not a number"),
            ("a infinity", "the value is not a number"),
            ("a 1 x", "the timestamp is not a number"),
            ("a 1 2 3", "nothing may follow the timestamp"),
            ("a{b", "the labels are not closed"),
            ("a{b}", "a label needs ="),
            ("a{b=c}", "a label value needs quotes"),
            ("a{b=\"c} 1", "the label value is not closed"),
            ("a{b=\"c\\", "the label value is not closed"),
            ("a{b=\"c\" d=\"e\"} 1", "labels are separated by commas and closed by }"),
            ("a{=\"c\"} 1", "a label name is expected"),
        ] {
            let expected = ExpositionError::Line { line: 2, message };
            assert_eq!(parse(&format!("ok 1\n{bad}\n")), Err(expected), "{bad}");
        }
    }

    #[test]
    fn hostile_sizes_are_refused() {
        assert!(matches!(parse(&"#".repeat(MAX_TEXT + 1)), Err(ExpositionError::TooLarge { .. })));
        let many: String = (0..=MAX_SERIES).map(|i| format!("m{i} 1\n")).collect();
        assert_eq!(parse(&many), Err(ExpositionError::TooManySeries));
        let labels: String = (0..=MAX_LABELS).map(|i| format!("l{i}=\"\",")).collect();
        assert!(parse(&format!("m{{{labels}}} 1")).is_err());
    }
}
