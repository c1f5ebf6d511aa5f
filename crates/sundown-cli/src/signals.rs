//! Signals, as people name them.

/// The signals that go by name.
const SIGNALS: [(&str, i32); 6] = [
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("HUP", libc::SIGHUP),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
];

/// Reads a name, with or without SIG, or a number.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == name);
    let number = || {
        name.parse()
            .ok()
            .filter(|number| (1..=libc::SIGRTMAX()).contains(number))
    };
    let signal = by_name.map(|(_, number)| *number).or_else(number);
    signal.ok_or_else(|| "give TERM, INT, QUIT, HUP, USR1, USR2 or a number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_name_and_by_number() {
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal("SIGQUIT"), Ok(3));
        assert_eq!(signal("10"), Ok(10));
        assert!(signal("0").is_err() && signal("65").is_err() && signal("KILLALL").is_err());
    }
}
