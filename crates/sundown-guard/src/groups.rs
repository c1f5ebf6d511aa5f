//! *Models* the groups of listeners that share an address, as the kernel numbers their members.
//!
//! Pure. A listener that joins is the last of its group; the last takes the number of one that leaves
//! (reuseport_detach_sock in the kernel's net/core/sock_reuseport.c).

use std::collections::HashMap;
use std::net::SocketAddr;

/// Which listeners share which address, in the kernel's order.
#[derive(Debug, Default)]
pub(crate) struct Groups(HashMap<SocketAddr, Vec<Member>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    generation: u32,
    inode: u64,
}

/// A generation's members of a group: so many from that number on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) base: u32,
    pub(crate) count: u32,
}

impl Groups {
    /// A socket listens, or one that did is another generation's now.
    pub(crate) fn joins(&mut self, address: SocketAddr, generation: u32, inode: u64) {
        let members = self.0.entry(address).or_default();
        match members.iter_mut().find(|member| member.inode == inode) {
            Some(known) => known.generation = generation,
            None => members.push(Member { generation, inode }),
        }
    }

    /// The last descriptor of a socket is closed.
    pub(crate) fn leaves(&mut self, inode: u64) {
        for members in self.0.values_mut() {
            if let Some(at) = members.iter().position(|member| member.inode == inode) {
                members.swap_remove(at);
            }
        }
    }

    /// Where a generation's members are; of several that are apart the first is told.
    pub(crate) fn part(&self, address: SocketAddr, generation: u32) -> Option<Part> {
        let members = self.0.get(&address)?;
        let is_its = |member: &Member| member.generation == generation;
        let base = members.iter().position(is_its)?;
        let count = members[base..].iter().take_while(|member| is_its(member));
        Some(Part {
            base: base as u32,
            count: count.count() as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_numbered_as_the_kernel_does() {
        let address = "127.0.0.1:80".parse().unwrap();
        let mut groups = Groups::default();
        for (generation, inode) in [(1, 10), (1, 11), (2, 20), (2, 21), (2, 22)] {
            groups.joins(address, generation, inode);
        }
        let part = |groups: &Groups, generation| {
            let part = groups.part(address, generation)?;
            Some((part.base, part.count))
        };
        assert_eq!(part(&groups, 1), Some((0, 2)));
        assert_eq!(part(&groups, 2), Some((2, 3)));
        groups.leaves(10);
        // 22, 11, 20, 21
        assert_eq!(part(&groups, 1), Some((1, 1)));
        assert_eq!(part(&groups, 2), Some((0, 1)));
        groups.leaves(11);
        // 22, 21, 20
        assert_eq!(part(&groups, 1), None);
        assert_eq!(part(&groups, 2), Some((0, 3)));
        // After a crash the same sockets are the next one's.
        for inode in [20, 21, 22] {
            groups.joins(address, 3, inode);
        }
        assert_eq!(part(&groups, 3), Some((0, 3)));
    }
}
