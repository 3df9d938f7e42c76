//! Objects with variables put in.

use serde_json::{Map, Value};

use super::Variables;
use super::evaluate::Evaluator;
use crate::kustomize::{Rendered, Step};
use crate::object::yaml::{Dialect, NodeKind, is_written_plain, read_nodes};
use crate::object::{Confidential, Object};

/// Marks of objects that stay as they are, and the value that says so.
const MARKS: [&str; 2] = ["holdfast.dev/substitute", "kustomize.toolkit.fluxcd.io/substitute"];
const DISABLED: &str = "disabled";

/// An object's variables could not be put in. No message shows a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} ({source_at}), {field}: {problem}")]
pub struct SubstituteError {
    /// The object.
    pub object: String,
    /// Where it is from: a file and line.
    pub source_at: String,
    /// The field, as a JSON pointer.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Puts variables into rendered objects. Objects with the label or annotation
/// `holdfast.dev/substitute: disabled`, or Flux's, stay as they are.
///
/// # Errors
/// [`SubstituteError`] names the object, the field and the variable.
///
/// ```
/// use engine::kustomize::{MapTree, render};
/// use engine::substitute::{Variables, substitute};
/// let tree = MapTree::new().with(
///     "dev/a.yaml",
///     "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: \"${NAME:=web}\"}\nspec: {replicas: \"${N}\"}\n",
/// );
/// let mut variables = Variables::default();
/// variables.set("N", "3", false)?;
/// let rendered = substitute(render(&tree, "dev")?, &variables)?;
/// assert_eq!(rendered.objects[0].name(), "web");
/// assert_eq!(rendered.objects[0].value()["spec"]["replicas"], 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn substitute(mut rendered: Rendered, variables: &Variables) -> Result<Rendered, SubstituteError> {
    let mut pass = Pass {
        evaluator: Evaluator::new(variables),
        path: Vec::new(),
        confidential: std::mem::take(&mut rendered.confidential),
        is_text_map: false,
    };
    for value in variables.secrets() {
        pass.confidential.add(value);
    }
    for (at, object) in rendered.objects.iter_mut().enumerate() {
        if is_disabled(object.value()) || !mentions(object.value()) {
            continue;
        }
        let name = object.object_ref().to_string();
        let source_at = || rendered.sources.get(at).map(ToString::to_string).unwrap_or_default();
        let fail = |field: String, problem: String| SubstituteError {
            object: name.clone(),
            source_at: source_at(),
            field,
            problem,
        };
        let mut value = object.value().clone();
        pass.is_text_map = matches!(value["kind"].as_str(), Some("ConfigMap" | "Secret"));
        pass.path.clear();
        pass.value(&mut value).map_err(|problem| fail(pass.field(), problem))?;
        if let Some(steps) = rendered.steps.get_mut(at) {
            let source = rendered.sources.get(at).cloned().unwrap_or_default();
            steps.extend(Step::new("substitute", &source).between(object.value(), &value));
        }
        *object = Object::new(value).map_err(|problem| fail(String::new(), problem.to_string()))?;
    }
    rendered.confidential = pass.confidential;
    rendered.confidential.reveal_names(&rendered.objects);
    Ok(rendered)
}

fn is_disabled(value: &Value) -> bool {
    ["labels", "annotations"]
        .iter()
        .any(|field| MARKS.iter().any(|mark| value["metadata"][*field][*mark] == DISABLED))
}

/// Whether there is anything to put in.
fn mentions(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('$'),
        Value::Array(items) => items.iter().any(mentions),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('$') || mentions(value)),
        _ => false,
    }
}

struct Pass<'v> {
    evaluator: Evaluator<'v>,
    path: Vec<String>,
    confidential: Confidential,
    /// Whether `data` of the object holds texts only.
    is_text_map: bool,
}

impl Pass<'_> {
    fn value(&mut self, value: &mut Value) -> Result<(), String> {
        match value {
            Value::String(text) if text.contains('$') => {
                *value = self.scalar(text)?;
                Ok(())
            }
            Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(at, item)| {
                self.path.push(at.to_string());
                self.value(item)?;
                self.path.pop();
                Ok(())
            }),
            Value::Object(map) => self.map(map),
            _ => Ok(()),
        }
    }

    fn map(&mut self, map: &mut Map<String, Value>) -> Result<(), String> {
        let renames = map.keys().any(|key| key.contains('$'));
        for (key, value) in map.iter_mut() {
            self.path.push(key.clone());
            self.value(value)?;
            self.path.pop();
        }
        if !renames {
            return Ok(());
        }
        let mut renamed = Map::with_capacity(map.len());
        for (key, value) in std::mem::take(map) {
            self.path.push(key.clone());
            let name = if key.contains('$') { self.text(&key)? } else { key };
            if renamed.insert(name, value).is_some() {
                return Err("with its variables put in, this key is there twice; rename one".to_owned());
            }
            self.path.pop();
        }
        *map = renamed;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<String, String> {
        let evaluated = self.evaluator.text(text)?;
        if evaluated.is_secret {
            self.confidential.add(&evaluated.text);
        }
        Ok(evaluated.text)
    }

    fn scalar(&mut self, text: &str) -> Result<Value, String> {
        let out = self.text(text)?;
        // Flux puts variables into the YAML text of an object: what YAML would write without quotes is
        // read again, and may become a number, a list, or lose quotes that a variable brought.
        if out == text || !is_written_plain(text) {
            return Ok(Value::String(out));
        }
        Ok(match reread(&out) {
            Some(value) if value.is_string() || !self.holds_texts() => value,
            _ => Value::String(out),
        })
    }

    /// Whether only texts can stand at the path.
    fn holds_texts(&self) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["data" | "stringData" | "binaryData", _] => self.is_text_map,
            [.., "metadata", "labels" | "annotations", _] | [.., "matchLabels" | "nodeSelector", _] => true,
            _ => false,
        }
    }

    fn field(&self) -> String {
        let escaped = self.path.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
        escaped.map(|part| format!("/{part}")).collect()
    }
}

/// What YAML reads where a text stands without quotes: a scalar, or a list or mapping in brackets. None where
/// it would read something else or nothing: then the text is meant as it is.
fn reread(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Some(Value::Null);
    }
    let in_brackets = trimmed.starts_with(['[', '{', '"', '\'']);
    let breaks = text.contains('\n')
        || trimmed.starts_with(['&', '*', '!', '|', '>', '%', '@', '`', '#'])
        || (!in_brackets && (text.contains(": ") || text.contains(" #") || trimmed.ends_with(':')))
        || trimmed.starts_with("---")
        || trimmed.starts_with("...");
    if breaks {
        return None;
    }
    let mut documents = read_nodes(trimmed, "", Dialect::Manifest).ok()?;
    let Some(document) = documents.pop().filter(|_| documents.is_empty()) else {
        // A document of nothing is null.
        return matches!(trimmed, "~" | "null" | "Null" | "NULL").then_some(Value::Null);
    };
    let fits = matches!(document.kind, NodeKind::Scalar(_)) || trimmed.starts_with(['[', '{']);
    fits.then(|| document.into_value())
}
