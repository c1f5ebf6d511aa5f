//! Colours for verdicts, where somebody can see them.
//!
//! The promise: without a terminal, with `NO_COLOR` (<https://no-color.org>) or with `TERM=dumb` there
//! is none, unless `--color` or `CLICOLOR_FORCE` say otherwise. Colour says nothing that the words do not.

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice as Chosen};
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use sundown_verify::Verdict;

/// How verdicts are written on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    /// Decides for a stream.
    pub(super) fn of(wanted: ColorChoice, stream: &impl RawStream) -> Self {
        match wanted {
            ColorChoice::Always => Self::Coloured,
            ColorChoice::Never => Self::Plain,
            ColorChoice::Auto => match AutoStream::choice(stream) {
                Chosen::Never => Self::Plain,
                _ => Self::Coloured,
            },
        }
    }

    /// Writes words in the colour of a verdict.
    pub(super) fn verdict(self, verdict: Verdict, words: &str) -> String {
        match self {
            Self::Plain => words.to_owned(),
            Self::Coloured => {
                let style = style(verdict);
                format!("{style}{words}{style:#}")
            }
        }
    }
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Pass => AnsiColor::Green.on_default(),
        Verdict::Fail => AnsiColor::Red.on_default().bold(),
        Verdict::Flaky => AnsiColor::Yellow.on_default().bold(),
        Verdict::Inconclusive => AnsiColor::Yellow.on_default(),
        Verdict::Skipped => Style::new().dimmed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_stands_around_the_words_and_ends_behind_them() {
        let painted = Paint::Coloured.verdict(Verdict::Fail, "FAIL");
        assert_eq!(painted, "\x1b[1m\x1b[31mFAIL\x1b[0m");
        assert_eq!(Paint::Plain.verdict(Verdict::Fail, "FAIL"), "FAIL");
    }
}
