//! How many orders were written together.

use std::fmt::Write;

use super::head;
use crate::store::{BATCH_BOUNDS, BatchCounts};

pub(super) fn write(out: &mut String, counts: &BatchCounts) -> std::fmt::Result {
    let name = "dhakacart_order_batch_size";
    head(out, name, "histogram", "Orders that were written to the database together.")?;
    let mut below = 0;
    for (bound, count) in BATCH_BOUNDS.iter().zip(counts.buckets) {
        below += count;
        writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {below}")?;
    }
    writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {below}")?;
    writeln!(out, "{name}_sum {}", counts.orders)?;
    writeln!(out, "{name}_count {below}")?;
    let name = "dhakacart_orders_waiting";
    head(out, name, "gauge", "Orders that wait until those before them are written.")?;
    writeln!(out, "{name} {}", counts.waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_a_cumulative_histogram() {
        let mut text = String::new();
        let counts = BatchCounts { buckets: [3, 0, 1, 0, 0, 0, 2, 0], orders: 107, waiting: 4 };
        write(&mut text, &counts).unwrap();
        for line in [
            r#"dhakacart_order_batch_size_bucket{le="1"} 3"#,
            r#"dhakacart_order_batch_size_bucket{le="4"} 4"#,
            r#"dhakacart_order_batch_size_bucket{le="64"} 6"#,
            r#"dhakacart_order_batch_size_bucket{le="+Inf"} 6"#,
            "dhakacart_order_batch_size_sum 107",
            "dhakacart_order_batch_size_count 6",
            "dhakacart_orders_waiting 4",
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
    }
}
