//! The file of a Unix socket: nobody's is taken away, and none is left behind.
//!
//! A file that a dead process left is told from one that is in use by a connect: it is refused where nobody
//! listens. Two services that start at one path in the same instant could each take the other's for stale.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use socket2::{Domain, SockAddr, Socket, Type};

/// The file that a bound socket has made; removed when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct UnixFile {
    path: PathBuf,
    identity: Identity,
    /// It is another process's from now on.
    left: AtomicBool,
}

impl UnixFile {
    /// Takes over the file of a socket that another process has bound.
    pub(super) fn adopt(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
            left: AtomicBool::new(false),
        })
    }

    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

/// What a path leads to: device, inode, and when that was made. A socket's file is never written to, and an
/// inode is soon another's.
type Identity = (u64, u64, SystemTime);

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino(), file.modified()?))
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        let is_ours =
            !*self.left.get_mut() && identity(&self.path).is_ok_and(|now| now == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a path, over a stale file if need be. Nobody can connect before the socket listens.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(Socket, UnixFile)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let file = UnixFile::adopt(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok((socket, file))
}

/// Whether a socket's file is there, and nobody listens behind it.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (first, file) = bind(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        first.listen(1).unwrap();
        let taken = bind(&path, 0o600).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);

        drop(first);
        let (second, newer) = bind(&path, 0o660).unwrap();
        drop(file);
        assert!(path.exists(), "the file is another's by now");
        drop((second, newer));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "precious").unwrap();
        let taken = bind(&path, 0o600).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
