//! An order that was under way when the signal came, found again by its trace in the logs of both services.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

/// Orders whose clients wait, and those that were acknowledged.
#[derive(Clone, Default)]
pub(super) struct Orders(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    under_way: HashSet<u64>,
    acknowledged: Vec<u64>,
}

impl Orders {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().expect("nobody panics with it")
    }

    pub(super) fn begin(&self, tag: u64) {
        self.books().under_way.insert(tag);
    }

    pub(super) fn end(&self, tag: u64, status: u16) {
        let mut books = self.books();
        books.under_way.remove(&tag);
        if (200..300).contains(&status) {
            books.acknowledged.push(tag);
        }
    }

    /// Those that are under way now.
    pub(super) fn under_way(&self) -> HashSet<u64> {
        self.books().under_way.clone()
    }

    pub(super) fn acknowledged(&self) -> Vec<u64> {
        self.books().acknowledged.clone()
    }
}

/// The id of an order, by the number of its request.
pub(super) fn order_id(tag: u64) -> String {
    format!("order-{tag}")
}

/// The id of its trace: 32 hexadecimal digits.
pub(super) fn trace_id(tag: u64) -> String {
    format!("5d{:030x}", u128::from(tag) + 1)
}

/// An order that was under way when the signal came and was acknowledged after it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Witness {
    pub(super) order: String,
    pub(super) trace_id: String,
    pub(super) lines: Vec<Line>,
}

/// What a service's log says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) service: String,
    pub(super) message: String,
    /// Negative where it was written before.
    pub(super) ms_after_signal: f64,
}

/// Chooses among orders the one that the logs say most of, and of several the latest.
pub(super) fn find(
    orders: impl IntoIterator<Item = u64>,
    logs: &[&Path],
    signalled: SystemTime,
) -> Option<Witness> {
    let texts = logs
        .iter()
        .map(|log| std::fs::read_to_string(log).unwrap_or_default());
    let texts: Vec<String> = texts.collect();
    let lines: Vec<Value> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let witnesses = orders.into_iter().map(|tag| {
        let trace_id = trace_id(tag);
        let of_trace = lines
            .iter()
            .filter(|line| line["traceId"] == trace_id.as_str());
        Witness {
            order: order_id(tag),
            lines: of_trace.filter_map(|line| read(line, signalled)).collect(),
            trace_id,
        }
    });
    let told = witnesses.filter(|witness| !witness.lines.is_empty());
    told.max_by(|one, other| {
        let rank = |witness: &Witness| (witness.lines.len(), witness.lines[0].ms_after_signal);
        rank(one)
            .partial_cmp(&rank(other))
            .expect("times are numbers")
    })
}

fn read(line: &Value, signalled: SystemTime) -> Option<Line> {
    let at = humantime::parse_rfc3339(line["@timestamp"].as_str()?).ok()?;
    let after = match at.duration_since(signalled) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    Some(Line {
        service: line["service"].as_str()?.to_owned(),
        message: line["message"].as_str()?.to_owned(),
        ms_after_signal: after * 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_order_is_chosen_that_most_is_known_of() {
        let folder = tempfile::tempdir().unwrap();
        let [orders, inventory] = ["orders", "inventory"].map(|name| folder.path().join(name));
        let line = |service: &str, tag: u64, millis: u64| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let at = humantime::format_rfc3339_millis(at);
            let trace = trace_id(tag);
            format!(
                r#"{{"@timestamp":"{at}","service":"{service}","traceId":"{trace}","message":"done"}}"#
            ) + "\n"
        };
        let of_orders = [
            line("orders", 1, 990),
            line("orders", 2, 1010),
            line("orders", 3, 1020),
        ];
        std::fs::write(&orders, of_orders.concat() + "no JSON\n").unwrap();
        std::fs::write(
            &inventory,
            line("inventory", 2, 1015) + &line("inventory", 1, 1001),
        )
        .unwrap();
        let signalled = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let logs = [orders.as_path(), inventory.as_path()];
        let found = find([1, 2, 3, 4], &logs, signalled).unwrap();
        assert_eq!(
            (found.order.as_str(), found.trace_id),
            ("order-2", trace_id(2))
        );
        let times: Vec<f64> = found
            .lines
            .iter()
            .map(|line| line.ms_after_signal)
            .collect();
        assert_eq!(times, [10.0, 15.0]);
        assert_eq!(find([4], &logs, signalled), None);
    }
}
