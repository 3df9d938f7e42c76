//! What an expression may cost at most, before it runs.
//!
//! CEL has no loops but those over lists and maps, so a bound follows from the shape of the expression
//! and from the size of the values that it is given.

use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;

/// Steps of the interpreter that an evaluation may take. A step is in the order of 100 ns.
const STEPS: u64 = 50_000_000;
/// Size of the values that an evaluation may make, in bytes.
const BYTES: u64 = 64 << 20;
/// Nodes below one another that an expression may have. The interpreter recurses as deep.
pub(super) const MAX_DEPTH: usize = 250;

/// The most that a value can be, and what it takes to make it.
#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    /// Elements of any list or map in it.
    elements: u64,
    /// Its size.
    bytes: u64,
    /// Steps of the interpreter.
    steps: u64,
}

impl Bound {
    const SCALAR: Self = Self { elements: 0, bytes: 8, steps: 1 };

    fn and(self, other: Self) -> Self {
        Self {
            elements: self.elements.saturating_add(other.elements),
            bytes: self.bytes.saturating_add(other.bytes),
            steps: self.steps.saturating_add(other.steps),
        }
    }

    fn step(self) -> Self {
        Self { steps: self.steps.saturating_add(1), ..self }
    }
}

/// How many nodes of an expression are below one another. Does not recurse itself.
pub(super) fn depth(root: &Expression) -> usize {
    let mut open = vec![(root, 1)];
    let mut deepest = 0;
    while let Some((node, depth)) = open.pop() {
        deepest = deepest.max(depth);
        children(&node.expr, &mut |child| open.push((child, depth + 1)));
    }
    deepest
}

/// Calls back with every direct part of an expression.
fn children<'a>(expr: &'a Expr, visit: &mut dyn FnMut(&'a Expression)) {
    match expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(visit),
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].into_iter().for_each(visit);
        }
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Map(map) => map.entries.iter().for_each(|entry| entry_parts(&entry.expr, visit)),
        Expr::Struct(body) => body.entries.iter().for_each(|entry| entry_parts(&entry.expr, visit)),
        Expr::Select(select) => visit(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn entry_parts<'a>(entry: &'a EntryExpr, visit: &mut dyn FnMut(&'a Expression)) {
    match entry {
        EntryExpr::StructField(field) => visit(&field.value),
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key);
            visit(&entry.value);
        }
    }
}

/// Whether an expression stays within bounds on values with so many elements and bytes.
pub(super) fn is_affordable(root: &Expression, elements: u64, bytes: u64) -> bool {
    let mut estimate =
        Estimate { input: Bound { elements, bytes, steps: 1 }, locals: Vec::new(), largest: 0 };
    let total = estimate.of(root);
    total.steps <= STEPS && estimate.largest <= BYTES
}

struct Estimate<'a> {
    /// Any value of the scope.
    input: Bound,
    /// Variables of comprehensions, innermost last.
    locals: Vec<(&'a str, Bound)>,
    /// The largest value on the way.
    largest: u64,
}

impl<'a> Estimate<'a> {
    fn of(&mut self, node: &'a Expression) -> Bound {
        let bound = self.node(&node.expr);
        self.largest = self.largest.max(bound.bytes);
        bound
    }

    fn node(&mut self, expr: &'a Expr) -> Bound {
        match expr {
            Expr::Literal(LiteralValue::String(text)) => {
                Bound { bytes: text.inner().len() as u64, ..Bound::SCALAR }
            }
            Expr::Literal(LiteralValue::Bytes(_)) => {
                Bound { bytes: super::cel::MAX_EXPRESSION as u64, ..Bound::SCALAR }
            }
            Expr::Literal(_) | Expr::Unspecified => Bound::SCALAR,
            Expr::Ident(name) => {
                let local = self.locals.iter().rev().find(|(local, _)| local == name);
                Bound { steps: 1, ..local.map_or(self.input, |(_, bound)| *bound) }
            }
            Expr::Select(select) => {
                let operand = self.of(&select.operand).step();
                if select.test { Bound { steps: operand.steps, ..Bound::SCALAR } } else { operand }
            }
            Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => {
                let mut parts = Vec::new();
                children(expr, &mut |child| parts.push(child));
                let own = Bound { elements: 0, bytes: 8, steps: 1 };
                let all = parts.iter().fold(own, |sum, part| {
                    let part = self.of(part);
                    Bound { elements: sum.elements.max(part.elements), ..sum.and(part) }
                });
                Bound { elements: all.elements.max(parts.len() as u64), ..all }
            }
            Expr::Call(call) => {
                let target = call.target.as_deref().map(|target| self.of(target));
                let args: Vec<Bound> = call.args.iter().map(|arg| self.of(arg)).collect();
                self.call(&call.func_name, target, &args)
            }
            Expr::Comprehension(c) => {
                let range = self.of(&c.iter_range);
                let init = self.of(&c.accu_init);
                let rounds = range.elements.max(1);
                let depth = self.locals.len();
                self.locals.push((&c.iter_var, range));
                if let Some(second) = &c.iter_var2 {
                    self.locals.push((second, range));
                }
                // What the accumulator grows by in a round, seen as if it began empty.
                self.locals.push((&c.accu_var, Bound::default()));
                let condition = self.of(&c.loop_cond);
                let step = self.of(&c.loop_step);
                self.locals.truncate(depth);
                let accumulated = Bound {
                    elements: init.elements.saturating_add(rounds.saturating_mul(step.elements)),
                    bytes: init.bytes.saturating_add(rounds.saturating_mul(step.bytes)),
                    steps: 1,
                };
                self.largest = self.largest.max(accumulated.bytes);
                self.locals.push((&c.accu_var, accumulated));
                let result = self.of(&c.result);
                self.locals.truncate(depth);
                let each = condition.steps.saturating_add(step.steps).saturating_add(1);
                let steps = [range.steps, init.steps, result.steps, rounds.saturating_mul(each)];
                Bound { steps: steps.into_iter().fold(0, u64::saturating_add), ..result }
            }
        }
    }

    fn call(&mut self, name: &str, target: Option<Bound>, args: &[Bound]) -> Bound {
        let sum = target.into_iter().chain(args.iter().copied()).fold(Bound::default(), Bound::and);
        // Comparing, searching and matching walk through what they are given.
        let steps = sum.steps.saturating_add(1).saturating_add(sum.bytes / 256);
        let subject = target.unwrap_or_default();
        let argument = |i: usize| args.get(i).copied().unwrap_or_default();
        match name {
            operators::CONDITIONAL => {
                let (a, b) = (argument(1), argument(2));
                Bound {
                    elements: a.elements.max(b.elements),
                    bytes: a.bytes.max(b.bytes),
                    steps: sum.steps + 1,
                }
            }
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => {
                let value = argument(0);
                Bound { elements: value.elements, bytes: value.bytes, steps }
            }
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | "@in"
            | "_in_"
            | "size"
            | "matches"
            | "contains"
            | "startsWith"
            | "endsWith"
            | "indexOf"
            | "lastIndexOf"
            | "isSorted"
            | "hasValue"
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => {
                let walks =
                    !name.starts_with('_') || name.contains('=') || name.contains('<') || name.contains('>');
                let steps = if walks { steps } else { sum.steps.saturating_add(1) };
                Bound { steps, ..Bound::SCALAR }
            }
            // Every character may become an element of its own.
            "split" | "findAll" => {
                let bytes = subject.bytes.saturating_mul(24).saturating_add(8);
                Bound {
                    elements: subject.bytes.saturating_add(1),
                    bytes,
                    steps: steps.saturating_add(subject.bytes),
                }
            }
            "replace" => {
                let bytes =
                    subject.bytes.saturating_add(1).saturating_mul(argument(1).bytes.saturating_add(1));
                Bound { elements: 0, bytes, steps: steps.saturating_add(subject.bytes) }
            }
            "join" => {
                let glue = subject.elements.saturating_mul(argument(0).bytes);
                Bound { elements: 0, bytes: subject.bytes.saturating_add(glue), steps }
            }
            _ => Bound { steps, ..sum },
        }
    }
}
