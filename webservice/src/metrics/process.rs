//! What the kernel knows of this process, under the names of Prometheus' own clients. Left out where `/proc` is not.

use std::fmt::Write;

use super::head;

/// Ticks of `/proc/self/stat` in a second, the same on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn write(out: &mut String) -> std::fmt::Result {
    if let Some(bytes) = resident_bytes() {
        head(out, "process_resident_memory_bytes", "gauge", "Memory that is really there, in bytes.")?;
        writeln!(out, "process_resident_memory_bytes {bytes}")?;
    }
    if let Some(seconds) = cpu_seconds() {
        head(out, "process_cpu_seconds_total", "counter", "Processor time spent, user and system.")?;
        writeln!(out, "process_cpu_seconds_total {seconds}")?;
    }
    Ok(())
}

/// From `/proc/self/status`, which needs no page size.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Fields 14 and 15; the program's name before them may hold anything, so they are counted from its closing bracket.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS_PER_SECOND)
}
