//! What came out of one side, and how the two are shown.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};
use sundown_verify::{Declined, Tally};

use super::witness::Witness;

/// What came out of one side.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) in_flight_at_signal: usize,
    /// An order that was, and what the logs say of it.
    pub(super) under_way: Option<Witness>,
    pub(super) acknowledged: usize,
    pub(super) acknowledged_missing: usize,
    pub(super) orders_without_stock: usize,
    pub(super) stock_without_order: usize,
    pub(super) orders_waiting_in_outbox: usize,
    pub(super) exit_code: i32,
    pub(super) exit: Duration,
    /// The phases of the order service's stop, in milliseconds.
    pub(super) phases: Vec<(String, f64)>,
}

impl Outcome {
    pub(super) fn keeps_the_promise(&self) -> bool {
        let lost = self.tally.total.lost == 0 && self.acknowledged_missing == 0;
        lost && self.orders_without_stock + self.stock_without_order == 0 && self.exit_code == 0
    }

    fn json(&self) -> Value {
        let total = &self.tally.total;
        json!({
            "sent": total.sent,
            "answered": total.answered,
            "declined": total.declined,
            "declined_as": total.declined_as,
            "lost": total.lost,
            "lost_as": total.lost_as,
            "in_flight_at_signal": self.in_flight_at_signal,
            "order_in_flight_at_signal": self.under_way,
            "orders_acknowledged": self.acknowledged,
            "orders_acknowledged_missing": self.acknowledged_missing,
            "orders_without_stock": self.orders_without_stock,
            "orders_waiting_in_outbox": self.orders_waiting_in_outbox,
            "stock_without_order": self.stock_without_order,
            "exit_code": self.exit_code,
            "exit_ms": self.exit.as_millis() as u64,
            "phases_ms": self.phases,
        })
    }

    fn losses(&self) -> String {
        let as_text = |(loss, count)| format!("{count} {loss}");
        let losses: Vec<String> = self.tally.total.lost_as.iter().map(as_text).collect();
        losses.join(", ")
    }

    fn timeline(&self) -> String {
        let mut line = "SIGTERM".to_owned();
        for (phase, millis) in &self.phases {
            // Writing to a String cannot fail.
            let _ = write!(line, " ─ {phase} {millis:.0} ms");
        }
        let _ = write!(line, " ─ gone after {} ms", self.exit.as_millis());
        line
    }
}

/// Both sides for machines.
pub(super) fn json(plain: &Outcome, sundown: &Outcome) -> serde_json::Result<String> {
    serde_json::to_string(&json!({
        "schema": 1,
        "plain": plain.json(),
        "sundown": sundown.json(),
    }))
}

/// Both sides for people.
pub(super) fn page(plain: &Outcome, sundown: &Outcome) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "plain", "sundown"]);
    type Value = fn(&Outcome) -> String;
    let rows: [(&str, Value); 9] = [
        ("requests sent", |side| side.tally.total.sent.to_string()),
        ("answered", |side| side.tally.total.answered.to_string()),
        ("declined (refused, or closed while idle)", |side| {
            side.tally.total.declined.to_string()
        }),
        ("lost (reset, cut, hung)", |side| {
            side.tally.total.lost.to_string()
        }),
        ("in flight when SIGTERM came", |side| {
            side.in_flight_at_signal.to_string()
        }),
        ("orders acknowledged, then missing", |side| {
            side.acknowledged_missing.to_string()
        }),
        ("orders without stock", |side| {
            side.orders_without_stock.to_string()
        }),
        ("time to exit", |side| {
            format!("{} ms", side.exit.as_millis())
        }),
        ("exit code", |side| side.exit_code.to_string()),
    ];
    for (label, value) in rows {
        let number = |side| Cell::new(value(side)).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(label), number(plain), number(sundown)]);
    }
    let mut page = format!("{table}\n\n");
    for (name, side) in [("plain", plain), ("sundown", sundown)] {
        let _ = writeln!(page, "{name:>8}: {}", side.timeline());
        if side.tally.total.lost > 0 {
            let _ = writeln!(page, "          lost: {}", side.losses());
        }
        if let Some(witness) = &side.under_way {
            let _ = writeln!(page, "          {}", of_trace(witness));
        }
        let crossed = side.tally.total.declined_as(Declined::Crossed);
        if crossed > 0 {
            let _ = writeln!(
                page,
                "          of the declined, {crossed} crossed the server's close"
            );
        }
        if side.orders_waiting_in_outbox > 0 {
            let waiting = side.orders_waiting_in_outbox;
            let _ = writeln!(
                page,
                "          {waiting} orders wait in the outbox for the next start"
            );
        }
    }
    page
}

/// How an order that was in flight can be followed through the logs.
fn of_trace(witness: &Witness) -> String {
    let Witness {
        order,
        trace_id,
        lines,
    } = witness;
    let mut line = format!("{order} was in flight: trace {trace_id}");
    for told in lines {
        let (service, message, after) = (&told.service, &told.message, told.ms_after_signal);
        let _ = write!(line, " ─ {service}: {message} {after:+.0} ms");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use sundown_verify::{Kind, Loss};

    fn lossy() -> Outcome {
        let mut outcome = Outcome {
            orders_without_stock: 3,
            ..Outcome::default()
        };
        outcome
            .tally
            .count(Kind::KeepAlive, sundown_verify::Outcome::Lost(Loss::Eof));
        outcome
    }

    #[test]
    fn the_promise_is_broken_by_every_kind_of_loss() {
        assert!(Outcome::default().keeps_the_promise());
        let broken = [
            lossy(),
            Outcome {
                orders_without_stock: 1,
                ..Outcome::default()
            },
            Outcome {
                stock_without_order: 1,
                ..Outcome::default()
            },
            Outcome {
                acknowledged_missing: 1,
                ..Outcome::default()
            },
            Outcome {
                exit_code: 4,
                ..Outcome::default()
            },
        ];
        for outcome in broken {
            assert!(!outcome.keeps_the_promise(), "{outcome:?}");
        }
    }

    #[test]
    fn json_has_the_documented_fields() {
        let value: Value =
            serde_json::from_str(&json(&lossy(), &Outcome::default()).unwrap()).unwrap();
        assert_eq!(value["schema"], 1);
        for side in ["plain", "sundown"] {
            for field in [
                "sent",
                "answered",
                "declined",
                "lost",
                "orders_without_stock",
                "exit_code",
                "exit_ms",
            ] {
                assert!(value[side][field].is_number(), "{side}.{field}");
            }
        }
        assert_eq!(value["plain"]["lost"], 1);
    }

    #[test]
    fn the_page_names_what_was_lost() {
        let page = page(&lossy(), &Outcome::default());
        assert!(page.contains("lost: 1 closed without an answer"), "{page}");
    }
}
