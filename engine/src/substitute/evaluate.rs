//! What expressions come to.

use super::Variables;
use super::expression::{Action, Expression, Extent, Greed, Part, Where, parse};
use super::glob::Glob;

/// How much work and how much text the expressions of all objects together may cost.
const MAX_COST: usize = 256 * 1024 * 1024;

/// A text with its variables put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub text: String,
    /// Whether a value of it must not be repeated in messages.
    pub is_secret: bool,
}

/// Puts variables into texts, within limits.
pub(super) struct Evaluator<'v> {
    variables: &'v Variables,
    cost: usize,
    is_secret: bool,
}

impl<'v> Evaluator<'v> {
    pub fn new(variables: &'v Variables) -> Self {
        Self { variables, cost: 0, is_secret: false }
    }

    /// A text with its variables put in; the error is a sentence that shows no value.
    pub fn text(&mut self, text: &str) -> Result<Text, String> {
        self.is_secret = false;
        let text = self.parts(&parse(text)?)?;
        Ok(Text { text, is_secret: self.is_secret })
    }

    fn parts(&mut self, parts: &[Part]) -> Result<String, String> {
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Expression(expression) => out.push_str(&self.expression(expression)?),
            }
        }
        self.pay(out.len())?;
        Ok(out)
    }

    fn pay(&mut self, cost: usize) -> Result<(), String> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > MAX_COST {
            return Err("the expressions of these objects make too much text; use shorter values".to_owned());
        }
        Ok(())
    }

    fn expression(&mut self, expression: &Expression) -> Result<String, String> {
        let name = &expression.name;
        let known = self.variables.get(name);
        if let Some((value, is_secret)) = known {
            self.is_secret |= is_secret;
            self.pay(value.len())?;
        }
        // An empty value counts as none, as with bash's forms with a colon.
        let set = known.map(|(value, _)| value).filter(|value| !value.is_empty());
        match &expression.action {
            Action::Default(text) => match set {
                Some(value) => return Ok(value.to_owned()),
                None => return self.parts(text),
            },
            Action::Require(text) => match set {
                Some(value) => return Ok(value.to_owned()),
                None => {
                    let text = self.parts(text)?;
                    let text = if self.is_secret { "it is required" } else { &text };
                    return Err(format!("the variable {name} is not set: {text}"));
                }
            },
            _ => {}
        }
        let (value, _) = known.ok_or_else(|| {
            format!(
                "the variable {name} is not set; set it in spec.substitute, give it a default (${{{name}:=…}}), or write $${{{name}}} where none is meant"
            )
        })?;
        self.action(name, value, &expression.action)
    }

    fn action(&mut self, name: &str, value: &str, action: &Action) -> Result<String, String> {
        Ok(match action {
            Action::Value | Action::Default(_) | Action::Require(_) => value.to_owned(),
            Action::Length => value.len().to_string(),
            Action::Cut(position, length) => {
                let position = self.parts(position)?;
                let length = length.as_ref().map(|length| self.parts(length)).transpose()?;
                cut(value, &position, length.as_deref())
                    .ok_or_else(|| format!("the expression for {name} cuts a letter in two"))?
                    .to_owned()
            }
            Action::Replace(place, pattern, with) => {
                let (pattern, with) = (self.parts(pattern)?, self.parts(with)?);
                let count = match place {
                    Where::All => value.len() + 1,
                    _ => 1,
                };
                self.pay(with.len().saturating_mul(count.min(value.len() / pattern.len().max(1) + 1)))?;
                replace(value, *place, &pattern, &with)
            }
            Action::TrimStart(pattern, greed) => {
                let pattern = self.parts(pattern)?;
                self.pay(value.len().saturating_mul(pattern.len() + 1))?;
                let count = Glob::new(&pattern).and_then(|glob| glob.prefix(value, *greed == Greed::Longest));
                value.chars().skip(count.unwrap_or(0)).collect()
            }
            Action::TrimEnd(pattern, greed) => {
                let pattern = self.parts(pattern)?;
                self.pay(value.len().saturating_mul(pattern.len() + 1))?;
                let count = Glob::new(&pattern).and_then(|glob| glob.suffix(value, *greed == Greed::Longest));
                let kept = value.chars().count() - count.unwrap_or(0);
                value.chars().take(kept).collect()
            }
            Action::Upper(Extent::All) => value.to_uppercase(),
            Action::Lower(Extent::All) => value.to_lowercase(),
            Action::Upper(Extent::First) => first(value, |c| c.to_uppercase().collect()),
            Action::Lower(Extent::First) => first(value, |c| c.to_lowercase().collect()),
        })
    }
}

fn first(value: &str, change: impl Fn(char) -> String) -> String {
    let mut rest = value.chars();
    rest.next().map(|c| change(c) + rest.as_str()).unwrap_or_default()
}

/// A part of a text by its bytes, as Flux counts; negative numbers count from the end. What is no number
/// changes nothing. None where a letter would be cut in two.
fn cut<'v>(value: &'v str, position: &str, length: Option<&str>) -> Option<&'v str> {
    let number = |text: &str| text.parse::<i64>().ok();
    let size = i64::try_from(value.len()).ok()?;
    let Some(position) = number(position) else { return Some(value) };
    let start = if position < 0 { (size + position).max(0) } else { position.min(size) };
    let end = match length {
        None => size,
        Some(length) => {
            let Some(length) = number(length) else { return Some(value) };
            let end = if length < 0 { size.saturating_add(length) } else { start.saturating_add(length) };
            end.clamp(start, size)
        }
    };
    value.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn replace(value: &str, place: Where, pattern: &str, with: &str) -> String {
    match place {
        Where::First => value.replacen(pattern, with, 1),
        Where::All => value.replace(pattern, with),
        Where::Start => match value.strip_prefix(pattern) {
            Some(rest) => format!("{with}{rest}"),
            None => value.to_owned(),
        },
        Where::End => match value.strip_suffix(pattern) {
            Some(rest) => format!("{rest}{with}"),
            None => value.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<String, String> {
        let mut variables = Variables::default();
        for (name, value) in [
            ("var01", "abcdEFGH28ij"),
            ("path", "/home/bozo/ideas/thoughts.for.today"),
            ("file", "path/to/archive.tar.gz"),
            ("z", "abcABC123ABCabc"),
            ("empty", ""),
            ("slash", "foo/bar/baz"),
            ("two", "2"),
            ("word", "ärger"),
            ("upper", "HELLO"),
        ] {
            variables.set(name, value, false).unwrap();
        }
        Evaluator::new(&variables).text(text).map(|text| text.text)
    }

    /// Checked against Flux's own evaluator.
    #[test]
    fn expressions_mean_what_flux_takes_them_for() {
        for (given, expected) in [
            ("no variable $here or {there}", "no variable $here or {there}"),
            ("${var01}", "abcdEFGH28ij"),
            ("a${two}b${two}", "a2b2"),
            ("${#var01}", "12"),
            ("${var01^}", "AbcdEFGH28ij"),
            ("${var01^^}", "ABCDEFGH28IJ"),
            ("${upper,}", "hELLO"),
            ("${upper,,}", "hello"),
            ("${path:11}", "ideas/thoughts.for.today"),
            ("${path:11:5}", "ideas"),
            ("${path:-5}", "/home/bozo/ideas/thoughts.for.today"),
            ("${var01:1:-1}", "bcdEFGH28i"),
            ("${var01:20}", ""),
            ("${var01:3:100}", "dEFGH28ij"),
            ("${var01:x}", "abcdEFGH28ij"),
            ("${var01:${two}}", "cdEFGH28ij"),
            ("${var01:${two}:${two}}", "cd"),
            ("${unset=xyz}", "xyz"),
            ("${unset:=xyz}", "xyz"),
            ("${unset:-xyz}", "xyz"),
            ("${empty:=xyz}", "xyz"),
            ("${empty}", ""),
            ("${two:=xyz}", "2"),
            ("${unset:=}", ""),
            ("${unset:=a ${two}-b: {c}", "a 2-b: {c"),
            ("${unset:=${other:=deep}}", "deep"),
            ("${two:?is required}", "2"),
            ("${z/abc/xyz}", "xyzABC123ABCabc"),
            ("${z//abc/xyz}", "xyzABC123ABCxyz"),
            ("${z/#abc/XYZ}", "XYZABC123ABCabc"),
            ("${z/%abc/XYZ}", "abcABC123ABCXYZ"),
            ("${z/#/pre-}", "pre-abcABC123ABCabc"),
            ("${z/%/-post}", "abcABC123ABCabc-post"),
            ("${z/abc/}", "ABC123ABCabc"),
            ("${slash/\\//-}", "foo-bar/baz"),
            ("${slash//\\//-}", "foo-bar-baz"),
            ("${slash//\\//\\\\}", "foo\\bar\\baz"),
            ("${file#*/}", "to/archive.tar.gz"),
            ("${file##*/}", "archive.tar.gz"),
            ("${file%.*}", "path/to/archive.tar"),
            ("${file%%.*}", "path/to/archive"),
            ("${file#nothing}", "path/to/archive.tar.gz"),
            ("${file#[a-p]?th}", "/to/archive.tar.gz"),
            ("$${var01}", "${var01}"),
            ("$$HOME and $$$$", "$HOME and $$"),
            ("$$${two}", "$2"),
            ("some ${two}$${var$${two}$two${two}", "some 2${var${two}$two2"),
            ("$${unset=${two}}", "${unset=2}"),
            ("\\\\x ${two}", "\\\\x 2"),
            ("${word^}", "Ärger"),
            ("a $", "a $"),
        ] {
            assert_eq!(text(given), Ok(expected.to_owned()), "{given}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_names_the_variable() {
        for (given, expected) in [
            ("${unset}", "the variable unset is not set; set it in spec.substitute"),
            ("${#unset}", "the variable unset is not set"),
            ("${unset^^}", "the variable unset is not set"),
            ("${unset:0:1}", "the variable unset is not set"),
            ("${unset/a/b}", "the variable unset is not set"),
            ("${unset:?give it}", "the variable unset is not set: give it"),
            ("${two:=${unset}", "the expression for two has no }"),
            ("${empty:=${unset}}", "the variable unset is not set"),
            ("${}", "after ${ comes the name of a variable"),
            ("${two", "the expression for two is not one"),
            ("${two-x}", "the expression for two is not one"),
            ("${two:+x}", "the expression for two uses :+"),
            ("${two#}", "the expression for two lacks an argument"),
            ("${two::1}", "the expression for two lacks an argument"),
            ("${two/a}", "the expression for two lacks a second /"),
            ("${word:1}", "the expression for word cuts a letter in two"),
            (&"${x:=".repeat(40), "expressions stand in each other more than 16 deep"),
        ] {
            let error = text(given).unwrap_err();
            assert!(error.starts_with(expected), "{given}: {error}");
        }
    }

    #[test]
    fn the_cost_is_bounded() {
        let mut variables = Variables::default();
        variables.set("big", &"x".repeat(100_000), false).unwrap();
        let mut evaluator = Evaluator::new(&variables);
        let text = "${big//x/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy}".repeat(100);
        let error = evaluator.text(&text).and_then(|_| evaluator.text(&text)).unwrap_err();
        assert!(error.contains("too much text"), "{error}");
        let pattern = format!("${{big##{}b}}", "*x".repeat(2_000));
        let error = Evaluator::new(&variables).text(&pattern).unwrap_err();
        assert!(error.contains("too much text"), "{error}");
    }
}
