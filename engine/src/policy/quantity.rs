//! Amounts of resources: `500m`, `1.5Gi`, as Kubernetes writes and compares them.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

use std::any::Any;
use std::cmp::Ordering;

use cel::common::traits::Comparer;
use cel::common::types::{CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use crate::object;

static QUANTITY: Type = Type::new_unspecified_type("kubernetes.Quantity");

/// Billionths of one: the smallest amount that Kubernetes tells apart.
const ONE: i128 = 1_000_000_000;

/// An amount, in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

impl Quantity {
    /// Reads an amount. Amounts finer than a billionth are rounded up, as Kubernetes does.
    pub(super) fn parse(text: &str) -> Option<Self> {
        object::Quantity::parse(text).map(|amount| Self(amount.nano()))
    }
}

impl Val for Quantity {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &QUANTITY
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Quantity>() == Some(self)
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Quantity {}

impl Comparer for Quantity {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other =
            other.downcast_ref::<Quantity>().ok_or_else(|| error("compareTo", "a quantity is needed"))?;
        Ok(self.cmp(other))
    }
}

fn error(function: &str, message: &str) -> ExecutionError {
    ExecutionError::function_error(function, message)
}

/// Adds the functions on quantities.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn quantity: (CelString) -> Result<Quantity>)?;
    cel::add_overload!(env, fn is_quantity: (CelString) -> CelBool)?;
    cel::add_member_overload!(env, fn sign: (Quantity) -> CelInt)?;
    cel::add_member_overload!(env, fn is_integer: (Quantity) -> CelBool)?;
    cel::add_member_overload!(env, fn as_integer: (Quantity) -> Result<CelInt>)?;
    cel::add_member_overload!(env, fn as_approximate_float: (Quantity) -> CelDouble)?;
    cel::add_member_overload!(env, fn is_greater_than: (Quantity, Quantity) -> CelBool)?;
    cel::add_member_overload!(env, fn is_less_than: (Quantity, Quantity) -> CelBool)?;
    cel::add_member_overload!(env, fn compare_to: (Quantity, Quantity) -> CelInt)?;
    cel::add_member_overload!(env, fn add: (Quantity, Quantity) -> Result<Quantity>)?;
    cel::add_member_overload!(env, fn add_integer: (Quantity, CelInt) -> Result<Quantity>, name = "add")?;
    cel::add_member_overload!(env, fn sub: (Quantity, Quantity) -> Result<Quantity>)?;
    cel::add_member_overload!(env, fn sub_integer: (Quantity, CelInt) -> Result<Quantity>, name = "sub")?;
    Ok(())
}

fn quantity(text: &CelString) -> Result<Quantity, ExecutionError> {
    Quantity::parse(text.inner()).ok_or_else(|| error("quantity", "the text is not a quantity"))
}

fn is_quantity(text: &CelString) -> CelBool {
    Quantity::parse(text.inner()).is_some().into()
}

fn sign(this: &Quantity) -> CelInt {
    CelInt::from(this.0.signum() as i64)
}

fn integer(this: &Quantity) -> Option<i64> {
    if this.0 % ONE == 0 { i64::try_from(this.0 / ONE).ok() } else { None }
}

fn is_integer(this: &Quantity) -> CelBool {
    integer(this).is_some().into()
}

fn as_integer(this: &Quantity) -> Result<CelInt, ExecutionError> {
    integer(this).map(CelInt::from).ok_or_else(|| error("asInteger", "the quantity is no integer of 64 bits"))
}

fn as_approximate_float(this: &Quantity) -> CelDouble {
    CelDouble::from(this.0 as f64 / ONE as f64)
}

fn is_greater_than(this: &Quantity, other: &Quantity) -> CelBool {
    (this > other).into()
}

fn is_less_than(this: &Quantity, other: &Quantity) -> CelBool {
    (this < other).into()
}

fn compare_to(this: &Quantity, other: &Quantity) -> CelInt {
    CelInt::from(this.cmp(other) as i64)
}

fn add(this: &Quantity, other: &Quantity) -> Result<Quantity, ExecutionError> {
    this.0.checked_add(other.0).map(Quantity).ok_or_else(|| error("add", "the quantity is too large"))
}

fn sub(this: &Quantity, other: &Quantity) -> Result<Quantity, ExecutionError> {
    this.0.checked_sub(other.0).map(Quantity).ok_or_else(|| error("sub", "the quantity is too large"))
}

fn add_integer(this: &Quantity, other: &CelInt) -> Result<Quantity, ExecutionError> {
    add(this, &Quantity(i128::from(*other.inner()) * ONE))
}

fn sub_integer(this: &Quantity, other: &CelInt) -> Result<Quantity, ExecutionError> {
    sub(this, &Quantity(i128::from(*other.inner()) * ONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        let billionths = |text: &str| Quantity::parse(text).map(|quantity| quantity.0);
        for (text, expected) in [
            ("0", 0),
            ("1", ONE),
            ("500m", ONE / 2),
            ("0.5", ONE / 2),
            (".5", ONE / 2),
            ("5.", 5 * ONE),
            ("1.5Gi", 3 * 1024 * 1024 * 512 * ONE),
            ("-1k", -1000 * ONE),
            ("+2M", 2_000_000 * ONE),
            ("1e3", 1000 * ONE),
            ("12E-1", ONE + ONE / 5),
            ("1E", 1_000_000_000_000_000_000 * ONE),
            ("1n", 1),
            ("0.1n", 1),
            ("8Ei", 8 * 1024_i128.pow(6) * ONE),
        ] {
            assert_eq!(billionths(text), Some(expected), "{text}");
        }
        for text in
            ["", "-", ".", "1.2.3", "1x", "1 Gi", "Gi", "1e", "1e99", "1ki", "１", &"9".repeat(40), "9e30Gi"]
        {
            assert_eq!(billionths(text), None, "{text}");
        }
    }
}
