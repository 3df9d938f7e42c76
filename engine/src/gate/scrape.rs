//! Values from two scrapes of the same pods.

use std::collections::BTreeMap;

use super::exposition::{Scrape, Series, number};
use super::{BadSelector, Measurement, Quantile, Query, Ratio, ScrapeQuery, Selector};

/// What a set of pods served, by name of the pod.
pub type Snapshot = BTreeMap<String, Scrape>;

/// Evaluates a query over two snapshots of the same set of pods, the older one first.
pub fn measure(
    previous: &Snapshot,
    current: &Snapshot,
    query: &ScrapeQuery,
    min_requests: u64,
) -> Measurement {
    match (&query.ratio, &query.quantile) {
        (Some(wanted), None) => ratio(previous, current, wanted, min_requests),
        (None, Some(wanted)) => quantile(previous, current, wanted, min_requests),
        _ => Measurement::BadQuery("set either ratio or quantile".to_owned()),
    }
}

impl Query {
    /// The query as evidence has it.
    pub fn resolved(&self) -> String {
        match self {
            Self::Promql { promql, .. } => promql.clone(),
            Self::Scrape(scrape) => scrape.to_string(),
        }
    }
}

/// The sum of the increases of `part` over the sum of the increases of `whole`.
///
/// Only pods in both snapshots count: what a pod did before it was first read is not known to belong to
/// this time. A counter that shrank was reset and counts from zero; a series that is new in a known pod
/// began at zero.
pub fn ratio(previous: &Snapshot, current: &Snapshot, wanted: &Ratio, min_requests: u64) -> Measurement {
    let selectors =
        Selector::parse(&wanted.part).and_then(|part| Ok((part, Selector::parse(&wanted.whole)?)));
    let (part, whole) = match selectors {
        Ok(selectors) => selectors,
        Err(error) => return bad(&error),
    };
    let mut sums = [0.0, 0.0];
    let mut found = false;
    for (series, increase) in increases(previous, current) {
        if whole.matches(series) {
            found = true;
            sums[1] += increase;
        }
        if part.matches(series) {
            sums[0] += increase;
        }
    }
    let [part, whole] = sums;
    match () {
        () if !found => Measurement::NoData,
        () if whole < min_requests as f64 => Measurement::LowSample { count: whole as u64 },
        () => Measurement::of(part / whole),
    }
}

/// A quantile of the observations between two snapshots, by the rules of Prometheus'
/// `histogram_quantile`: linear within a bucket, the upper bound of the last finite bucket beyond it.
pub fn quantile(
    previous: &Snapshot,
    current: &Snapshot,
    wanted: &Quantile,
    min_requests: u64,
) -> Measurement {
    if !(0.0..=1.0).contains(&wanted.q) {
        return Measurement::BadQuery("q must be between 0 and 1".to_owned());
    }
    let selector = match Selector::parse(&wanted.histogram) {
        Ok(selector) => selector,
        Err(error) => return bad(&error),
    };
    let mut buckets: Vec<Bucket> = Vec::new();
    for (series, increase) in increases(previous, current) {
        let Some(name) = series.name.strip_suffix("_bucket") else { continue };
        if !selector.matches_named(series, name) {
            continue;
        }
        let Some(bound) = number(series.label("le")).filter(|bound| !bound.is_nan()) else { continue };
        match buckets.binary_search_by(|bucket| bucket.bound.total_cmp(&bound)) {
            Ok(i) => buckets[i].count += increase,
            Err(i) => buckets.insert(i, Bucket { bound, count: increase }),
        }
    }
    let Some(last) = buckets.last() else { return Measurement::NoData };
    if last.bound != f64::INFINITY || buckets.len() < 2 {
        return Measurement::NoData;
    }
    if last.count < min_requests as f64 {
        return Measurement::LowSample { count: last.count as u64 };
    }
    Measurement::of(histogram_quantile(wanted.q, &mut buckets))
}

fn bad(error: &BadSelector) -> Measurement {
    Measurement::BadQuery(error.to_string())
}

struct Bucket {
    /// Upper bound, inclusive.
    bound: f64,
    /// Observations up to it.
    count: f64,
}

/// `buckets` are sorted, at least two, and the last is unbounded.
fn histogram_quantile(q: f64, buckets: &mut [Bucket]) -> f64 {
    // Buckets that were read at slightly different times may shrink; counts up to a bound cannot.
    let mut highest = 0.0_f64;
    for bucket in buckets.iter_mut() {
        highest = highest.max(bucket.count);
        bucket.count = highest;
    }
    let rank = q * highest;
    if highest == 0.0 {
        return f64::NAN;
    }
    let last = buckets.len() - 1;
    let i = buckets[..last].iter().position(|bucket| bucket.count >= rank).unwrap_or(last);
    if i == last {
        return buckets[last - 1].bound;
    }
    let end = buckets[i].bound;
    if i == 0 && end <= 0.0 {
        return end;
    }
    let (start, below) = if i == 0 { (0.0, 0.0) } else { (buckets[i - 1].bound, buckets[i - 1].count) };
    start + (end - start) * (rank - below) / (buckets[i].count - below)
}

/// How much each series of each pod grew. Values that are no finite number are left out.
fn increases<'a>(previous: &'a Snapshot, current: &'a Snapshot) -> impl Iterator<Item = (&'a Series, f64)> {
    current
        .iter()
        .filter_map(|(pod, now)| Some((now, previous.get(pod)?)))
        .flat_map(|(now, before)| now.iter().map(move |(series, value)| (series, value, before.get(series))))
        .filter(|(_, value, _)| value.is_finite())
        .map(|(series, value, before)| match before {
            Some(before) if before.is_finite() && value >= before => (series, value - before),
            _ => (series, value),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::exposition::parse;

    fn snapshot(pods: &[(&str, &str)]) -> Snapshot {
        pods.iter().map(|(pod, text)| ((*pod).to_owned(), parse(text).unwrap())).collect()
    }

    fn errors(previous: &[(&str, &str)], current: &[(&str, &str)], min: u64) -> Measurement {
        let wanted = Ratio { part: r#"requests{code=~"5.."}"#.into(), whole: "requests".into() };
        ratio(&snapshot(previous), &snapshot(current), &wanted, min)
    }

    #[test]
    fn ratio_counts_increases_of_the_pods_in_both_snapshots() {
        let pod =
            |ok: u32, bad: u32| format!("requests{{code=\"200\"}} {ok}\nrequests{{code=\"500\"}} {bad}\n");
        let (start, later) = (pod(100, 10), pod(190, 20));
        // 90 good and 10 bad requests.
        assert_eq!(errors(&[("a", &start)], &[("a", &later)], 1), Measurement::Value(0.1));
        // The other pod had none of its own.
        let idle = pod(5, 5);
        assert_eq!(
            errors(&[("a", &start), ("b", &idle)], &[("a", &later), ("b", &idle)], 1),
            Measurement::Value(0.1)
        );
        // Pods that came or went do not count.
        assert_eq!(
            errors(&[("a", &start), ("gone", &idle)], &[("a", &later), ("new", &idle)], 1),
            Measurement::Value(0.1)
        );
        assert_eq!(errors(&[("gone", &idle)], &[("new", &idle)], 1), Measurement::NoData);
        // A restart in between: 4 good, 1 bad since.
        assert_eq!(errors(&[("a", &start)], &[("a", &pod(4, 1))], 1), Measurement::Value(0.2));
        // The first error ever.
        assert_eq!(
            errors(&[("a", "requests{code=\"200\"} 0")], &[("a", &pod(3, 1))], 1),
            Measurement::Value(0.25)
        );
    }

    #[test]
    fn ratio_without_enough_requests_says_nothing() {
        let pod = |n: u32| format!("requests{{code=\"200\"}} {n}");
        assert_eq!(errors(&[("a", &pod(5))], &[("a", &pod(5))], 1), Measurement::LowSample { count: 0 });
        assert_eq!(errors(&[("a", &pod(5))], &[("a", &pod(8))], 10), Measurement::LowSample { count: 3 });
        assert_eq!(errors(&[("a", &pod(5))], &[("a", &pod(5))], 0), Measurement::NoData);
        assert_eq!(errors(&[("a", "x 1")], &[("a", "x 2")], 1), Measurement::NoData);
        assert_eq!(errors(&[("a", "requests NaN")], &[("a", "requests NaN")], 1), Measurement::NoData);
        let wanted = Ratio { part: "(".into(), whole: "a".into() };
        let empty = Snapshot::new();
        assert!(matches!(ratio(&empty, &empty, &wanted, 1), Measurement::BadQuery(_)));
    }

    fn duration(q: f64, text: &str, min: u64) -> Measurement {
        let wanted = Quantile { histogram: r#"duration{route="/"}"#.into(), q };
        let zero: String =
            text.lines().filter_map(|line| Some(format!("{} 0\n", line.rsplit_once(' ')?.0))).collect();
        quantile(&snapshot(&[("a", &zero)]), &snapshot(&[("a", text)]), &wanted, min)
    }

    #[test]
    fn quantile_follows_histogram_quantile() {
        let bucket = |le: &str, n: u32| format!("duration_bucket{{route=\"/\",le=\"{le}\"}} {n}\n");
        let text = [bucket("0.1", 50), bucket("0.2", 90), bucket("1", 98), bucket("+Inf", 100)].concat();
        for (q, expected) in
            [(0.0, 0.0), (0.5, 0.1), (0.7, 0.15), (0.9, 0.2), (0.94, 0.6), (0.99, 1.0), (1.0, 1.0)]
        {
            let Measurement::Value(value) = duration(q, &text, 1) else { panic!("{q}") };
            assert!((value - expected).abs() < 1e-9, "{q}: {value}");
        }
        let other = text.replace("route=\"/\"", "route=\"/other\"");
        assert_eq!(duration(0.5, &other, 1), Measurement::NoData);
        assert_eq!(duration(0.5, &text, 101), Measurement::LowSample { count: 100 });
        // Without an unbounded bucket, or with nothing else, nothing can be said.
        assert_eq!(duration(0.5, &bucket("0.1", 50), 1), Measurement::NoData);
        assert_eq!(duration(0.5, &bucket("+Inf", 50), 1), Measurement::NoData);
        // Buckets that shrink are taken as flat.
        let torn = [bucket("0.1", 50), bucket("0.2", 40), bucket("+Inf", 50)].concat();
        let Measurement::Value(value) = duration(0.5, &torn, 1) else { panic!() };
        assert!((value - 0.05).abs() < 1e-9);
        assert!(matches!(duration(1.5, &text, 1), Measurement::BadQuery(_)));
    }
}
