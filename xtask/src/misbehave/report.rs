//! What a report says of the clients that were cut off, by who they were.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::client::Manner;

/// The part of the report that is read.
#[derive(Deserialize)]
struct Document {
    cut_off: Vec<CutOff>,
}

#[derive(Deserialize)]
struct CutOff {
    work: String,
    name: String,
    peer: Option<SocketAddr>,
    age_ms: f64,
}

/// Everybody whom a report names.
pub(super) struct Named(HashMap<SocketAddr, CutOff>);

impl Named {
    /// Reads a report.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn read(report: &[u8]) -> anyhow::Result<Self> {
        let document: Document = serde_json::from_slice(report).context("the report")?;
        let of_a_client = |cut: CutOff| Some((cut.peer?, cut));
        Ok(Self(
            document
                .cut_off
                .into_iter()
                .filter_map(of_a_client)
                .collect(),
        ))
    }

    /// Whether it names this client for what it is, with an age that is at least this.
    pub(super) fn names(&self, manner: &Manner, client: SocketAddr, age: Duration) -> bool {
        self.0.get(&client).is_some_and(|cut| {
            cut.work == manner.work
                && cut.name == manner.route
                && cut.age_ms >= 1000.0 * age.as_secs_f64()
        })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::MANNERS;
    use super::*;

    fn check(work: &str, name: &str, peer: &str, age_ms: f64, expected: bool) {
        let cut = serde_json::json!({"work": work, "name": name, "peer": peer, "age_ms": age_ms});
        let report = serde_json::json!({"schema": 1, "cut_off": [cut]}).to_string();
        let named = Named::read(report.as_bytes()).unwrap();
        let client = SocketAddr::from(([127, 3, 0, 1], 4711));
        let found = named.names(&MANNERS[0], client, Duration::from_secs(4));
        assert_eq!(found, expected, "{report}");
    }

    #[test]
    fn a_client_is_named_by_its_kind_of_work_its_route_its_address_and_its_age() {
        check("upgraded", "GET /ws", "127.3.0.1:4711", 4000.0, true);
        check("request", "GET /ws", "127.3.0.1:4711", 4000.0, false);
        check("upgraded", "GET /", "127.3.0.1:4711", 4000.0, false);
        check("upgraded", "GET /ws", "127.3.0.2:4711", 4000.0, false);
        check("upgraded", "GET /ws", "127.3.0.1:4711", 3999.0, false);
        assert!(Named::read(b"{}").is_err());
    }
}
