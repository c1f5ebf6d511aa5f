//! What `sundown run` costs a server that it guards, while nothing happens but requests: throughput's load on a
//! Go server, by itself and under the guard. Its output is inherited.

use super::Bench;
use super::findings::{Bound, Claim, Figure, Findings};
use super::side::{self, BASELINE, Guarding, OURS};
use super::statistics::{estimate, median, ratios};
use super::throughput::{CPU_TIME, how, measure, rows, throughput_claim};
use crate::folder::Folder;
use crate::guarded::build_command;
use crate::peers;

/// Which server is guarded.
const SERVER: &str = "go-net-http";

/// Milliseconds of the guard's and its keeper's CPU time in 10 s.
const GUARD: Bound = Bound::AtMost(1.0);

/// Measures both, if this machine can build the server.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Option<Findings>> {
    let peer = peers::find(SERVER)?;
    if let Some(missing) = peer.missing_toolchain() {
        eprintln!("skipped: {missing}");
        return Ok(None);
    }
    peer.build(bench.workspace)?;
    build_command(bench.workspace)?;
    let folder = Folder::new("bench-guard")?;
    bench.rights.open(&folder)?;
    let guarding = Guarding {
        run_dir: folder.path().join("guards"),
        rights: bench.rights,
    };
    let sides = side::guarded(peer, guarding);
    let measured = measure(bench, "guard", &sides).await?;
    let mut rows = rows(&sides, &measured);
    let guard = &measured[OURS].guard;
    rows[OURS]
        .figures
        .push(Figure::plain("guard, in 10 s", "ms", median(guard)));
    Ok(Some(Findings {
        subject: "guard",
        how: how(bench, "kept-alive connections"),
        commands: bench.commands(&sides, bench.server_core()),
        rows,
        claims: vec![
            throughput_claim(
                "throughput, guarded / by itself, of the A/A control",
                &measured,
            ),
            Claim::ratio(
                "CPU time a request, guarded / by itself",
                estimate(&ratios(&measured[OURS].cpu, &measured[BASELINE].cpu)),
                CPU_TIME,
            ),
            Claim::plain("the guard's CPU time in 10 s", median(guard), "ms", GUARD),
        ],
    }))
}
