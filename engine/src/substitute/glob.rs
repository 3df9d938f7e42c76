//! Patterns: `*`, `?`, `[a-z]`, and `\` before a character that means itself.

enum Token {
    Any,
    One,
    Is(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern, understood.
pub(super) struct Glob(Vec<Token>);

impl Glob {
    /// Reads a pattern; none where it is malformed.
    pub fn new(pattern: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                // Several stars mean what one means.
                '*' if matches!(tokens.last(), Some(Token::Any)) => continue,
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => Token::Is(rest.next()?),
                '[' => class(&mut rest)?,
                c => Token::Is(c),
            });
        }
        Some(Self(tokens))
    }

    /// How many characters from the start of a text match, at least one; the shortest or longest way.
    pub fn prefix(&self, text: &str, longest: bool) -> Option<usize> {
        run(&self.0.iter().collect::<Vec<_>>(), text.chars(), longest)
    }

    /// How many characters from the end of a text match, at least one; the shortest or longest way.
    pub fn suffix(&self, text: &str, longest: bool) -> Option<usize> {
        run(&self.0.iter().rev().collect::<Vec<_>>(), text.chars().rev(), longest)
    }
}

fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let mut next = rest.next()?;
    let negated = next == '^';
    if negated {
        next = rest.next()?;
    }
    loop {
        if next == ']' && !ranges.is_empty() {
            return Some(Token::Class { negated, ranges });
        }
        let low = if next == '\\' { rest.next()? } else { next };
        next = rest.next()?;
        let mut high = low;
        if next == '-' {
            high = rest.next()?;
            if high == '\\' {
                high = rest.next()?;
            }
            next = rest.next()?;
        }
        ranges.push((low, high));
    }
}

/// Follows all ways through the tokens at once: the cost is that of text times pattern.
fn run(tokens: &[&Token], text: impl Iterator<Item = char>, longest: bool) -> Option<usize> {
    let mut at = vec![false; tokens.len() + 1];
    at[0] = true;
    let through = |at: &mut Vec<bool>| {
        for (i, token) in tokens.iter().enumerate() {
            if at[i] && matches!(token, Token::Any) {
                at[i + 1] = true;
            }
        }
    };
    through(&mut at);
    let mut found = None;
    for (count, c) in text.enumerate() {
        let mut next = vec![false; tokens.len() + 1];
        let mut any = false;
        for (i, token) in tokens.iter().enumerate().filter(|(i, _)| at[*i]) {
            let (step, stay) = match token {
                Token::Any => (false, true),
                Token::One => (true, false),
                Token::Is(is) => (*is == c, false),
                Token::Class { negated, ranges } => {
                    (ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated, false)
                }
            };
            next[i] |= stay;
            next[i + 1] |= step;
            any |= stay || step;
        }
        through(&mut next);
        at = next;
        if at[tokens.len()] {
            found = Some(count + 1);
            if !longest {
                return found;
            }
        }
        if !any {
            break;
        }
    }
    found
}
