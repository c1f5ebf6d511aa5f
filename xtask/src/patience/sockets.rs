//! What the kernel shows of a port (proc_net_tcp(5)), and a socket that hears nothing for a while.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::ensure;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use super::LIMIT;

/// What is in front of the servers of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InFront {
    /// Connections that nobody has accepted.
    pub(super) queued: usize,
    /// Handshakes that are under way.
    pub(super) shaking: usize,
}

impl InFront {
    /// Looks at the listeners of a port: of IPv4, and of IPv6, where one may serve both.
    pub(super) fn of(port: u16) -> io::Result<Self> {
        let read = |table| Ok::<_, io::Error>(Self::read(&fs::read_to_string(table)?, port));
        let (four, six) = (read("/proc/net/tcp")?, read("/proc/net/tcp6")?);
        Ok(Self {
            queued: four.queued + six.queued,
            shaking: four.shaking + six.shaking,
        })
    }

    /// Waits until it is as expected.
    pub(super) async fn wait(port: u16, expected: Self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let found = Self::of(port)?;
            if found == expected {
                return Ok(());
            }
            ensure!(
                began.elapsed() < LIMIT,
                "{found:?} on port {port} instead of {expected:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn read(table: &str, port: u16) -> Self {
        const SYN_RECV: &str = "03";
        const LISTEN: &str = "0A";
        let (mut queued, mut shaking) = (0, HashSet::new());
        for line in table.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[_, local, client, state, queues, ..] = fields.as_slice() else {
                continue;
            };
            if !local.ends_with(&format!(":{port:04X}")) {
                continue;
            }
            match state {
                // A table that changes while it is read tells of some twice.
                SYN_RECV => drop(shaking.insert(client)),
                LISTEN => {
                    let waiting = queues.rsplit(':').next().unwrap_or_default();
                    queued += usize::from_str_radix(waiting, 16).unwrap_or(0);
                }
                _ => {}
            }
        }
        Self {
            queued,
            shaking: shaking.len(),
        }
    }
}

/// A client that connects, and hears nothing of what it is answered until it is let to.
///
/// So its server waits for the last packet of the handshake, which the client sends when it hears the next
/// repetition of the server's: they come a second after the first, and a second after that.
pub(super) struct Deaf(OwnedFd);

impl Deaf {
    /// Begins to connect.
    pub(super) fn connect(
        target: SocketAddr,
    ) -> io::Result<(Self, impl Future<Output = io::Result<TcpStream>>)> {
        let socket = TcpSocket::new_v4()?;
        let deaf = Self(socket.as_fd().try_clone_to_owned()?);
        // It drops every packet (classic BPF, socket(7)): each is cut to no bytes.
        let drop = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: (&raw const drop).cast_mut(),
        };
        deaf.set(libc::SO_ATTACH_FILTER, &program)?;
        Ok((deaf, socket.connect(target)))
    }

    /// Lets it hear what comes from now on.
    pub(super) fn hear(self) -> io::Result<()> {
        let none: libc::c_int = 0;
        self.set(libc::SO_DETACH_FILTER, &none)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the pointer and length describe `value`; what a program points
        // to outlives the call, for the kernel copies it.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Lets the kernel ask every second whether the other side is there (tcp(7)).
pub(super) fn probe(stream: &TcpStream) -> io::Result<()> {
    let options = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    ];
    for (level, option) in options {
        let one: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the pointer and length describe `one`.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                level,
                option,
                (&raw const one).cast(),
                size_of_val(&one) as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_waits_and_who_shakes_hands_is_counted_by_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000032 00:00000000\n\
            1: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000\n\
            2: 0100007F:1F90 0100007F:C350 03 00000000:00000000 01:00000000\n\
            2: 0100007F:1F90 0100007F:C350 03 00000000:00000000 01:00000000\n\
            3: 0100007F:1F90 0100007F:C351 01 00000000:00000007 00:00000000\n\
            4: 0100007F:1F91 0100007F:C352 03 00000000:00000000 01:00000000\n";
        let expected = InFront {
            queued: 51,
            shaking: 1,
        };
        assert_eq!(InFront::read(table, 8080), expected);
    }

    #[tokio::test]
    async fn a_handshake_is_not_over_before_its_client_hears() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (deaf, connected) = Deaf::connect(address).unwrap();
        let connected = tokio::spawn(connected);
        let shaking = InFront {
            queued: 0,
            shaking: 1,
        };
        InFront::wait(address.port(), shaking).await.unwrap();
        assert!(!connected.is_finished());

        deaf.hear().unwrap();
        connected.await.unwrap().unwrap();
        let queued = InFront {
            queued: 1,
            shaking: 0,
        };
        InFront::wait(address.port(), queued).await.unwrap();
    }
}
