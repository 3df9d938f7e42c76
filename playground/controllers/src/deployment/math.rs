//! The arithmetic of a rollout: how many pods may be added or taken away.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a Deployment replaces its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Old pods go before new ones come.
    Recreate,
    /// New and old pods overlap within these bounds.
    Rolling {
        /// Pods above the wanted number.
        surge: i32,
        /// Pods below the wanted number.
        unavailable: i32,
    },
}

impl Strategy {
    pub fn of(deployment: &Deployment) -> Strategy {
        let Some(spec) = &deployment.spec else { return Strategy::Recreate };
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Strategy::Recreate;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let default = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&default);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&default);
        let wanted = replicas(spec);
        let (surge, unavailable) = bounds(surge, unavailable, wanted);
        Strategy::Rolling { surge, unavailable: if wanted == 0 { 0 } else { unavailable.min(wanted) } }
    }

    pub fn surge(self) -> i32 {
        match self {
            Strategy::Recreate => 0,
            Strategy::Rolling { surge, .. } => surge,
        }
    }

    pub fn unavailable(self) -> i32 {
        match self {
            Strategy::Recreate => 0,
            Strategy::Rolling { unavailable, .. } => unavailable,
        }
    }
}

pub(crate) fn replicas(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1).max(0)
}

/// Resolves both bounds: surge is rounded up, unavailable down; they cannot both be zero, or nothing could move
/// (ResolveFenceposts in Kubernetes' deployment/util).
pub(crate) fn bounds(surge: &IntOrString, unavailable: &IntOrString, wanted: i32) -> (i32, i32) {
    let surge = share(surge, wanted, true);
    let unavailable = share(unavailable, wanted, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A count, or a percentage of `total`; what cannot be read is 0.
pub(crate) fn share(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()) else {
                return 0;
            };
            let product = i64::from(total.max(0)).saturating_mul(percent.max(0));
            let share = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_round_surge_up_and_unavailable_down_and_never_both_to_zero() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (surge, unavailable, wanted, expected) in [
            (percent("25%"), percent("25%"), 3, (1, 0)),
            (percent("25%"), percent("25%"), 4, (1, 1)),
            (percent("25%"), percent("25%"), 10, (3, 2)),
            (IntOrString::Int(1), IntOrString::Int(0), 3, (1, 0)),
            (IntOrString::Int(0), IntOrString::Int(0), 3, (0, 1)),
            (percent("0%"), percent("10%"), 3, (0, 1)),
            (percent("200%"), percent("100%"), 3, (6, 3)),
            (percent("x"), IntOrString::Int(-3), 3, (0, 1)),
        ] {
            assert_eq!(bounds(&surge, &unavailable, wanted), expected, "{surge:?} {unavailable:?} {wanted}");
        }
    }
}
