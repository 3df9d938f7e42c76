//! CEL expressions of policies and custom resources, compiled once.

use engine::policy::cel::Expression;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Expressions that stay compiled; beyond it the memory starts anew.
const MOST: usize = 2000;

type Compiled = Result<Arc<Expression>, String>;

static COMPILED: LazyLock<Mutex<HashMap<String, Compiled>>> = LazyLock::new(Mutex::default);

/// The compiled form of an expression, or what is wrong with it.
pub fn compiled(source: &str) -> Compiled {
    let known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
    if let Some(known) = known {
        return known;
    }
    let made = Expression::compile(source).map(Arc::new).map_err(|error| error.to_string());
    let mut all = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= MOST {
        all.clear();
    }
    all.insert(source.to_owned(), made.clone());
    made
}

/// What is wrong with an expression, in the words of cel-go's compiler; `None` when nothing is.
pub fn complaint(source: &str) -> Option<String> {
    let errors = match cel::Program::compile(source) {
        Ok(_) => return compiled(source).err().map(|why| format!("compilation failed: {why}")),
        Err(errors) => errors,
    };
    let first = errors.errors.first()?;
    let (line, column) = (first.pos.0.max(1) as usize, first.pos.1.max(0) as usize);
    let text = source.lines().nth(line - 1).unwrap_or_default();
    let dots = ".".repeat(column.saturating_sub(1));
    Some(format!("compilation failed: ERROR: <input>:{line}:{column}: {}\n | {text}\n | {dots}^", first.msg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_compiled_or_complained_about() {
        assert!(compiled("self.size <= self.max").is_ok());
        assert_eq!(complaint("object.spec.x > 1"), None);
        assert_eq!(
            complaint("object.spec.(").unwrap(),
            "compilation failed: ERROR: <input>:1:13: Syntax error: no viable alternative at input '.('\n | object.spec.(\n | \
             ............^"
        );
    }
}
