//! Follows what a child writes, in a thread of its own, so that a full pipe never stops the child.
//!
//! Never keeps more than the last 256 KiB.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

const KEPT: usize = 256 * 1024;

/// Holds the end of what a child wrote to one stream.
#[derive(Debug)]
pub(super) struct Output {
    kept: Arc<Mutex<VecDeque<u8>>>,
    grown: watch::Receiver<()>,
}

impl Output {
    /// Reads the pipe to its end; without one, the output is empty and closed.
    pub(super) fn follow(pipe: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (growth, grown) = watch::channel(());
        if let Some(pipe) = pipe {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || copy(pipe, &kept, &growth));
        }
        Self { kept, grown }
    }

    /// Returns what is kept; what is not UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        let mut kept = lock(&self.kept);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }

    /// Waits until the text was written; `false` if the stream was closed without it.
    pub(super) async fn contains(&self, text: &str) -> bool {
        let found = self.find(|written| written.contains(text).then_some(()));
        found.await.is_some()
    }

    /// Waits for a whole line with the marker, and returns what stands behind it; `None` if the
    /// stream was closed without one.
    pub(super) async fn line(&self, marker: &str) -> Option<String> {
        self.find(|written| rest_of_line(written, marker)).await
    }

    /// Looks again each time that something was written, until there is an answer; `None` if the
    /// stream was closed without one.
    async fn find<T>(&self, look: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut grown = self.grown.clone();
        loop {
            grown.mark_unchanged();
            if let Some(found) = look(&self.text()) {
                return Some(found);
            }
            if grown.changed().await.is_err() {
                return look(&self.text());
            }
        }
    }

    /// Waits until the stream is closed.
    pub(super) async fn closed(&self) {
        let mut grown = self.grown.clone();
        while grown.changed().await.is_ok() {}
    }
}

fn copy(mut pipe: impl Read, kept: &Mutex<VecDeque<u8>>, growth: &watch::Sender<()>) {
    let mut buffer = [0; 8 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut buffer) {
        let mut kept = lock(kept);
        kept.extend(&buffer[..read]);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
        drop(kept);
        growth.send_replace(());
    }
}

/// Returns what stands behind the marker, once its line has an end: a line may come in pieces.
fn rest_of_line(written: &str, marker: &str) -> Option<String> {
    let (_, rest) = written.split_once(marker)?;
    let (line, _) = rest.split_once('\n')?;
    Some(line.trim_end_matches('\r').to_owned())
}

fn lock(kept: &Mutex<VecDeque<u8>>) -> MutexGuard<'_, VecDeque<u8>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_of_a_long_output_is_kept() {
        let long = std::io::repeat(b'a')
            .take(KEPT as u64)
            .chain(&b"the end"[..]);
        let output = Output::follow(Some(long));
        output.closed().await;

        assert_eq!(output.text().len(), KEPT);
        assert!(output.text().ends_with("the end"));
    }

    #[tokio::test]
    async fn a_text_that_never_comes_ends_with_the_stream() {
        let output = Output::follow(Some(&b"hello"[..]));

        assert!(!output.contains("goodbye").await);
        assert!(output.contains("hello").await);
    }

    #[test]
    fn a_line_counts_once_its_end_is_there() {
        for (written, expected) in [
            ("", None),
            ("http o", None),
            ("a\nready, http on 127.0.0.1:80", None),
            ("a\nready, http on 127.0.0.1:80\n", Some("127.0.0.1:80")),
            ("ready, http on \nb\n", Some("")),
            ("http on 1\r\nhttp on 2\r\n", Some("1")),
        ] {
            let rest = rest_of_line(written, "http on ");
            assert_eq!(rest.as_deref(), expected, "{written:?}");
        }
    }
}
