//! The status in words, as SIGUSR1 prints it.

use std::fmt;
use std::time::Duration;

use super::{OpenRoute, Status};
use crate::checks::Standing;
use crate::report::duration;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasted = self.lasted(self.phase).unwrap_or(Duration::ZERO);
        let at_work: u64 = self.open.iter().map(|route| route.count).sum();
        write!(f, "{}: {} for {}", self.name, self.phase, duration(lasted))?;
        if let Some(reason) = &self.reason {
            let left = duration(self.budget.left);
            write!(f, " ({reason}, {left} left)")?;
        }
        write!(
            f,
            ": connections {}, at work {at_work}",
            self.open_connections
        )?;
        for route in &self.open {
            write!(f, "\n  {route}")?;
        }
        if let Some(hook) = &self.running_hook {
            let (when, name) = (hook.when, &hook.name);
            write!(f, "\n  {when} {name} runs ({})", duration(hook.since))?;
        }
        let down = self.checks.iter();
        for check in down.filter(|check| check.standing == Standing::Down) {
            write!(f, "\n  not ready: {}: {}", check.name, check.detail)?;
        }
        Ok(())
    }
}

impl fmt::Display for OpenRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.work, self.name)?;
        if self.count > 1 {
            write!(f, ", {} of them, the oldest", self.count)?;
        }
        let Some(oldest) = self.oldest.first() else {
            return Ok(());
        };
        if let Some(peer) = oldest.peer {
            write!(f, " from {peer}")?;
        }
        write!(f, " ({}", duration(oldest.age))?;
        if let Some(place) = &oldest.begun_at {
            write!(f, ", begun at {place}")?;
        }
        f.write_str(")")
    }
}
