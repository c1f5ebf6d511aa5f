//! One request over a connection of its own, to a process that a chore has started.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer in full.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Gets what is there.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    ask(address, &format!("GET {path}"), &[], "").await
}

/// Asks `METHOD PATH` with these headers and this body.
///
/// # Errors
/// When there is no answer in HTTP.
pub(crate) async fn ask(
    address: SocketAddr,
    what: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Answer> {
    // Who answers 1.0 closes and sends no chunks.
    let mut request = format!("{what} HTTP/1.0\r\nhost: {address}\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await;
    let answer = answer.with_context(|| format!("{what}: no answer"))??;
    read(&answer).with_context(|| format!("{what}: no answer in HTTP"))
}

fn read(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read_and_what_is_no_answer_is_not() {
        let answer = read("HTTP/1.0 201 Created\r\na: b\r\n\r\n{}\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, "{}\r\n\r\n"));
        assert!(read("HTTP/1.0 201 Created\r\na: b\r\n").is_none());
        assert!(read("nonsense\r\n\r\n").is_none());
    }
}
