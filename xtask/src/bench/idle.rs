//! Thousands of connections that asked once and are idle since.
//!
//! Never waits longer than the kernel to see a server's FIN: one epoll set holds them all.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::client::{REQUEST, length};
use super::epoll::Epoll;
use super::side::PATIENCE;

/// How many connections share a source address: far fewer than a port range holds, because those
/// of an earlier round may still be in TIME_WAIT.
const PER_ADDRESS: usize = 250;

/// Opened connections.
pub(super) struct Idle {
    epoll: Epoll,
    streams: Vec<TcpStream>,
}

impl Idle {
    /// Opens connections, one after the other, asks once on each, and reads the answer.
    pub(super) async fn open(target: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        let epoll = Epoll::new()?;
        let mut streams = Vec::with_capacity(connections);
        for number in 0..connections {
            let stream = ask(source(number), target)
                .await
                .with_context(|| format!("connection {} of {connections}", number + 1))?;
            epoll.add(&stream, number)?;
            streams.push(stream);
        }
        Ok(Self { epoll, streams })
    }

    /// Closes each connection as soon as the server has closed it, until the last.
    pub(super) fn close_on_fin(mut self) -> anyhow::Result<()> {
        let mut left = self.streams.len();
        let mut open: Vec<Option<TcpStream>> = self.streams.into_iter().map(Some).collect();
        while left > 0 {
            // Only its end can make such a connection ready: every answer was read.
            for number in self.epoll.wait(PATIENCE)? {
                left -= usize::from(open[number].take().is_some());
            }
        }
        Ok(())
    }
}

/// Returns a source address of 127.0.0.0/8 for the connection of this number.
fn source(number: usize) -> Ipv4Addr {
    let index = number / PER_ADDRESS;
    Ipv4Addr::new(127, 2, (index / 250) as u8, (index % 250 + 1) as u8)
}

async fn ask(source: Ipv4Addr, target: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let mut stream = socket.connect(target).await?;
    stream.write_all(REQUEST).await?;
    let mut received = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            bail!("the server closed it");
        }
        if let Some(length) = length(&received)?
            && received.len() >= length
        {
            ensure!(received.len() == length, "an answer is followed by more");
            return Ok(stream.into_std()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_rotate_before_their_ports_run_out() {
        assert_eq!(source(0), Ipv4Addr::new(127, 2, 0, 1));
        assert_eq!(source(249), Ipv4Addr::new(127, 2, 0, 1));
        assert_eq!(source(250), Ipv4Addr::new(127, 2, 0, 2));
        assert_eq!(source(250 * 250), Ipv4Addr::new(127, 2, 1, 1));
    }
}
