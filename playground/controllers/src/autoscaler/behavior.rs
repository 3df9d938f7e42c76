//! How fast a target may grow and shrink: stabilization windows and scaling policies.
//!
//! Rules: Kubernetes' `pkg/controller/podautoscaler/horizontal.go` and KEP-853.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How far a ratio may be from 1 without a change, unless the rules name another tolerance.
const TOLERANCE: f64 = 0.1;
/// The window of scaling down, in seconds, unless the rules name another one.
const DOWN_WINDOW: i32 = 300;

/// One policy: by how much in which time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Policy {
    percent: bool,
    value: i64,
    /// In seconds.
    period: i64,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Select {
    /// That which allows the greatest change.
    Most,
    /// That which allows the smallest change.
    Least,
    /// None: there is no change in this direction.
    Disabled,
}

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// In seconds.
    window: i64,
    select: Select,
    policies: Vec<Policy>,
    /// How far a ratio may be from 1 in this direction without a change.
    pub tolerance: f64,
}

impl Rules {
    /// The rules with Kubernetes' defaults for what they leave open.
    fn of(rules: Option<&HPAScalingRules>, window: i32, policies: Vec<Policy>) -> Rules {
        let given = rules.and_then(|rules| rules.policies.as_ref()).filter(|given| !given.is_empty());
        let policies = given.map_or(policies, |given| {
            given
                .iter()
                .map(|policy| Policy {
                    percent: policy.type_ == "Percent",
                    value: i64::from(policy.value),
                    period: i64::from(policy.period_seconds),
                })
                .collect()
        });
        let select = match rules.and_then(|rules| rules.select_policy.as_deref()) {
            Some("Disabled") => Select::Disabled,
            Some("Min") => Select::Least,
            _ => Select::Most,
        };
        let window = rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(window);
        let tolerance = rules
            .and_then(|rules| engine::object::Quantity::parse(&rules.tolerance.as_ref()?.0))
            .map(|tolerance| tolerance.value())
            .filter(|tolerance| *tolerance >= 0.0)
            .unwrap_or(TOLERANCE);
        Rules { window: i64::from(window.max(0)), select, policies, tolerance }
    }

    /// The rules of scaling up.
    pub fn up(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Rules {
        let policies = vec![
            Policy { percent: false, value: 4, period: 15 },
            Policy { percent: true, value: 100, period: 15 },
        ];
        Rules::of(behavior.and_then(|behavior| behavior.scale_up.as_ref()), 0, policies)
    }

    /// The rules of scaling down.
    pub fn down(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Rules {
        let policies = vec![Policy { percent: true, value: 100, period: 15 }];
        Rules::of(behavior.and_then(|behavior| behavior.scale_down.as_ref()), DOWN_WINDOW, policies)
    }
}

/// What an autoscaler has wanted and done, newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    wanted: Vec<(Timestamp, i32)>,
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

/// Longest window and period that the API admits, in seconds.
const LONGEST: i64 = 3600;

fn after(at: Timestamp, now: Timestamp, seconds: i64) -> bool {
    now.duration_since(at) < jiff::SignedDuration::from_secs(seconds)
}

impl History {
    /// Remembers the first size that was seen, so that a new autoscaler does not shrink its target at once.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.wanted.is_empty() {
            self.wanted.push((now, current));
        }
    }

    /// Remembers what the metrics ask for.
    fn want(&mut self, desired: i32, now: Timestamp) {
        self.wanted.retain(|(at, _)| after(*at, now, LONGEST + 1));
        self.wanted.push((now, desired));
    }

    /// Remembers a change of the target's size.
    pub fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        let events = if to > from { &mut self.ups } else { &mut self.downs };
        events.retain(|(at, _)| after(*at, now, LONGEST + 1));
        events.push((now, to.abs_diff(from).try_into().unwrap_or(i32::MAX)));
    }

    /// The size at the beginning of the period.
    fn size_before(&self, current: i32, period: i64, now: Timestamp) -> i64 {
        let sum = |events: &[(Timestamp, i32)]| -> i64 {
            events
                .iter()
                .filter(|(at, _)| after(*at, now, period))
                .map(|(_, change)| i64::from(*change))
                .sum()
        };
        i64::from(current) - sum(&self.ups) + sum(&self.downs)
    }
}

/// A size within bounds, with what to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Normalized {
    /// The size to scale to.
    pub desired: i32,
    /// Reason and message of AbleToScale.
    pub able: (&'static str, &'static str),
    /// Whether, with which reason and message, ScalingLimited.
    pub limited: (bool, &'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const TOO_FAST: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const WITHIN: (bool, &str, &str) =
    (false, "DesiredWithinRange", "the desired count is within the acceptable range");

fn limited((reason, message): (&'static str, &'static str)) -> (bool, &'static str, &'static str) {
    (true, reason, message)
}

/// Bounds the wanted size by windows, policies, `min` and `max`, and remembers it.
pub(crate) fn normalize(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &mut History,
    current: i32,
    wanted: i32,
    (min, max): (i32, i32),
    now: Timestamp,
) -> Normalized {
    let (stable, stabilized) = match behavior {
        Some(_) => stabilize(behavior, history, current, wanted, now),
        None => {
            let recent = history.wanted.iter().filter(|(at, _)| after(*at, now, i64::from(DOWN_WINDOW) + 1));
            (recent.map(|(_, size)| *size).fold(wanted, i32::max), DOWN_STABILIZED)
        }
    };
    history.want(wanted, now);
    let able = if stable == wanted { READY } else { stabilized };
    let (desired, limited) = match behavior {
        Some(_) => limit_by_rules(behavior, history, current, stable, (min, max), now),
        None => limit(current, stable, (min, max)),
    };
    Normalized { desired, able, limited }
}

/// The size that the windows allow.
fn stabilize(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &History,
    current: i32,
    wanted: i32,
    now: Timestamp,
) -> (i32, (&'static str, &'static str)) {
    let recent = |window| {
        let recent = history.wanted.iter().filter(move |(at, _)| after(*at, now, window));
        recent.map(|(_, size)| *size)
    };
    let lowest = recent(Rules::up(behavior).window).fold(wanted, i32::min);
    let highest = recent(Rules::down(behavior).window).fold(wanted, i32::max);
    let told = if wanted >= current { UP_STABILIZED } else { DOWN_STABILIZED };
    (current.max(lowest).min(highest), told)
}

/// The bounds without a behavior: a target doubles at most, but may always grow to 4.
fn limit(current: i32, desired: i32, (min, max): (i32, i32)) -> (i32, (bool, &'static str, &'static str)) {
    let fastest = current.saturating_mul(2).max(4);
    let (most, why) = if max > fastest { (fastest, TOO_FAST) } else { (max, TOO_MANY) };
    if desired < min {
        (min, limited(TOO_FEW))
    } else if desired > most {
        (most, limited(why))
    } else {
        (desired, WITHIN)
    }
}

fn limit_by_rules(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &History,
    current: i32,
    desired: i32,
    (min, max): (i32, i32),
    now: Timestamp,
) -> (i32, (bool, &'static str, &'static str)) {
    if desired > current {
        let fastest = up_limit(&Rules::up(behavior), history, current, now).max(current);
        let (most, why) = if max > fastest { (fastest, TOO_FAST) } else { (max, TOO_MANY) };
        if desired > most {
            return (most, limited(why));
        }
    } else if desired < current {
        let fastest = down_limit(&Rules::down(behavior), history, current, now).min(current);
        let (least, why) = if min < fastest { (fastest, TOO_FAST_DOWN) } else { (min, TOO_FEW) };
        if desired < least {
            return (least, limited(why));
        }
    }
    (desired, WITHIN)
}

fn up_limit(rules: &Rules, history: &History, current: i32, now: Timestamp) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let before = history.size_before(current, policy.period, now);
        if policy.percent {
            (before as f64 * (1.0 + policy.value as f64 / 100.0)).ceil() as i64
        } else {
            before.saturating_add(policy.value)
        }
    });
    let limit = match rules.select {
        Select::Disabled => None,
        Select::Least => limits.min(),
        Select::Most => limits.max(),
    };
    limit.map_or(current, clamped)
}

fn down_limit(rules: &Rules, history: &History, current: i32, now: Timestamp) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let before = history.size_before(current, policy.period, now);
        if policy.percent {
            (before as f64 * (1.0 - policy.value as f64 / 100.0)) as i64
        } else {
            before.saturating_sub(policy.value)
        }
    });
    let limit = match rules.select {
        Select::Disabled => None,
        // The smallest change leaves the most.
        Select::Least => limits.max(),
        Select::Most => limits.min(),
    };
    limit.map_or(current, clamped)
}

fn clamped(size: i64) -> i32 {
    i32::try_from(size.max(0)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn behavior(value: Value) -> Option<HorizontalPodAutoscalerBehavior> {
        if value.is_null() { None } else { Some(serde_json::from_value(value).unwrap()) }
    }

    #[test]
    fn sizes_are_bounded() {
        let fast_down = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
        let pods = |direction: &str, select: &str| {
            json!({direction: {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                {"type": "Pods", "value": 1, "periodSeconds": 60},
                {"type": "Percent", "value": 50, "periodSeconds": 60}]}})
        };
        // behavior, current, wanted, desired, reason of ScalingLimited
        for (rules, current, wanted, desired, reason) in [
            (Value::Null, 2, 3, 3, "DesiredWithinRange"),
            (Value::Null, 1, 9, 4, "ScaleUpLimit"),
            (Value::Null, 3, 9, 6, "ScaleUpLimit"),
            (Value::Null, 8, 30, 10, "TooManyReplicas"),
            (Value::Null, 2, 0, 2, "DesiredWithinRange"),
            (fast_down.clone(), 8, 3, 3, "DesiredWithinRange"),
            (fast_down.clone(), 8, 0, 1, "TooFewReplicas"),
            (fast_down.clone(), 2, 9, 6, "ScaleUpLimit"),
            (fast_down.clone(), 8, 99, 10, "TooManyReplicas"),
            (pods("scaleUp", "Max"), 4, 9, 6, "ScaleUpLimit"),
            (pods("scaleUp", "Min"), 4, 9, 5, "ScaleUpLimit"),
            (pods("scaleUp", "Disabled"), 4, 9, 4, "ScaleUpLimit"),
            (pods("scaleDown", "Max"), 8, 1, 4, "ScaleDownLimit"),
            (pods("scaleDown", "Min"), 8, 1, 7, "ScaleDownLimit"),
            (pods("scaleDown", "Disabled"), 8, 1, 8, "ScaleDownLimit"),
        ] {
            let mut history = History::default();
            history.begin(current, at(0));
            let got =
                normalize(behavior(rules.clone()).as_ref(), &mut history, current, wanted, (1, 10), at(1));
            assert_eq!((got.desired, got.limited.1), (desired, reason), "{rules} {current} -> {wanted}");
            assert_eq!(got.limited.0, reason != "DesiredWithinRange");
        }
    }

    #[test]
    fn a_window_keeps_the_most_cautious_recent_size() {
        let rules = behavior(json!({
            "scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 120}}));
        let mut history = History::default();
        history.begin(4, at(0));
        // second, wanted, desired, reason of AbleToScale; the size stays 4
        for (second, wanted, desired, reason) in [
            (10, 6, 4, "ScaleUpStabilized"),
            (30, 5, 4, "ScaleUpStabilized"),
            (61, 6, 5, "ScaleUpStabilized"),
            (100, 2, 4, "ScaleDownStabilized"),
            (182, 2, 2, "ReadyForNewScale"),
        ] {
            let got = normalize(rules.as_ref(), &mut history, 4, wanted, (1, 10), at(second));
            assert_eq!((got.desired, got.able.0), (desired, reason), "second {second}");
        }
    }

    #[test]
    fn without_behavior_a_target_shrinks_after_five_minutes() {
        let mut history = History::default();
        history.begin(5, at(0));
        for (second, desired) in [(15, 5), (300, 5), (301, 1)] {
            let got = normalize(None, &mut history, 5, 1, (1, 10), at(second));
            assert_eq!(got.desired, desired, "second {second}");
        }
    }

    #[test]
    fn what_happened_in_the_period_counts() {
        let rules =
            behavior(json!({"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}));
        let mut history = History::default();
        history.begin(3, at(0));
        history.scaled(3, 5, at(10));
        let limit = |history: &History, second| up_limit(&Rules::up(rules.as_ref()), history, 5, at(second));
        assert_eq!(limit(&history, 30), 5, "two were added 20 seconds ago");
        assert_eq!(limit(&history, 70), 7);
        history.scaled(5, 4, at(71));
        assert_eq!(limit(&history, 72), 8, "one that went may come back");
    }
}
