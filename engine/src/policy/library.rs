//! The functions that Kubernetes adds to CEL, as far as they need nothing but their arguments.
//!
//! <https://kubernetes.io/docs/reference/using-api/cel/#cel-options-language-features-and-libraries>

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelString, LIST_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError, extensions};
use regex::{Regex, RegexBuilder};

/// Bound of a compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;
/// Most matches that `findAll` gives.
const MAX_MATCHES: usize = 10_000;

/// CEL with its standard functions and those of Kubernetes.
pub(super) fn environment() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings)?;
    cel::add_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>, id = "matches_string")?;
    cel::add_member_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>)?;
    cel::add_member_overload!(env, fn find: (CelString, CelString) -> Result<CelString>)?;
    cel::add_member_overload!(env, fn find_all: (CelString, CelString) -> Result<CelList>)?;
    cel::add_member_overload!(env, fn find_some: (CelString, CelString, CelInt) -> Result<CelList>,
        name = "findAll")?;
    env.add_member_overload("isSorted", "list.isSorted()", LIST_TYPE, vec![], is_sorted)?;
    env.add_member_overload("sum", "list.sum()", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("min", "list.min()", LIST_TYPE, vec![], min)?;
    env.add_member_overload("max", "list.max()", LIST_TYPE, vec![], max)?;
    env.add_member_overload(
        "indexOf",
        "list.indexOf(dyn)",
        LIST_TYPE,
        vec![cel::common::types::DYN_TYPE],
        index_of,
    )?;
    env.add_extension(super::quantity::extension)?;
    Ok(env)
}

/// Functions by name, but for operators. Whether one exists is said when an expression is read: a policy
/// that fails only when it is asked would refuse everything.
const FUNCTIONS: [&str; 62] = [
    "add",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "bytes",
    "charAt",
    "compareTo",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "find",
    "findAll",
    "format",
    "has",
    "hasValue",
    "indexOf",
    "int",
    "isGreaterThan",
    "isInteger",
    "isLessThan",
    "isQuantity",
    "isSorted",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "max",
    "min",
    "none",
    "of",
    "ofNonZeroValue",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "optMap",
    "optFlatMap",
    "quantity",
    "quote",
    "replace",
    "reverse",
    "sign",
    "size",
    "split",
    "startsWith",
    "string",
    "strings.quote",
    "sub",
    "substring",
    "sum",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "value",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
];

/// Whether a function, as an expression refers to it, can be called.
pub(super) fn has_function(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_alphabetic()) || FUNCTIONS.contains(&name)
}

fn regex(function: &str, pattern: &CelString) -> Result<Regex, ExecutionError> {
    RegexBuilder::new(pattern.inner()).size_limit(MAX_REGEX).build().map_err(|error| {
        let text = error.to_string();
        // The crate draws its errors over several lines; the last one says what is wrong.
        let message = text.lines().last().unwrap_or(&text).trim_start_matches("error: ");
        ExecutionError::function_error(function, message)
    })
}

fn matches(text: &CelString, pattern: &CelString) -> Result<CelBool, ExecutionError> {
    Ok(regex("matches", pattern)?.is_match(text.inner()).into())
}

/// The first match; empty if there is none.
fn find(text: &CelString, pattern: &CelString) -> Result<CelString<'static>, ExecutionError> {
    let found = regex("find", pattern)?.find(text.inner()).map(|found| found.as_str().to_owned());
    Ok(found.unwrap_or_default().into())
}

fn find_all(text: &CelString, pattern: &CelString) -> Result<CelList<'static>, ExecutionError> {
    find_some(text, pattern, &CelInt::from(-1))
}

/// The first matches, as many as are asked for; all of them for a negative number.
fn find_some(
    text: &CelString,
    pattern: &CelString,
    most: &CelInt,
) -> Result<CelList<'static>, ExecutionError> {
    let most = usize::try_from(*most.inner()).unwrap_or(MAX_MATCHES).min(MAX_MATCHES);
    let pattern = regex("findAll", pattern)?;
    let found = pattern.find_iter(text.inner()).take(most);
    let items: Vec<Box<dyn Val>> =
        found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as Box<dyn Val>).collect();
    Ok(items.into())
}

fn items<'b, 'v>(
    function: &str,
    list: &'b (dyn Val + 'v),
) -> Result<Vec<&'b (dyn Val + 'v)>, ExecutionError> {
    let iterable =
        list.as_iterable().ok_or_else(|| ExecutionError::function_error(function, "a list is needed"))?;
    let mut items = Vec::new();
    let mut iter = iterable.iter();
    while let Some(item) = iter.next() {
        items.push(item);
    }
    Ok(items)
}

fn compare(function: &str, a: &dyn Val, b: &dyn Val) -> Result<std::cmp::Ordering, ExecutionError> {
    let comparer = a
        .as_comparer()
        .ok_or_else(|| ExecutionError::function_error(function, "the elements have no order"))?;
    comparer.compare(b)
}

fn this<'b, 'v>(function: &str, args: &'b [CowVal<'_, 'v>]) -> Result<&'b (dyn Val + 'v), ExecutionError> {
    args.first()
        .map(|value| value.as_ref())
        .ok_or_else(|| ExecutionError::function_error(function, "a list is needed"))
}

fn is_sorted<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let items = items("isSorted", this("isSorted", &args)?)?;
    for pair in items.windows(2) {
        if compare("isSorted", pair[0], pair[1])?.is_gt() {
            return Ok(CowVal::owned(CelBool::from(false)));
        }
    }
    Ok(CowVal::owned(CelBool::from(true)))
}

/// The sum of whole numbers, or of others; 0 for an empty list.
fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut whole: Option<i64> = Some(0);
    let mut float = 0.0;
    let mut all_whole = true;
    for item in items("sum", this("sum", &args)?)? {
        if let Some(number) = item.downcast_ref::<CelInt>() {
            whole = whole.and_then(|sum| sum.checked_add(*number.inner()));
            float += *number.inner() as f64;
        } else if let Some(number) = item.downcast_ref::<CelDouble>() {
            all_whole = false;
            float += *number.inner();
        } else {
            return Err(ExecutionError::function_error("sum", "the elements must be numbers"));
        }
    }
    match (all_whole, whole) {
        (true, Some(sum)) => Ok(CowVal::owned(CelInt::from(sum))),
        (true, None) => Err(ExecutionError::function_error("sum", "the number is too large")),
        (false, _) => Ok(CowVal::owned(CelDouble::from(float))),
    }
}

fn extreme<'b, 'v>(
    function: &'static str,
    wanted: std::cmp::Ordering,
    args: &[CowVal<'b, 'v>],
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut best: Option<&(dyn Val + 'v)> = None;
    for item in items(function, this(function, args)?)? {
        let better = match best {
            Some(best) => compare(function, item, best)? == wanted,
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    match best {
        Some(item) => Ok(CowVal::Owned(item.clone_as_boxed())),
        None => Err(ExecutionError::function_error(function, "the list is empty")),
    }
}

fn min<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    extreme("min", std::cmp::Ordering::Less, &args)
}

fn max<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    extreme("max", std::cmp::Ordering::Greater, &args)
}

fn index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let wanted = args.get(1).ok_or_else(|| ExecutionError::function_error("indexOf", "a value is needed"))?;
    let items = items("indexOf", this("indexOf", &args)?)?;
    let found = items.iter().position(|item| item.equals(wanted.as_ref()));
    Ok(CowVal::owned(CelInt::from(found.map_or(-1, |i| i as i64))))
}
