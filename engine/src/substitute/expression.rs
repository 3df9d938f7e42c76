//! What `${…}` says.

/// How deep expressions may stand in each other.
const MAX_DEPTH: usize = 16;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Expression(Expression),
}

/// A variable, and what is done with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    pub name: String,
    pub action: Action,
}

/// What is done with a value. Arguments may hold expressions themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// `${NAME}`
    Value,
    /// `${#NAME}`
    Length,
    /// `${NAME:=text}`, `${NAME:-text}`, `${NAME=text}`
    Default(Vec<Part>),
    /// `${NAME:?text}`
    Require(Vec<Part>),
    /// `${NAME:position}`, `${NAME:position:length}`
    Cut(Vec<Part>, Option<Vec<Part>>),
    /// `${NAME/a/b}` and so on
    Replace(Where, Vec<Part>, Vec<Part>),
    /// `${NAME#pattern}`, `${NAME##pattern}`
    TrimStart(Vec<Part>, Greed),
    /// `${NAME%pattern}`, `${NAME%%pattern}`
    TrimEnd(Vec<Part>, Greed),
    /// `${NAME^}`, `${NAME^^}`
    Upper(Extent),
    /// `${NAME,}`, `${NAME,,}`
    Lower(Extent),
}

/// Which occurrences are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    First,
    All,
    Start,
    End,
}

/// How much a pattern takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greed {
    Shortest,
    Longest,
}

/// Which letters change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    First,
    All,
}

/// Reads a text; `$$` stands for one `$`.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parser = Parser { rest: text, depth: 0 };
    let mut parts = Vec::new();
    let mut plain = String::new();
    while let Some(at) = parser.rest.find('$') {
        plain.push_str(&parser.rest[..at]);
        parser.rest = &parser.rest[at..];
        if parser.take("$$") {
            plain.push('$');
        } else if parser.take("${") {
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Expression(parser.expression()?));
        } else {
            plain.push('$');
            parser.rest = &parser.rest[1..];
        }
    }
    plain.push_str(parser.rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

/// How an argument's text is read.
#[derive(Clone, Copy)]
struct Reading {
    /// What ends it, besides an expression.
    ends: &'static [char],
    /// Whether `\/`, `\\` and `$$` stand for one character.
    escapes: bool,
}

impl Parser<'_> {
    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What follows `${`.
    fn expression(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("expressions stand in each other more than {MAX_DEPTH} deep"));
        }
        let is_length = self.take("#");
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err("after ${ comes the name of a variable; write $${ where none is meant".to_owned());
        }
        let name = name.to_owned();
        self.rest = rest;
        let action = if is_length { Action::Length } else { self.action(&name)? };
        if !self.take("}") {
            return Err(format!("the expression for {name} has no }} where one is due"));
        }
        self.depth -= 1;
        Ok(Expression { name, action })
    }

    fn action(&mut self, name: &str) -> Result<Action, String> {
        const TEXT: Reading = Reading { ends: &['}'], escapes: false };
        let one = |parser: &mut Self, reading| {
            parser.argument(reading)?.ok_or_else(|| format!("the expression for {name} lacks an argument"))
        };
        if self.rest.starts_with('}') {
            return Ok(Action::Value);
        }
        if self.take(":=") || self.take(":-") || self.take("=") {
            return Ok(Action::Default(self.arguments(TEXT)?));
        }
        if self.take(":?") {
            return Ok(Action::Require(self.arguments(TEXT)?));
        }
        if self.rest.starts_with(":+") {
            return Err(format!("the expression for {name} uses :+, which is not known here; use :="));
        }
        if self.take(":") {
            let position = one(self, Reading { ends: &[':', '}'], escapes: false })?;
            let length = if self.take(":") { Some(one(self, TEXT)?) } else { None };
            return Ok(Action::Cut(position, length));
        }
        if self.take("/") {
            return self.replacement(name);
        }
        for (mark, greed) in [("##", Greed::Longest), ("#", Greed::Shortest)] {
            if self.take(mark) {
                return Ok(Action::TrimStart(one(self, TEXT)?, greed));
            }
        }
        for (mark, greed) in [("%%", Greed::Longest), ("%", Greed::Shortest)] {
            if self.take(mark) {
                return Ok(Action::TrimEnd(one(self, TEXT)?, greed));
            }
        }
        for (mark, action) in [
            ("^^", Action::Upper(Extent::All)),
            ("^", Action::Upper(Extent::First)),
            (",,", Action::Lower(Extent::All)),
            (",", Action::Lower(Extent::First)),
        ] {
            if self.take(mark) {
                return Ok(action);
            }
        }
        Err(format!(
            "the expression for {name} is not one that is known here; write $${{{name} where none is meant"
        ))
    }

    fn replacement(&mut self, name: &str) -> Result<Action, String> {
        let place = match self.rest.chars().next() {
            Some('/') => Where::All,
            Some('#') => Where::Start,
            Some('%') => Where::End,
            _ => Where::First,
        };
        if place != Where::First {
            self.rest = &self.rest[1..];
        }
        let pattern = self.argument(Reading { ends: &['/'], escapes: true })?.unwrap_or_default();
        if !self.take("/") {
            return Err(format!("the expression for {name} lacks a second /"));
        }
        let with = self.argument(Reading { ends: &['}'], escapes: true })?.unwrap_or_default();
        Ok(Action::Replace(place, pattern, with))
    }

    /// One argument: an expression or a text; none where it is empty.
    fn argument(&mut self, reading: Reading) -> Result<Option<Vec<Part>>, String> {
        if self.take("${") {
            return Ok(Some(vec![Part::Expression(self.expression()?)]));
        }
        let mut text = String::new();
        while let Some(next) = self.rest.chars().next() {
            let is_escape =
                reading.escapes && ["\\/", "\\\\", "$$"].iter().any(|escape| self.rest.starts_with(escape));
            if is_escape {
                // The second character is meant.
                let length = self.rest.chars().nth(1).map_or(0, char::len_utf8);
                text.push_str(&self.rest[1..1 + length]);
                self.rest = &self.rest[1 + length..];
                continue;
            }
            if reading.ends.contains(&next) || self.rest.starts_with("${") {
                break;
            }
            text.push(next);
            self.rest = &self.rest[next.len_utf8()..];
        }
        Ok((!text.is_empty()).then(|| vec![Part::Text(text)]))
    }

    /// Texts and expressions up to the end.
    fn arguments(&mut self, reading: Reading) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        while let Some(mut part) = self.argument(reading)? {
            parts.append(&mut part);
        }
        Ok(parts)
    }
}
