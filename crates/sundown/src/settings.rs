//! Reads what operators may change from the environment; it outranks what the code says.
//!
//! | variable | example | sets |
//! |---|---|---|
//! | `SUNDOWN_GRACE` | `25s` | the longest a stop may take |
//! | `SUNDOWN_LAME_DUCK` | `5s` | how long new connections are still served |
//! | `SUNDOWN_LINGER` | `500ms` | how long idle connections stay open |
//! | `SUNDOWN_RELEASE` | `5s` | the share kept for releasing |
//! | `SUNDOWN_MERCY` | `500ms` | the time between cancelling and cutting off |
//! | `SUNDOWN_ADMIN` | `:9090` | where the admin listener is |
//! | `SUNDOWN_ADMIN_TOKEN` | | what it wants from whoever asks |
//! | `SUNDOWN_RESTART_WITHIN` | `60s` | how long a successor may take to be ready |
//! | `SUNDOWN_REPORT` | `stop.json`, `-` | where the JSON report goes (`-` is stdout) |
//!
//! Never looks at anything else in the environment, and never sets a variable.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::budget::Wishes;
use crate::error::Error;

/// What the environment says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) wishes: Wishes,
    pub(crate) report: Option<PathBuf>,
    pub(crate) admin: AdminSettings,
    pub(crate) restart_within: Option<Duration>,
}

/// What the environment says of the admin listener.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminSettings {
    pub(crate) address: Option<String>,
    pub(crate) token: Option<String>,
}

impl Settings {
    pub(crate) fn from_environment(code: Wishes) -> Result<Self, Error> {
        Self::read(code, |name| std::env::var_os(name))
    }

    /// What the code alone says.
    pub(crate) fn of(wishes: Wishes) -> Self {
        Self {
            wishes,
            ..Self::default()
        }
    }

    fn read(code: Wishes, get: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let duration = |name, from_code| match get(name) {
            Some(value) => parse(name, &value).map(Some),
            None => Ok(from_code),
        };
        let wishes = Wishes {
            grace: duration("SUNDOWN_GRACE", code.grace)?,
            lame_duck: duration("SUNDOWN_LAME_DUCK", code.lame_duck)?,
            linger: duration("SUNDOWN_LINGER", code.linger)?,
            release: duration("SUNDOWN_RELEASE", code.release)?,
            mercy: duration("SUNDOWN_MERCY", code.mercy)?,
        };
        let given = |name, problem: &str| match get(name) {
            Some(value) if value.is_empty() => Err(Error::Setting {
                name,
                value: String::new(),
                problem: problem.to_owned(),
            }),
            value => Ok(value),
        };
        let text = |value: OsString| value.to_string_lossy().into_owned();
        let report = given(
            "SUNDOWN_REPORT",
            "give a file name, or - for standard output",
        )?;
        let address = given("SUNDOWN_ADMIN", "give an address, such as :9090")?;
        let token = given("SUNDOWN_ADMIN_TOKEN", "give a token, or do not set it")?;
        Ok(Self {
            wishes,
            restart_within: duration("SUNDOWN_RESTART_WITHIN", None)?,
            report: report.map(PathBuf::from),
            admin: AdminSettings {
                address: address.map(text),
                token: token.map(text),
            },
        })
    }
}

fn parse(name: &'static str, value: &OsString) -> Result<Duration, Error> {
    let text = value.to_string_lossy();
    humantime::parse_duration(&text).map_err(|error| Error::Setting {
        name,
        value: text.into_owned(),
        problem: format!("{error}; write a number with a unit, such as 25s or 500ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let code = Wishes {
            grace: Some(Duration::from_secs(9)),
            ..Wishes::default()
        };
        Settings::read(code, |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_environment_outranks_the_code() {
        assert_eq!(
            read(&[]).unwrap().wishes.grace,
            Some(Duration::from_secs(9))
        );
        let settings = read(&[("SUNDOWN_GRACE", "1m 5s"), ("SUNDOWN_REPORT", "-")]).unwrap();
        assert_eq!(settings.wishes.grace, Some(Duration::from_secs(65)));
        assert_eq!(settings.report, Some(PathBuf::from("-")));
    }

    #[test]
    fn a_malformed_value_is_named_with_its_variable() {
        for name in [
            "SUNDOWN_GRACE",
            "SUNDOWN_LAME_DUCK",
            "SUNDOWN_LINGER",
            "SUNDOWN_RELEASE",
            "SUNDOWN_MERCY",
            "SUNDOWN_RESTART_WITHIN",
        ] {
            for value in [
                "",
                "25",
                "soon",
                "-5s",
                "5 parsecs",
                "99999999999999999999s",
            ] {
                let error = read(&[(name, value)]).unwrap_err();
                let text = error.to_string();
                assert!(text.starts_with(&format!("{name}={value}: ")), "{text}");
                assert!(!text.contains('\n'), "{text}");
                assert_eq!(error.exit_status().code(), 2);
            }
        }
        for name in ["SUNDOWN_REPORT", "SUNDOWN_ADMIN", "SUNDOWN_ADMIN_TOKEN"] {
            assert!(read(&[(name, "")]).is_err(), "{name}");
        }
    }
}
