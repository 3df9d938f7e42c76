//! What the processes of pods use: CPU over a window, memory at its end.
//!
//! A container is its process group. CPU time is that of its processes and of those children that they have waited
//! for; memory is their resident pages, so pages that processes of one container share count once for each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// What a container uses.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// Billionths of a CPU, on average over the pod's window.
    pub cpu_nanocores: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// What a pod uses.
#[derive(Clone, Debug, PartialEq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was measured last.
    pub at: Timestamp,
    /// The time over which CPU was counted; it ends at `at`.
    pub window: Duration,
    /// Its running containers.
    pub containers: Vec<ContainerUsage>,
}

/// The measurements of one node. Copies share them, so that one can be made before the node and given to it in
/// [`crate::Config::usage`].
#[derive(Clone)]
pub struct Usage {
    interval: Duration,
    window: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    node: String,
    /// By process group.
    tracked: BTreeMap<i32, Tracked>,
}

struct Tracked {
    namespace: String,
    pod: String,
    container: String,
    samples: VecDeque<Sample>,
}

/// Totals at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    /// CPU time in clock ticks.
    ticks: u64,
    /// Resident memory in pages.
    pages: u64,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    wall: Timestamp,
    totals: Totals,
}

impl Default for Usage {
    /// Measures each second, over 10 seconds.
    fn default() -> Usage {
        Usage::new(Duration::from_secs(1), Duration::from_secs(10))
    }
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage")
            .field("interval", &self.interval)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl Usage {
    /// Measures every `interval` (at least 10 ms), and averages CPU over `window`, or over a container's life as
    /// long as that is shorter.
    pub fn new(interval: Duration, window: Duration) -> Usage {
        let interval = interval.max(Duration::from_millis(10));
        Usage { interval, window: window.max(interval), state: Arc::default() }
    }

    /// The pods whose running containers have all been measured.
    pub fn pods(&self) -> Vec<PodUsage> {
        let state = self.lock();
        let mut pods: BTreeMap<(&str, &str), Option<PodUsage>> = BTreeMap::new();
        for tracked in state.tracked.values() {
            let pod = pods.entry((&tracked.namespace, &tracked.pod)).or_insert_with(|| {
                Some(PodUsage {
                    namespace: tracked.namespace.clone(),
                    name: tracked.pod.clone(),
                    at: Timestamp::MIN,
                    window: Duration::ZERO,
                    containers: Vec::new(),
                })
            });
            match (tracked.measure(self.interval), &mut *pod) {
                (Some((container, at, window)), Some(pod)) => {
                    pod.containers.push(container);
                    pod.at = pod.at.max(at);
                    pod.window = pod.window.max(window);
                }
                _ => *pod = None,
            }
        }
        pods.into_values().flatten().collect()
    }

    /// The node's name, and what all its pods use together; `None` before the first measurement.
    ///
    /// The rest of the machine is not counted: it is not the node's.
    pub fn node(&self) -> Option<(String, PodUsage)> {
        let pods = self.pods();
        let name = self.lock().node.clone();
        if name.is_empty() {
            return None;
        }
        let sum = |of: fn(&ContainerUsage) -> u64| {
            pods.iter().flat_map(|pod| &pod.containers).map(of).fold(0, u64::saturating_add)
        };
        let total = ContainerUsage {
            name: String::new(),
            cpu_nanocores: sum(|container| container.cpu_nanocores),
            memory_bytes: sum(|container| container.memory_bytes),
        };
        let usage = PodUsage {
            namespace: String::new(),
            name: String::new(),
            at: pods.iter().map(|pod| pod.at).max().unwrap_or_else(Timestamp::now),
            window: pods.iter().map(|pod| pod.window).max().unwrap_or(self.window),
            containers: vec![total],
        };
        Some((name, usage))
    }

    /// Measures a container's process group until the answer is dropped.
    pub(crate) fn track(&self, namespace: &str, pod: &str, container: &str, group: i32) -> Tracking {
        // It begins with nothing, so the first measurement already shows a rate.
        let start = Sample { at: Instant::now(), wall: Timestamp::now(), totals: Totals::default() };
        let tracked = Tracked {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            samples: VecDeque::from([start]),
        };
        self.lock().tracked.insert(group, tracked);
        Tracking { usage: self.clone(), group }
    }

    /// Measures for ever on behalf of the node of that name.
    pub(crate) async fn run(self, node: String) {
        self.lock().node = node;
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.lock().tracked.is_empty() {
                continue;
            }
            let usage = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || usage.sample()).await {
                tracing::warn!(%error, "the use of resources could not be measured");
            }
        }
    }

    fn sample(&self) {
        let groups: Vec<i32> = self.lock().tracked.keys().copied().collect();
        let totals = read_groups(&groups);
        let (at, wall) = (Instant::now(), Timestamp::now());
        let mut state = self.lock();
        for (group, totals) in totals {
            if let Some(tracked) = state.tracked.get_mut(&group) {
                tracked.add(Sample { at, wall, totals }, self.window);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracked {
    /// Adds a sample, and drops those that the window does not need any more.
    fn add(&mut self, sample: Sample, window: Duration) {
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|second| sample.at.duration_since(second.at) >= window) {
            self.samples.pop_front();
        }
    }

    /// The container's use, when it was measured, and over which time; `None` if that is too short to say.
    fn measure(&self, interval: Duration) -> Option<(ContainerUsage, Timestamp, Duration)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let window = last.at.duration_since(first.at);
        if window < interval / 2 {
            return None;
        }
        // A child that ended without being waited for takes its time with it.
        let ticks = last.totals.ticks.saturating_sub(first.totals.ticks);
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64;
        let usage = ContainerUsage {
            name: self.container.clone(),
            cpu_nanocores: (seconds / window.as_secs_f64() * 1e9) as u64,
            memory_bytes: last.totals.pages.saturating_mul(rustix::param::page_size() as u64),
        };
        Some((usage, last.wall, window))
    }
}

/// Ends the measurement of a process group when it is dropped.
pub(crate) struct Tracking {
    usage: Usage,
    group: i32,
}

impl Drop for Tracking {
    fn drop(&mut self) {
        self.usage.lock().tracked.remove(&self.group);
    }
}

/// Totals of the groups that still have processes.
fn read_groups(groups: &[i32]) -> BTreeMap<i32, Totals> {
    let mut found: BTreeMap<i32, Totals> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        // A process may end between any two of these lines.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((group, ticks)) = parse_stat(&stat).filter(|(group, _)| groups.contains(group)) else {
            continue;
        };
        let statm = std::fs::read_to_string(entry.path().join("statm")).unwrap_or_default();
        let totals = found.entry(group).or_default();
        totals.ticks = totals.ticks.saturating_add(ticks);
        totals.pages = totals.pages.saturating_add(parse_statm(&statm).unwrap_or(0));
    }
    found
}

/// The process group, and the CPU time of the process and the children it has waited for, in clock ticks:
/// fields 5 and 14 to 17 of `/proc/<pid>/stat` (proc_pid_stat(5)).
fn parse_stat(stat: &str) -> Option<(i32, u64)> {
    // The command before it may hold anything, spaces and parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(15).collect();
    let group = fields.get(2)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0));
    Some((group, ticks.fold(0, u64::saturating_add)))
}

/// The resident pages: field 2 of `/proc/<pid>/statm` (proc_pid_statm(5)).
fn parse_statm(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_any_command_name() {
        let stat =
            |name: &str| format!("12 ({name}) S 1 77 77 0 -1 4194560 9 8 0 0 30 12 5 3 20 0 1 0 100 1 2 3");
        for (text, expected) in [
            (stat("sh"), Some((77, 50))),
            (stat("a b) (c"), Some((77, 50))),
            ("12 (sh) S 1 77".to_owned(), None),
            ("12 (sh) S 1 x 77 0 -1 4194560 9 8 0 0 30 12 5 3".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_stat(&text), expected, "{text}");
        }
        assert_eq!((parse_statm("900 250 100 1 0 80 0"), parse_statm("9")), (Some(250), None));
    }

    #[test]
    fn cpu_is_a_rate_over_the_window_and_memory_the_last_value() {
        let usage = Usage::new(Duration::from_secs(1), Duration::from_secs(10));
        let tracking = usage.track("dev", "shop", "main", 77);
        assert!(usage.pods().is_empty(), "nothing is measured yet");
        let hertz = rustix::param::clock_ticks_per_second();
        let add = |seconds: u64, cpu: u64, pages: u64| {
            let mut state = usage.lock();
            let tracked = state.tracked.get_mut(&77).unwrap();
            let start = tracked.samples.front().unwrap().at;
            // Only the first ten seconds are inside one window, so `start` is the track's begin there.
            let sample = Sample {
                at: start + Duration::from_secs(seconds),
                wall: Timestamp::now(),
                totals: Totals { ticks: cpu * hertz, pages },
            };
            tracked.add(sample, usage.window);
        };
        add(2, 1, 3);
        let pods = usage.pods();
        assert_eq!((pods.len(), pods[0].window), (1, Duration::from_secs(2)));
        assert_eq!(pods[0].containers[0].cpu_nanocores, 500_000_000);
        assert_eq!(pods[0].containers[0].memory_bytes, 3 * rustix::param::page_size() as u64);
        add(12, 11, 4);
        let pods = usage.pods();
        assert_eq!(pods[0].window, Duration::from_secs(10), "the sample at the start is not needed any more");
        assert_eq!(pods[0].containers[0].cpu_nanocores, 1_000_000_000);
        drop(tracking);
        assert!(usage.pods().is_empty());
    }

    #[test]
    fn a_pod_is_shown_when_all_its_containers_are_measured() {
        let usage = Usage::default();
        let _a = usage.track("dev", "shop", "a", 77);
        let _b = usage.track("dev", "shop", "b", 78);
        let measure = |group| {
            let mut state = usage.lock();
            let tracked = state.tracked.get_mut(&group).unwrap();
            let at = tracked.samples[0].at + Duration::from_secs(1);
            tracked.add(Sample { at, wall: Timestamp::now(), totals: Totals::default() }, usage.window);
        };
        measure(77);
        assert!(usage.pods().is_empty());
        measure(78);
        assert_eq!(usage.pods()[0].containers.len(), 2);
    }

    #[test]
    fn this_process_is_found_in_its_group() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (group, _) = parse_stat(&stat).unwrap();
        let found = read_groups(&[group]);
        assert!(found[&group].pages > 0);
    }
}
