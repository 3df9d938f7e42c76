//! Expressions in CEL, as Kubernetes evaluates them in policies and schemas, with bounded cost.
//!
//! What an expression may cost is estimated before it runs, from its shape and from the size of the
//! values that it is given: an expression can neither run for long nor make large values.

use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Program, Value as CelValue};
use serde_json::Value;

use super::{cost, library};

/// The longest expression that is read, in bytes.
pub const MAX_EXPRESSION: usize = 16 * 1024;

/// Expressions of this depth are evaluated where they are.
const SHALLOW: usize = 16;

/// The stack for deeper ones, and for reading any: the parser takes over 100 KiB for a pair of brackets
/// in an unoptimised build. Memory that is not used is never touched.
const STACK: usize = 128 << 20;

/// Runs something that recurses deeply on a stack of its own. None if there is no memory for one.
fn deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).ok()?;
        thread.join().ok()
    })
}

static ENVIRONMENT: LazyLock<Result<Arc<Env>, String>> =
    LazyLock::new(|| library::environment().map(Arc::new).map_err(|error| error.to_string()));

/// An expression that cannot be compiled or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// It is not CEL.
    #[error("expression {expression:?} cannot be read: {message}")]
    Syntax {
        /// The expression.
        expression: String,
        /// What is wrong.
        message: String,
    },
    /// It needs something that only an API server has, or that is not built in.
    #[error("expression {expression:?} uses {name}, which is not supported here")]
    Unsupported {
        /// The expression.
        expression: String,
        /// The function or variable.
        name: String,
    },
    /// It fails on the values that it was given.
    #[error("expression {expression:?} cannot be evaluated: {message}")]
    Evaluation {
        /// The expression.
        expression: String,
        /// What is wrong.
        message: String,
    },
    /// It could take too long, or make too large a value.
    #[error("expression {expression:?} is too expensive for objects of this size")]
    TooExpensive {
        /// The expression.
        expression: String,
    },
    /// It gives another type than is needed here.
    #[error("expression {expression:?} must give {wanted}")]
    WrongType {
        /// The expression.
        expression: String,
        /// What is needed.
        wanted: &'static str,
    },
}

/// A compiled expression.
pub struct Expression {
    program: Program,
    source: String,
    /// Nodes below one another.
    depth: usize,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// [`CelError::Syntax`] if it is not CEL, or too long or too deep; [`CelError::Unsupported`] if it
    /// calls what is not there.
    pub fn compile(source: &str) -> Result<Self, CelError> {
        let error = |message: String| CelError::Syntax { expression: excerpt(source), message };
        if source.len() > MAX_EXPRESSION {
            return Err(error(format!("it is longer than {MAX_EXPRESSION} bytes")));
        }
        let compiled = deep_stack(|| {
            let environment = ENVIRONMENT.as_ref().map_err(|message| error(message.clone()))?;
            let program = environment.compile(source).map_err(|errors| {
                let messages: Vec<String> = errors.errors.iter().map(|one| one.msg.clone()).collect();
                error(messages.join("; "))
            })?;
            let depth = cost::depth(program.expression());
            if depth > cost::MAX_DEPTH {
                return Err(error("it is nested too deeply".to_owned()));
            }
            let references = program.references();
            let unknown =
                references.functions().into_iter().filter(|name| !library::has_function(name)).min();
            if let Some(name) = unknown.map(|name| format!("{name}()")) {
                return Err(CelError::Unsupported { expression: excerpt(source), name });
            }
            if references.has_variable("authorizer") {
                let name = "authorizer".to_owned();
                return Err(CelError::Unsupported { expression: excerpt(source), name });
            }
            drop(references);
            Ok(Self { program, source: source.to_owned(), depth })
        });
        compiled.unwrap_or_else(|| Err(error("there is no memory for it".to_owned())))
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it mentions a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.program.references().has_variable(variable)
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// [`CelError::TooExpensive`] before it runs, [`CelError::Evaluation`] if it fails.
    pub fn evaluate(&self, scope: &Scope) -> Result<Outcome, CelError> {
        if !cost::is_affordable(self.program.expression(), scope.elements, scope.bytes) {
            return Err(CelError::TooExpensive { expression: excerpt(&self.source) });
        }
        let failed = |message| CelError::Evaluation { expression: excerpt(&self.source), message };
        let run = || self.program.execute(&scope.context).map(Outcome).map_err(|error| failed(plain(&error)));
        if self.depth <= SHALLOW {
            return run();
        }
        deep_stack(run).unwrap_or_else(|| Err(failed("there is no memory for it".to_owned())))
    }

    /// Evaluates it to a truth value.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and [`CelError::WrongType`].
    pub fn evaluate_bool(&self, scope: &Scope) -> Result<bool, CelError> {
        match self.evaluate(scope)?.0 {
            CelValue::Bool(value) => Ok(value),
            _ => Err(CelError::WrongType { expression: excerpt(&self.source), wanted: "true or false" }),
        }
    }

    /// Evaluates it to a text.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and [`CelError::WrongType`].
    pub fn evaluate_text(&self, scope: &Scope) -> Result<String, CelError> {
        match self.evaluate(scope)?.0 {
            CelValue::String(text) => Ok(text.as_ref().clone()),
            _ => Err(CelError::WrongType { expression: excerpt(&self.source), wanted: "a text" }),
        }
    }
}

/// What an expression gave.
#[derive(Debug, Clone)]
pub struct Outcome(CelValue);

impl Outcome {
    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let CelValue::Bool(value) = self.0 { Some(value) } else { None }
    }
}

/// The variables that an expression sees.
pub struct Scope {
    context: Context<'static, 'static>,
    /// Most elements in any list or map.
    elements: u64,
    /// Size of all values together, in bytes, roughly.
    bytes: u64,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    /// Without variables.
    pub fn new() -> Self {
        let context = match ENVIRONMENT.as_ref() {
            Ok(environment) => Context::with_env(Arc::clone(environment)),
            // Nothing compiles without the environment either.
            Err(_) => Context::empty(),
        };
        Self { context, elements: 0, bytes: 0 }
    }

    /// Adds a variable. A name may have dots: `variables.image` is seen as a field of `variables`.
    pub fn set(&mut self, name: &str, value: &Value) {
        let value = from_json(value);
        self.add(name, value);
    }

    /// Adds what another expression gave as a variable.
    pub fn set_outcome(&mut self, name: &str, outcome: Outcome) {
        self.add(name, outcome.0);
    }

    fn add(&mut self, name: &str, value: CelValue) {
        measure(&value, &mut self.elements, &mut self.bytes);
        self.context.add_variable_from_value(name, value);
    }
}

/// Counts the elements and bytes of a value.
fn measure(value: &CelValue, elements: &mut u64, bytes: &mut u64) {
    *bytes = bytes.saturating_add(8);
    match value {
        CelValue::List(items) => {
            *elements = (*elements).max(items.len() as u64);
            items.iter().for_each(|item| measure(item, elements, bytes));
        }
        CelValue::Map(map) => {
            *elements = (*elements).max(map.map.len() as u64);
            for (key, item) in map.map.iter() {
                if let Key::String(key) = key {
                    *bytes = bytes.saturating_add(key.len() as u64);
                }
                measure(item, elements, bytes);
            }
        }
        CelValue::String(text) => *bytes = bytes.saturating_add(text.len() as u64),
        CelValue::Bytes(content) => *bytes = bytes.saturating_add(content.len() as u64),
        _ => {}
    }
}

/// JSON as CEL sees it in Kubernetes: whole numbers are `int`, all others `double`.
fn from_json(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => CelValue::Int(integer),
            (None, Some(float)) => CelValue::Float(float),
            (None, None) => CelValue::Null,
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(from_json).collect())),
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| (Key::String(Arc::new(key.clone())), from_json(value)))
                .collect();
            CelValue::Map(Map { map: Arc::new(entries) })
        }
    }
}

/// An error without the values in it: they may be long, or secret.
fn plain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => format!("{name} is not known here"),
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("it is a {got}, a {want} is needed"),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("{actual} arguments are given, {expected} are needed")
        }
        ExecutionError::IndexOutOfBounds(_) => "the index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "the number is too large".to_owned(),
        ExecutionError::DuplicateKey(_) => "a key is given twice".to_owned(),
        _ => "the values are of types that do not go together".to_owned(),
    }
}

/// The beginning of an expression, for messages.
fn excerpt(source: &str) -> String {
    const LENGTH: usize = 200;
    let one_line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    if one_line.len() <= LENGTH {
        return one_line;
    }
    format!("{}…", &one_line[..one_line.floor_char_boundary(LENGTH)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let mut scope = Scope::new();
        scope.set(
            "object",
            &json!({
                "metadata": {"name": "backend", "labels": {"app": "shop"}},
                "spec": {"replicas": 3, "share": 0.5, "containers": [
                    {"name": "a", "image": "shop:v1"}, {"name": "b", "image": "side"}
                ]},
            }),
        );
        scope.set("oldObject", &Value::Null);
        scope
    }

    #[test]
    fn expressions_of_kubernetes_are_understood() {
        for (expression, expected) in [
            ("object.spec.replicas <= 5", true),
            ("object.spec.replicas + 1 == 4", true),
            ("object.spec.share < 1.0", true),
            ("oldObject == null", true),
            ("has(object.spec.paused)", false),
            ("!has(object.spec.paused) || object.spec.paused == false", true),
            ("object.spec.?paused.orValue(false)", false),
            ("object.?spec.?template.hasValue()", false),
            ("object.spec.containers.all(c, c.image.contains(':'))", false),
            ("object.spec.containers.exists(c, c.image.endsWith(':v1'))", true),
            ("object.spec.containers.exists_one(c, c.name == 'a')", true),
            ("object.spec.containers.filter(c, c.name != 'a').size() == 1", true),
            ("object.spec.containers.map(c, c.name).join(',') == 'a,b'", true),
            ("'app' in object.metadata.labels", true),
            ("object.metadata.labels.all(k, k.size() < 10)", true),
            ("object.metadata.labels['app'] == 'shop'", true),
            ("object.metadata.name.matches('^[a-z]+$')", true),
            ("object.metadata.name.find('[ae]') == 'a'", true),
            ("object.metadata.name.findAll('[abc]') == ['b', 'a', 'c']", true),
            ("'A-B'.lowerAscii().split('-') == ['a', 'b']", true),
            (
                "' x '.trim().upperAscii() == 'X' && 'abc'.substring(1) == 'bc' && 'abc'.replace('b', '') == 'ac'",
                true,
            ),
            ("[1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3", true),
            ("[1, 2].isSorted() && ![2, 1].isSorted()", true),
            ("['a', 'b'].indexOf('b') == 1", true),
            ("object.spec.replicas > 2 ? true : false", true),
            ("type(object.spec.replicas) == int", true),
            ("quantity('500m').isLessThan(quantity('0.6')) && quantity('1Gi') > quantity('1000Mi')", true),
            (
                "quantity('1k').asInteger() == 1000 && quantity('1').add(2).sub(quantity('3')).sign() == 0",
                true,
            ),
            ("isQuantity('1.5Gi') && !isQuantity('many') && quantity('1Ki') == quantity('1024')", true),
            ("optional.of(1).orValue(2) == 1 && string(1) == '1' && int('2') == 2 && double(1) == 1.0", true),
            ("'%s has %d'.format(['x', 2]) == 'x has 2'", true),
        ] {
            let result =
                Expression::compile(expression).and_then(|compiled| compiled.evaluate_bool(&scope()));
            assert_eq!(result, Ok(expected), "{expression}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong_and_show_no_values() {
        let fails = |expression: &str| {
            Expression::compile(expression)
                .and_then(|compiled| compiled.evaluate_bool(&scope()))
                .unwrap_err()
                .to_string()
        };
        for (expression, expected) in [
            ("object.spec.nope == 1", "no such key: nope"),
            ("unknown == 1", "unknown is not known here"),
            ("object.spec.nope() == 1", "uses nope(), which is not supported here"),
            ("duration('1h') > duration('1m')", "uses duration(), which is not supported here"),
            ("authorizer.group('').resource('pods').check('get').allowed()", "uses allowed(), which"),
            ("authorizer == null", "uses authorizer, which"),
            ("quantity('x').sign() == 0", "the text is not a quantity"),
            ("object.spec.replicas", "must give true or false"),
            ("object.spec.containers[7].name == ''", "out of bounds"),
            ("1 / 0 == 1", "division by zero"),
            ("object.metadata.name.matches('(')", "unclosed group"),
            ("object.metadata.name < 1", "'_<_'"),
            ("a b", "cannot be read"),
            ("", "cannot be read"),
        ] {
            let error = fails(expression);
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        }
    }

    #[test]
    fn an_expression_cannot_run_for_long_or_grow() {
        let mut scope = Scope::new();
        scope.set("many", &json!((0..2000).collect::<Vec<_>>()));
        scope.set("text", &json!("x".repeat(100_000)));
        let run =
            |expression: &str| Expression::compile(expression).and_then(|compiled| compiled.evaluate(&scope));
        assert!(run("many.all(a, a >= 0)").is_ok());
        let deep = "[text + text].map(a, [a + a].map(a, [a + a].map(a, [a + a].map(a, [a + a].map(a, [a + a].map(a, [a + a].map(a, [a + a + a + a + a + a].map(a, a + a + a + a + a + a + a + a))))))))";
        for expression in [
            "many.all(a, many.all(b, many.all(c, a + b + c > 0)))",
            "many.map(a, many).map(b, b.map(c, many)).size() > 0",
            "text.replace('', text).size() > 0",
            "text.split('').all(a, text.split('').all(b, a == b))",
            "many.map(a, text).join(text).size() > 0",
            deep,
        ] {
            assert!(matches!(run(expression), Err(CelError::TooExpensive { .. })), "{expression}");
        }
        for long in [
            format!("{}1", "1+".repeat(8000)),
            format!("{}1{}", "(".repeat(8000), ")".repeat(8000)),
            format!("a{}", ".a".repeat(8000)),
            format!("a{}", "[0]".repeat(5000)),
            "[".repeat(8000),
            "a".repeat(MAX_EXPRESSION + 1),
        ] {
            assert!(run(&long).is_err(), "{}", &long[..20]);
        }
        // Pairs of negations and long chains of conditions have no depth.
        assert!(run(&format!("{}true", "!".repeat(16_000))).is_ok());
        assert!(run(&format!("{}true", "true&&".repeat(2000))).is_ok());
    }
}
