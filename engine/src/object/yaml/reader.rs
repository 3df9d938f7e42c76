//! From parser events to values.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use super::{
    Dialect, Key, MAX_ALIASED_VALUES, MAX_BYTES, MAX_DEPTH, Node, NodeKind, YamlError, YamlProblem, scalar,
};

/// Reads every document of a text, with the place of each value.
pub(crate) fn read_nodes(text: &str, file: &str, dialect: Dialect) -> Result<Vec<Node>, YamlError> {
    let fail = |line, column, problem| YamlError { file: file.to_owned(), line, column, problem };
    if text.len() > MAX_BYTES {
        return Err(fail(1, 1, YamlProblem::TooLong));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = without_blank_end(text);
    // A line that nothing ends is none, so a block that it belongs to ends without one too.
    let unended = (!text.ends_with(['\n', '\r'])).then(|| text.chars().count());
    let mut builder = Builder::new(dialect, unended);
    let mut documents = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let place = error.marker();
            fail(place.line().max(1), place.col() + 1, YamlProblem::Syntax(error.info().to_owned()))
        })?;
        let (line, column) = (span.start.line().max(1), span.start.col() + 1);
        if let Some(document) = builder.take(event, span).map_err(|problem| fail(line, column, problem))? {
            documents.push(document);
        }
    }
    documents.retain(|node| node.kind != NodeKind::Scalar(Value::Null));
    if dialect == Dialect::Settings {
        for document in &mut documents {
            drop_repeated(document).map_err(|(line, column, problem)| fail(line, column, problem))?;
        }
    }
    Ok(documents)
}

/// The text without spaces behind its last line's end: they would count as a line of a block.
fn without_blank_end(text: &str) -> &str {
    let trimmed = text.trim_end_matches(' ');
    if trimmed.ends_with('\n') { trimmed } else { text }
}

/// Drops keys that are repeated with the same value. Kustomize lets the last of several values win; where
/// they differ, something would be lost that somebody wrote, so that is refused.
fn drop_repeated(node: &mut Node) -> Result<(), (usize, usize, YamlProblem)> {
    match &mut node.kind {
        NodeKind::Scalar(_) => Ok(()),
        NodeKind::List(items) => items.iter_mut().try_for_each(drop_repeated),
        NodeKind::Map(entries) => {
            let mut kept: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
            let mut known: HashMap<String, usize> = HashMap::with_capacity(entries.len());
            for (key, mut value) in entries.drain(..) {
                drop_repeated(&mut value)?;
                match known.get(&key.text).and_then(|at| kept.get(*at)) {
                    None => {
                        known.insert(key.text.clone(), kept.len());
                        kept.push((key, value));
                    }
                    Some((_, first)) if first.clone().into_value() == value.clone().into_value() => {}
                    Some((first, _)) => {
                        let (line, column, first_line) = (key.line, key.column, first.line);
                        return Err((line, column, YamlProblem::DuplicateKey { key: key.text, first_line }));
                    }
                }
            }
            *entries = kept;
            Ok(())
        }
    }
}

/// A list or mapping that is not complete yet.
struct Open {
    line: usize,
    column: usize,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        lines: HashMap<String, usize>,
        key: Option<PendingKey>,
        merged: Vec<Node>,
        is_flow: bool,
    },
}

enum PendingKey {
    Merge,
    Key(Key),
}

struct Builder {
    dialect: Dialect,
    /// How many characters the text has, if its last line has no end.
    unended: Option<usize>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

impl Builder {
    fn new(dialect: Dialect, unended: Option<usize>) -> Self {
        Self { dialect, unended, open: Vec::new(), anchors: HashMap::new(), aliased: 0 }
    }

    /// Takes one event; gives the document that it completes.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, YamlProblem> {
        let (line, column) = (span.start.line().max(1), span.start.col() + 1);
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(None)
            }
            Event::SequenceStart(anchor, _) => {
                self.begin(line, column, anchor, OpenContent::List(Vec::new()))
            }
            Event::MappingStart(anchor, _) => self.begin(
                line,
                column,
                anchor,
                OpenContent::Map {
                    entries: Vec::new(),
                    lines: HashMap::new(),
                    key: None,
                    merged: Vec::new(),
                    // Only a mapping in braces begins with a character of its own.
                    is_flow: span.start.index() != span.end.index(),
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(None) };
                let kind = match open.content {
                    OpenContent::List(items) => NodeKind::List(items),
                    OpenContent::Map { entries, lines, merged, .. } => {
                        NodeKind::Map(merge(entries, lines, merged))
                    }
                };
                self.complete(
                    Node { line: open.line, column: open.column, raw: None, in_flow: false, kind },
                    open.anchor,
                )
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                if is_plain && tag.is_none() && text == "<<" && self.begin_merge() {
                    return Ok(None);
                }
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let text = match text.strip_suffix('\n') {
                    Some(shorter) if is_block && self.unended == Some(span.end.index()) => shorter,
                    _ => text.as_ref(),
                };
                let value = self.scalar(text, is_plain, tag.as_deref())?;
                let raw = (is_plain && tag.is_none() && value.as_str() != Some(text)).then(|| text.into());
                self.complete(
                    Node { line, column, raw, in_flow: false, kind: NodeKind::Scalar(value) },
                    anchor,
                )
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).ok_or(YamlProblem::RecursiveAlias)?;
                let (count, depth) = target.size();
                self.aliased += count;
                if self.aliased > MAX_ALIASED_VALUES {
                    return Err(YamlProblem::TooManyAliased);
                }
                if self.open.len() + depth > MAX_DEPTH {
                    return Err(YamlProblem::TooDeep);
                }
                let copy = Node { line, column, ..target.clone() };
                self.complete(copy, 0)
            }
            _ => Ok(None),
        }
    }

    fn scalar(&self, text: &str, is_plain: bool, tag: Option<&Tag>) -> Result<Value, YamlProblem> {
        match tag {
            Some(tag) if tag.is_yaml_core_schema() => {
                scalar::tagged(text, &tag.suffix, is_plain, self.dialect)
            }
            // `! 12` is still a number for go-yaml; any other tag of the user makes a text.
            Some(tag) if !tag.suffix.is_empty() && tag.suffix != "!" => Ok(Value::String(text.to_owned())),
            _ if is_plain => scalar::plain(text, self.dialect),
            _ => Ok(Value::String(text.to_owned())),
        }
    }

    fn begin(
        &mut self,
        line: usize,
        column: usize,
        anchor: usize,
        content: OpenContent,
    ) -> Result<Option<Node>, YamlProblem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlProblem::TooDeep);
        }
        self.open.push(Open { line, column, anchor, content });
        Ok(None)
    }

    /// Notes a `<<` where a key is due.
    fn begin_merge(&mut self) -> bool {
        match self.open.last_mut().map(|open| &mut open.content) {
            Some(OpenContent::Map { key: key @ None, .. }) => {
                *key = Some(PendingKey::Merge);
                true
            }
            _ => false,
        }
    }

    /// Puts a complete value into what it belongs to; a value that belongs to nothing is the document.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<Option<Node>, YamlProblem> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let refuses_repeated = self.dialect != Dialect::Settings;
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut open.content {
            OpenContent::List(items) => items.push(node),
            OpenContent::Map { entries, lines, key, merged, is_flow } => match key.take() {
                None => {
                    let text = key_text(&node)?;
                    if let Some(first_line) = lines.insert(text.clone(), node.line)
                        && refuses_repeated
                    {
                        return Err(YamlProblem::DuplicateKey { key: text, first_line });
                    }
                    *key = Some(PendingKey::Key(Key { text, line: node.line, column: node.column }));
                }
                Some(PendingKey::Key(key)) => entries.push((key, Node { in_flow: *is_flow, ..node })),
                Some(PendingKey::Merge) => {
                    let sources = match node.kind {
                        NodeKind::List(items) => items,
                        kind => vec![Node { kind, ..node }],
                    };
                    if sources.iter().any(|source| !matches!(source.kind, NodeKind::Map(_))) {
                        return Err(YamlProblem::UnusableMerge);
                    }
                    merged.extend(sources);
                }
            },
        }
        Ok(None)
    }
}

/// Adds merged fields that the mapping does not set itself; the first source that has one wins.
fn merge(
    mut entries: Vec<(Key, Node)>,
    mut lines: HashMap<String, usize>,
    merged: Vec<Node>,
) -> Vec<(Key, Node)> {
    for source in merged {
        if let NodeKind::Map(fields) = source.kind {
            for (key, value) in fields {
                if !lines.contains_key(&key.text) {
                    lines.insert(key.text.clone(), key.line);
                    entries.push((key, value));
                }
            }
        }
    }
    entries
}

/// Numbers and booleans are keys by their text, as `sigs.k8s.io/yaml` makes JSON of them.
fn key_text(node: &Node) -> Result<String, YamlProblem> {
    match &node.kind {
        NodeKind::Scalar(Value::String(text)) => Ok(text.clone()),
        NodeKind::Scalar(Value::Number(number)) => Ok(number.to_string()),
        NodeKind::Scalar(Value::Bool(value)) => Ok(value.to_string()),
        _ => Err(YamlProblem::UnusableKey(node.kind_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_documents;
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        let mut documents = read_documents(text, "t.yaml").unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0).value
    }

    fn error(text: &str) -> String {
        read_documents(text, "t.yaml").unwrap_err().to_string()
    }

    #[test]
    fn a_block_ends_as_the_text_does() {
        for (text, value) in [
            ("v: |\n  x", "x"),
            ("v: |+\n  x", "x"),
            ("v: >\n  x\n  y", "x y"),
            ("v: |\n  é\n  # no comment", "é\n# no comment"),
            ("v: |\n  x\n# c", "x\n"),
            ("v: |\n  x\n  ", "x\n"),
            ("v: |\n  x\n\n  ", "x\n"),
            ("v: |+\n  x\n  ", "x\n"),
            ("v: |+\n  x\n\n", "x\n\n"),
            ("v: |\n  x\r\n  y", "x\ny"),
            ("v: |\n  x\n  \t", "x\n\t"),
            ("v: |", ""),
        ] {
            assert_eq!(read(text)["v"], value, "{text:?}");
        }
    }

    #[test]
    fn structure_reads_as_kustomize_reads_it() {
        for (text, value) in [
            ("b: &x {q: 1, r: 2}\nv: {<<: *x, r: 3}", json!({"b": {"q": 1, "r": 2}, "v": {"q": 1, "r": 3}})),
            (
                "b: &x {q: 1}\nc: &y {q: 5, s: 6}\nv: {<<: [*x, *y]}",
                json!({"b": {"q": 1}, "c": {"q": 5, "s": 6}, "v": {"q": 1, "s": 6}}),
            ),
            (
                "v: {1: a, true: b, 1.5: c, yes: d}",
                json!({"v": {"1": "a", "true": "b", "1.5": "c", "yes": "d"}}),
            ),
            ("v: !foo {a: 1}", json!({"v": {"a": 1}})),
            ("v: [!foo 12, ! 012, !!str 1]", json!({"v": ["12", 10, "1"]})),
            ("v: [a, ~, ]", json!({"v": ["a", null]})),
            (
                "v:\n- 1\n- |\n  lit\n- >-\n  fold\n  ed\n- 'it''s'\n- \"a\\tb\"",
                json!({"v": [1, "lit\n", "fold ed", "it's", "a\tb"]}),
            ),
            ("v: &a [1]\nw: *a", json!({"v": [1], "w": [1]})),
            ("v: \"<<\"", json!({"v": "<<"})),
        ] {
            assert_eq!(read(text), value, "{text}");
        }
    }

    #[test]
    fn documents_without_content_are_skipped_and_lines_are_known() {
        let documents =
            read_documents("# c\n---\n---\na: 1\n---\n# only a comment\n---\nb: 2\n...\n", "t.yaml").unwrap();
        assert_eq!(documents.iter().map(|d| d.line).collect::<Vec<_>>(), [4, 8]);
        assert!(read_documents("", "t.yaml").unwrap().is_empty());
        assert!(read_documents("\u{feff}# only\n", "t.yaml").unwrap().is_empty());
    }

    #[test]
    fn every_error_names_file_line_and_column() {
        for (text, start) in [
            ("a: 1\na: 2", "t.yaml:2:1: the key \"a\" is already set in line 1"),
            ("a:\n  b: .inf", "t.yaml:2:6: .inf cannot be said in JSON"),
            ("a: !!int foo", "t.yaml:1:4: \"foo\" is not a !!int"),
            ("a: {<<: 3}", "t.yaml:1:9: a merge key"),
            ("[a]: 1", "t.yaml:1:3: a key must be a text, a number or a boolean, this is a list"),
            ("~: 1", "t.yaml:1:1: a key must be a text"),
            ("a: &x [*x]", "t.yaml:1:8: this alias stands inside of its own anchor"),
            ("a: *nope", "t.yaml:1:4: this is not YAML"),
            ("a: b: c", "t.yaml:1:5: this is not YAML"),
            ("a: [1", "t.yaml:2:1: this is not YAML"),
        ] {
            let message = error(text);
            assert!(message.starts_with(start), "{text}: {message}");
        }
    }

    #[test]
    fn bombs_are_refused_before_they_cost_anything() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let previous = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![previous; 10].join(", ")));
        }
        assert!(error(&bomb).contains("aliases expand to more than"), "{}", error(&bomb));
        assert!(error(&"- ".repeat(500)).contains("deeper than"));
        assert!(error(&"[".repeat(5000)).starts_with("t.yaml:1:"));
        assert!(error(&"{a: ".repeat(5000)).starts_with("t.yaml:1:"));
        let mut deep = String::from("a0: &a0 [1]\n");
        for i in 1..150 {
            deep.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
        }
        assert!(error(&deep).contains("deeper than"));
        assert!(error(&"a".repeat(MAX_BYTES + 1)).contains("bytes"));
    }
}
