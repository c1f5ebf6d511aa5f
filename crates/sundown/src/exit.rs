//! The exit codes of a service.

use std::process::ExitCode;

use crate::lifecycle::Reason;

/// How a service ended, as its supervisor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// 0: everything that was accepted was finished.
    Drained,
    /// 1: a start hook, a worker or a release failed.
    Failed,
    /// 2: a setting is wrong; starting again without changing it is of no use.
    BadSetting,
    /// 4: work was cut off; the report names it.
    CutOff,
    /// 128 + n: the third signal, number n, ended the process at once.
    Killed(i32),
}

impl ExitStatus {
    /// The number given to the system.
    pub fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Failed => 1,
            Self::BadSetting => 2,
            Self::CutOff => 4,
            Self::Killed(signal) => 128_u8.wrapping_add(signal as u8),
        }
    }

    /// Chooses the status of an orderly end. Work cut off outweighs a failure: the code must
    /// always tell whether something was lost.
    pub(crate) fn of(cut_off: bool, reason: Option<&Reason>, failed: bool) -> Self {
        if cut_off {
            Self::CutOff
        } else if failed || reason.is_some_and(Reason::is_failure) {
            Self::Failed
        } else {
            Self::Drained
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_cut_off_outweighs_a_failure() {
        let died = Reason::WorkerDied("mailer".into());
        assert_eq!(ExitStatus::of(true, Some(&died), true), ExitStatus::CutOff);
        assert_eq!(
            ExitStatus::of(false, Some(&died), false),
            ExitStatus::Failed
        );
        assert_eq!(
            ExitStatus::of(false, Some(&Reason::Future), true),
            ExitStatus::Failed
        );
        assert_eq!(
            ExitStatus::of(false, Some(&Reason::Future), false),
            ExitStatus::Drained
        );
    }

    #[test]
    fn codes_are_the_documented_ones() {
        let table = [
            (ExitStatus::Drained, 0),
            (ExitStatus::Failed, 1),
            (ExitStatus::BadSetting, 2),
            (ExitStatus::CutOff, 4),
            (ExitStatus::Killed(libc::SIGTERM), 143),
            (ExitStatus::Killed(libc::SIGINT), 130),
        ];
        for (status, code) in table {
            assert_eq!(status.code(), code);
        }
    }
}
